package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
)

// idle counts what two servers ask of a bucket while nothing happens, strangers first
// and then as peers.
func idle(ctx context.Context, l *lab) error {
	for _, peers := range []bool{false, true} {
		n, err := l.idleOnce(ctx, peers)
		if err != nil {
			return err
		}
		name := "requests of an idle replica per hour"
		if peers {
			name += ", with a peer"
		}
		l.add("idle", name, fmt.Sprintf("%.0f", n), "", "", "")
		l.stopAll()
	}
	return nil
}

func (l *lab) idleOnce(ctx context.Context, peers bool) (perHour float64, err error) {
	addr, env, err := l.s3()
	if err != nil {
		return 0, err
	}
	var all []*server
	for i := range 2 {
		own, err := freeAddr()
		if err != nil {
			return 0, err
		}
		if peers {
			env = append(env[:2:2], "CELLER_ADVERTISE=http://"+own)
		}
		s, err := l.serveAt(ctx, own, s3URL(addr), filepath.Join(l.dir, fmt.Sprintf("idle-%v-%d", peers, i)), env...)
		if err != nil {
			return 0, err
		}
		all = append(all, s)
	}
	count := func() (n float64, err error) {
		for _, s := range all {
			requests, err := s.bucketRequests()
			if err != nil {
				return 0, err
			}
			for _, v := range requests {
				n += v
			}
		}
		return n / float64(len(all)), nil
	}
	// They need a moment to get to know each other, and a minute to believe it: a slot
	// that nobody hinted at was found while they started.
	if err := sleep(ctx, 70*time.Second); err != nil {
		return 0, err
	}
	before, err := count()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := sleep(ctx, 2*l.contend); err != nil {
		return 0, err
	}
	after, err := count()
	return (after - before) / time.Since(began).Hours(), err
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
