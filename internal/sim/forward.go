package sim

import (
	"context"
	"fmt"
	"strings"

	"github.com/celler/celler/wal"
)

// forwarder sends what a node forwards to another, over a network that loses requests
// and answers, delivers late, and delivers twice.
func (r *run) forwarder(from string) func(context.Context, string, []byte) (wal.Seq, error) {
	return func(ctx context.Context, address string, message []byte) (wal.Seq, error) {
		type result struct {
			seq wal.Seq
			err error
		}
		digest := wal.DigestOf(message)
		what := fmt.Sprintf("forward %x to %s", digest[:4], address)
		answers := make(chan result, 1)
		deliver := func() {
			go func() {
				seq, err := r.accept(address, message)
				r.w.Pause("net", what+": answer")
				select {
				case answers <- result{seq, err}:
				default: // the second of two
				}
			}()
		}
		silence := make(chan result)
		wait := answers
		e := r.w.add(&event{actor: from, what: what, perform: func() bool {
			quarter := r.w.FaultRate / 4
			switch f := r.w.rng.Float64(); {
			case f < quarter: // lost, and the sender waits
				wait = silence
			case f < 2*quarter: // performed, and the answer is lost
				wait = silence
				deliver()
			case f < 3*quarter: // performed long after
				wait = silence
				r.w.add(&event{actor: "net", what: what + ": late", perform: func() bool { deliver(); return true }})
			case f < 4*quarter: // twice
				deliver()
				r.w.add(&event{actor: "net", what: what + ": again", perform: func() bool { deliver(); return true }})
			default:
				deliver()
			}
			return true
		}})
		select {
		case <-e.done:
		case <-ctx.Done():
			if r.w.remove(e) {
				return 0, context.Cause(ctx)
			}
			<-e.done
		}
		select {
		case a := <-wait:
			return a.seq, a.err
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// accept lets a node commit what another has sent, if it is up.
func (r *run) accept(address string, message []byte) (wal.Seq, error) {
	for _, n := range r.nodes {
		if n.name != address {
			continue
		}
		l, _ := n.running()
		if l == nil {
			break
		}
		return l.Accept(context.Background(), message, revive)
	}
	return 0, fmt.Errorf("forward to %s: %w", address, errNoAnswer)
}

// intent is what a node needs to perform an operation for another.
func (in input) intent() ([]byte, error) { return []byte(in.op + " " + in.key + " " + in.value), nil }

func revive(_ string, intent []byte) (wal.Op, error) {
	words := strings.Split(string(intent), " ")
	if len(words) != 3 {
		return wal.Op{}, fmt.Errorf("intent %q has %d words, want 3", intent, len(words))
	}
	return operation(input{op: words[0], key: words[1], value: words[2]}, new(output)), nil
}
