package wal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/VictoriaMetrics/metrics"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/wal"
	"github.com/celler/celler/wal/waltest"
)

// appending is an operation that a peer can perform.
func appending(list, id string) wal.Op {
	op := waltest.Append(list, id)
	op.Name = "append"
	op.Intent = func() ([]byte, error) { return []byte(list + " " + id), nil }
	return op
}

func reviveAppend(_ string, intent []byte) (wal.Op, error) {
	list, id, ok := strings.Cut(string(intent), " ")
	if !ok {
		return wal.Op{}, fmt.Errorf("intent %q", intent)
	}
	return appending(list, id), nil
}

// pair is a follower, which sends what it is to commit, and the leader that it sends it
// to. By what is sent, and what arrives of it, a test decides what happens.
type pair struct {
	t                *testing.T
	bucket           blob.Bucket
	leader, follower *wal.Log
	leaders, own     *waltest.State

	mu    sync.Mutex // guards the fields below
	sent  [][]byte
	turns int     // messages that only ask for one
	slot  wal.Seq // that the last of them was for
	hang  bool    // those are not answered
	post  poster
}

// poster is what becomes of a message.
type poster func(ctx context.Context, message []byte) (wal.Seq, error)

func mkPair(t *testing.T) *pair {
	p := &pair{t: t, bucket: mkBucket(t)}
	never := func(context.Context, string, []byte) (wal.Seq, error) { return 0, wal.ErrRefused }
	p.leader, p.leaders = mustOpen(t, p.bucket, wal.Options{Address: "leader", Forward: never})
	p.follower, p.own = mustOpen(t, p.bucket, wal.Options{Address: "follower", Forward: p.forward})
	p.post = p.deliver
	// The follower's session is open, and the leader has the last word.
	mustCommit(t, p.follower, appending("l", "first"))
	p.lead()
	return p
}

// through lets messages go through post from now on.
func (p *pair) through(post poster) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.post = post
}

// lead lets the leader win a slot and the follower hear of it.
func (p *pair) lead() {
	mustCatchUp(p.t, p.leader)
	mustCommit(p.t, p.leader, appending("l", "lead"))
	mustCatchUp(p.t, p.follower)
}

func (p *pair) forward(ctx context.Context, address string, message []byte) (wal.Seq, error) {
	p.mu.Lock()
	post := p.post
	if wal.AsksForTurn(message) {
		p.turns++
		p.slot = wal.TurnSlot(message)
		if post = p.deliver; p.hang {
			post = func(ctx context.Context, _ []byte) (wal.Seq, error) {
				<-ctx.Done()
				return 0, ctx.Err()
			}
		}
	} else {
		p.sent = append(p.sent, message)
	}
	p.mu.Unlock()
	if address != "leader" {
		p.t.Errorf("forwarded to %q", address)
	}
	return post(ctx, message)
}

func (p *pair) deliver(ctx context.Context, message []byte) (wal.Seq, error) {
	return p.leader.Accept(ctx, message, reviveAppend)
}

// asks returns how often the follower has asked for a turn, once nothing moves.
func (p *pair) asks() int {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.turns
}

func (p *pair) messages() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.sent)
}

// want demands that the list has each of the words once, on both replicas.
func (p *pair) want(ids ...string) {
	p.t.Helper()
	mustCatchUp(p.t, p.leader)
	mustCatchUp(p.t, p.follower)
	for name, st := range map[string]*waltest.State{"leader": p.leaders, "follower": p.own} {
		list, _, _ := st.Get([]byte("l"))
		for _, id := range ids {
			if n := strings.Count(" "+string(list)+" ", " "+id+" "); n != 1 {
				p.t.Errorf("%s: %q is %d times in %q", name, id, n, list)
			}
		}
	}
}

func inBubble(t *testing.T, f func(t *testing.T, p *pair)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, mkPair(t)) })
}

func TestForward(t *testing.T) {
	inBubble(t, func(t *testing.T, p *pair) {
		ctx := wal.As(t.Context(), "somebody")
		seq, err := p.follower.Commit(ctx, appending("l", "x"))
		if err != nil {
			t.Fatal(err)
		}
		p.want("x")
		var last *wal.Segment
		for seg, err := range wal.ReadSegments(t.Context(), p.bucket, seq, seq) {
			if err != nil {
				t.Fatal(err)
			}
			last = seg
		}
		if p.messages() != 1 || last == nil || last.Address() != "leader" {
			t.Errorf("%d messages, and slot %v is of %v, want the leader's", p.messages(), seq, last)
		}
		if !bytes.Contains(fmt.Append(nil, last.Entries[0].Key, last.Entries[0].Value), fmt.Append(nil, []byte("somebody"))) && !bytes.Contains(last.Entries[0].Value, []byte("somebody")) {
			t.Errorf("the segment does not say on whose behalf: %q %q", last.Entries[0].Key, last.Entries[0].Value)
		}
	})
}

// What a peer answers is not what is acknowledged.
func TestForwardBelievesTheStateAlone(t *testing.T) {
	inBubble(t, func(t *testing.T, p *pair) {
		p.through(func(context.Context, []byte) (wal.Seq, error) { return 1 << 40, nil }) // it lies
		mustCommit(t, p.follower, appending("l", "x"))
		p.want("x")
		if last := mustCatchUp(t, p.follower); last > 10 {
			t.Errorf("at slot %v", last)
		}
	})
}

func TestForwardWithoutAnswer(t *testing.T) {
	noAnswer := errors.New("no answer")
	for name, post := range map[string]func(p *pair) poster{
		"lost": func(*pair) poster {
			return func(context.Context, []byte) (wal.Seq, error) { return 0, noAnswer }
		},
		"refused": func(*pair) poster {
			return func(context.Context, []byte) (wal.Seq, error) { return 0, wal.ErrRefused }
		},
		"silence": func(*pair) poster {
			return func(ctx context.Context, _ []byte) (wal.Seq, error) {
				<-ctx.Done()
				return 0, ctx.Err()
			}
		},
		"committed": func(p *pair) poster {
			return func(ctx context.Context, m []byte) (wal.Seq, error) {
				if _, err := p.deliver(ctx, m); err != nil {
					p.t.Error(err)
				}
				return 0, noAnswer
			}
		},
		"twice": func(p *pair) poster {
			return func(ctx context.Context, m []byte) (wal.Seq, error) {
				if _, err := p.deliver(ctx, m); err != nil {
					p.t.Error(err)
				}
				return p.deliver(ctx, m)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, p *pair) {
				p.through(post(p))
				mustCommit(t, p.follower, appending("l", "x"))
				p.want("x")
				// What was sent arrives once more, long after.
				p.mu.Lock()
				first := p.sent[0]
				p.mu.Unlock()
				if _, err := p.deliver(t.Context(), first); err != nil && !errors.Is(err, wal.ErrRefused) {
					t.Error(err)
				}
				p.want("x")
			})
		})
	}
}

// A message that was taken back is void, also for a peer that has not seen that yet.
func TestVoidMessageIsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, p *pair) {
		p.through(func(context.Context, []byte) (wal.Seq, error) { return 0, errors.New("lost") })
		mustCommit(t, p.follower, appending("l", "x")) // by itself, and the leader does not know
		_, err := p.deliver(t.Context(), p.sent[0])
		wantErr(t, err, wal.ErrRefused)
		p.want("x")
	})
}

// Whoever leaves while a message is under way is not told that nothing happened.
func TestForwardAbandoned(t *testing.T) {
	inBubble(t, func(t *testing.T, p *pair) {
		p.through(func(ctx context.Context, _ []byte) (wal.Seq, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		})
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := p.follower.Commit(ctx, appending("l", "x"))
		wantErr(t, err, wal.ErrUnknown)
	})
}

func TestCloseWhileForwarding(t *testing.T) {
	inBubble(t, func(t *testing.T, p *pair) {
		p.through(func(ctx context.Context, _ []byte) (wal.Seq, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		})
		result := make(chan error)
		go func() {
			_, err := p.follower.Commit(t.Context(), appending("l", "x"))
			result <- err
		}()
		synctest.Wait()
		if err := p.follower.Close(); err != nil {
			t.Fatal(err)
		}
		wantErr(t, <-result, wal.ErrUnknown)
	})
}

// If the numbers of lanes are gone nobody can tell what became of a message.
func TestLanesGone(t *testing.T) {
	inBubble(t, func(t *testing.T, p *pair) {
		var writer wal.WriterID
		p.through(func(ctx context.Context, m []byte) (wal.Seq, error) {
			writer = wal.WriterID(m[20:36])
			drop := wal.Op{Build: func(wal.View) ([]wal.Entry, error) {
				return []wal.Entry{{Kind: wal.Delete, Key: wal.LanesKey(writer)}, {Kind: wal.Delete, Key: wal.SessionKey(writer)}}, nil
			}}
			if _, err := p.leader.Commit(ctx, drop); err != nil {
				return 0, err
			}
			return p.deliver(ctx, m)
		})
		_, err := p.follower.Commit(t.Context(), appending("l", "x"))
		wantErr(t, err, wal.ErrUnknown)
		wantErr(t, err, wal.ErrFenced)
		p.through(p.deliver)
		mustCommit(t, p.follower, appending("l", "y")) // under a new id
		p.lead()
		mustCommit(t, p.follower, appending("l", "z"))
		p.want("y", "z")
	})
}

// An operation that the leader cannot perform is committed by the follower.
func TestForwardOfWhatIsRejected(t *testing.T) {
	inBubble(t, func(t *testing.T, p *pair) {
		op := create("k", "v")
		op.Intent = func() ([]byte, error) { return []byte("no list"), errors.New("not this one") }
		mustCommit(t, p.follower, op)
		if p.messages() != 0 {
			t.Error("it was sent")
		}
		p.lead()
		taken := appending("l", "x")
		taken.Build = func(wal.View) ([]wal.Entry, error) { return nil, errTaken }
		taken.Intent = func() ([]byte, error) { return []byte("nonsense"), nil }
		_, err := p.follower.Commit(t.Context(), taken)
		wantErr(t, err, errTaken)
		if p.messages() != 1 {
			t.Errorf("%d messages, want 1", p.messages())
		}
		p.lead()
		before := p.asks()
		seq := mustCommit(t, p.follower, create("k2", "v")) // not for peers
		if n := p.asks() - before; n != 1 || p.slot != seq {
			t.Errorf("%d turns were asked for, the last for slot %d, want one for slot %d", n, p.slot, seq)
		}
	})
}

// A turn is left to who tries for a slot of now, and one that is asked for twice once.
func TestTurnsThatAreLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := metrics.NewSet()
		l, _ := mustOpen(t, mkBucket(t), wal.Options{Address: "leader", Metrics: set})
		for n := range 40 {
			mustCommit(t, l, appending("l", fmt.Sprint(n)))
		}
		left := set.GetOrCreateCounter(`celler_wal_turns_total{turn="left"}`)
		for _, c := range []struct {
			name string
			seq  wal.Seq
			want uint64
		}{
			{"for a slot long gone", 3, 0}, {"for the next", l.Seq() + 1, 1}, {"again, before the leader took notice", l.Seq() + 1, 1},
		} {
			if _, err := l.Accept(t.Context(), l.TurnMessage(wal.WriterID{7}, c.seq), reviveAppend); !errors.Is(err, wal.ErrTurn) || !errors.Is(err, wal.ErrRefused) {
				t.Errorf("%s: %v, want ErrTurn", c.name, err)
			}
			if left.Get() != c.want {
				t.Errorf("%s: %d turns are left, want %d", c.name, left.Get(), c.want)
			}
		}
		began := time.Now()
		for range 3 { // the slot under way, the one after the turn, and one more
			mustCommit(t, l, appending("l", "x"))
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("three commits took %v beside a turn that nobody uses", took)
		}
	})
}

// A peer that does not answer a request for a turn is waited for by nobody.
func TestATurnThatIsNotAnswered(t *testing.T) {
	inBubble(t, func(t *testing.T, p *pair) {
		p.mu.Lock()
		p.hang = true
		p.mu.Unlock()
		for n := range 3 {
			p.lead()
			began := time.Now()
			mustCommit(t, p.follower, create(fmt.Sprint("k", n), "v"))
			if took := time.Since(began); took > 100*time.Millisecond {
				t.Errorf("a commit took %v", took)
			}
		}
		if n := p.asks(); n != 1 {
			t.Errorf("%d requests for a turn are under way, want one at a time", n)
		}
		if err := p.follower.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Nobody may write the numbers of lanes but the log.
func TestLanesAreReserved(t *testing.T) {
	l, _ := mustOpen(t, mkBucket(t), wal.Options{})
	_, err := l.Commit(t.Context(), set(string(wal.LanesKey(wal.WriterID{1})), "x"))
	var wrong *wal.EntryError
	if !errors.As(err, &wrong) {
		t.Errorf("error %v, want an EntryError", err)
	}
}

func TestAcceptNonsense(t *testing.T) {
	l, _ := mustOpen(t, mkBucket(t), wal.Options{})
	message := wal.GoldenMessage()
	for i := range message {
		_, err := l.Accept(t.Context(), message[:i], reviveAppend)
		wantErr(t, err, wal.ErrRefused)
	}
	_, err := l.Accept(t.Context(), message, reviveAppend) // of another store
	wantErr(t, err, wal.ErrRefused)
}

func TestMessageGolden(t *testing.T) {
	const want = "434c4631010000000000000000000000000000000200000000000000000000000000000003000000000000000400000000000000050206617070656e640263690361206d036c20780161000000"
	got := fmt.Sprintf("%x", wal.GoldenMessage())
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func FuzzDecodeMessage(f *testing.F) {
	f.Add(wal.GoldenMessage())
	f.Fuzz(func(t *testing.T, src []byte) {
		if again, ok := wal.ReencodeMessage(src); ok && len(again) > len(src) {
			t.Errorf("%x became %x", src, again)
		}
	})
}
