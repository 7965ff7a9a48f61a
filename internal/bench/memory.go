package main

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"
)

// memory pushes many large NARs in parallel, then pulls them in parallel.
func memory(ctx context.Context, l *lab) error {
	return large(ctx, l, "memory", l.parallel, l.largeBytes)
}

// huge pushes and pulls one NAR that is larger than the memory of many machines.
func huge(ctx context.Context, l *lab) error {
	return large(ctx, l, "huge", 1, 20*l.largeBytes)
}

func large(ctx context.Context, l *lab, name string, n int, size int64) error {
	s, err := l.serve(ctx, filepath.Join(l.dir, name+"-bucket"), filepath.Join(l.dir, name+"-local"))
	if err != nil {
		return err
	}
	if err := s.createCache(ctx, "bench"); err != nil {
		return err
	}
	nars := make([]*synthetic, n)
	for i := range nars {
		if nars[i], err = newSynthetic(uint64(1000+i), size); err != nil {
			return err
		}
	}
	begin := time.Now()
	if err := s.pushAll(ctx, nars); err != nil {
		return err
	}
	pushed := time.Since(begin).Seconds()
	afterPush := must(s.peakRSS())
	urls := make([]string, n)
	for i, nar := range nars {
		if _, urls[i], err = narinfo(ctx, s.endpoint+"/bench", nar.corpusNAR); err != nil {
			return err
		}
	}
	_, d, err := pullAll(ctx, urls, n)
	if err != nil {
		return err
	}
	peak := must(s.peakRSS())
	total := float64(n) * float64(size) / 1e6
	l.add(name, fmt.Sprintf("%d parallel pushes of %.1f GB", n, float64(size)/1e9), mbps(total/pushed), "", "", "")
	l.add(name, "then as many parallel pulls, NAR bytes", mbps(total/d.Seconds()), "", "", "")
	l.add(name, "peak resident memory of the server", fmt.Sprintf("%d MiB (%d after the pushes)", peak>>20, afterPush>>20), "", "", target(peak <= 256<<20, "≤ 256 MiB"))
	return nil
}

// pushAll pushes all NARs at once and returns the first error.
func (s *server) pushAll(ctx context.Context, nars []*synthetic) error {
	errs := make([]error, len(nars))
	var wg sync.WaitGroup
	for i, n := range nars {
		wg.Go(func() { errs[i] = s.push(ctx, "bench", n.corpusNAR, n.reader()) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
