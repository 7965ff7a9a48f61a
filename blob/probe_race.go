package blob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Bodies of the races, alternating. See Probe for why both.
const (
	probeShortBody = 1 << 10
	probeLongBody  = 1 << 20
)

func (p *prober) checkCreateRace(ctx context.Context) (string, error) {
	return p.rounds(ctx, func(ctx context.Context, round int, bodies [][]byte) error {
		key := p.key("create-race")
		return p.race(ctx, key, round, bodies, ErrExist, func(ctx context.Context, body []byte) error {
			_, err := p.b.Create(ctx, key, body)
			return err
		})
	})
}

func (p *prober) checkSwapRace(ctx context.Context) (string, error) {
	return p.rounds(ctx, func(ctx context.Context, round int, bodies [][]byte) error {
		key := p.key("swap-race")
		tag, err := p.b.Create(ctx, key, []byte("start"))
		if err != nil {
			return unexpected(err, "create of free key %s", key)
		}
		return p.race(ctx, key, round, bodies, ErrChanged, func(ctx context.Context, body []byte) error {
			_, err := p.b.Swap(ctx, key, tag, body)
			return err
		})
	})
}

func (p *prober) rounds(ctx context.Context, round func(context.Context, int, [][]byte) error) (string, error) {
	short, long := p.bodies(probeShortBody), p.bodies(probeLongBody)
	for n := range p.o.Rounds {
		bodies := short
		if n%2 == 1 {
			bodies = long
		}
		for i, b := range bodies {
			copy(b, fmt.Sprintf("celler probe: round %04d racer %04d\n", n, i))
		}
		if err := round(ctx, n, bodies); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d rounds of %d, one winner each", p.o.Rounds, p.o.Racers), nil
}

// race lets all bodies be written at once and judges the outcome: at most one
// success, and what is stored afterwards is the winner's.
//
// A racer may get no answer (servers that refuse a request before they have
// read its body make the client see a reset connection), and then nobody knows
// whether it won. That is no finding: only two winners are, or a loser's body.
func (p *prober) race(ctx context.Context, key Key, round int, bodies [][]byte, lost error, write func(context.Context, []byte) error) error {
	errs := make([]error, len(bodies))
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i, body := range bodies {
		wg.Go(func() {
			<-start
			errs[i] = write(ctx, body)
		})
	}
	close(start)
	wg.Wait()

	winner, winners, unknown := -1, 0, 0
	var doubt error
	for i, err := range errs {
		switch {
		case err == nil:
			winner = i
			winners++
		case !errors.Is(err, lost):
			unknown++
			doubt = err
		}
	}
	what := fmt.Sprintf("round %d (%d byte bodies)", round, len(bodies[0]))
	if winners > 1 {
		return broken("%s: %d of %d concurrent writers of %s were told they won", what, winners, len(bodies), key)
	}
	if winners == 0 && unknown == 0 {
		return broken("%s: none of %d concurrent writers of %s won", what, len(bodies), key)
	}
	got, _, err := p.b.Get(ctx, key)
	if err != nil {
		if unknown > 0 && winners == 0 {
			return fmt.Errorf("%s: %w", what, doubt)
		}
		return unexpected(err, "%s: get of %s", what, key)
	}
	for i, body := range bodies {
		if !bytes.Equal(got, body) {
			continue
		}
		if errors.Is(errs[i], lost) || winners == 1 && i != winner {
			return broken("%s: %s holds the body of a writer that lost", what, key)
		}
		return nil
	}
	if winners == 0 {
		return fmt.Errorf("%s: no writer of %s got an answer: %w", what, key, doubt)
	}
	return broken("%s: %s holds none of the bodies that were written", what, key)
}

// bodies makes one body for each racer.
func (p *prober) bodies(size int) [][]byte {
	filler := p.body(size)
	all := make([][]byte, p.o.Racers)
	for i := range all {
		all[i] = bytes.Clone(filler)
	}
	return all
}

// body makes bytes that no proxy can compress away.
func (p *prober) body(size int) []byte {
	b := make([]byte, size)
	if _, err := io.ReadFull(p.o.Rand, b); err != nil {
		// The bytes need not be random, only of that length.
		return b
	}
	return b
}
