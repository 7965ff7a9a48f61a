package wal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/blobtest"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/wal"
	"github.com/celler/celler/wal/waltest"
)

// TestTranscripts runs the scripts in testdata/transcripts. Each command prints the
// calls of the bucket that it led to, in order; slots read at once are sorted.
//
//	open log=a                     open a log on an empty state
//	commit log=a key=x value=1     commit one operation; "create" refuses a key that exists
//	catch-up log=a
//	dump log=a
//	fault op=create fault=lost-response [log=a] [key=…]
//	                               what happens to the next such call
//	overtake op=create log=a by=b  before the next such call, b catches up, commits
//	                               something, and truncates the log behind it
//	release                        let delayed writes happen
//	snapshot log=a                 write its state, and raise snapshot and floor to it
//	log                            print the segments
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata/transcripts", func(t *testing.T, path string) {
		s := newStage(t)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string { return s.run(t, d) })
	})
}

type stage struct {
	bucket *memblob.Bucket
	clock  *clock
	logs   map[string]*wal.Log
	states map[string]*waltest.State
	faulty []*blobtest.Faulty

	mu     sync.Mutex // guards the fields below
	calls  []string
	faults []plannedFault
}

type plannedFault struct {
	log, op, key string
	fault        blobtest.Fault
	by           string // no fault, but this log overtakes
}

func newStage(t *testing.T) *stage {
	s := &stage{bucket: memblob.New(), clock: newClock(), logs: map[string]*wal.Log{}, states: map[string]*waltest.State{}}
	if _, err := (wal.Founding{Env: s.clock.env(99)}).Found(t.Context(), s.bucket, wal.Format{Profile: "p"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, l := range s.logs {
			_ = l.Close()
		}
	})
	return s
}

func (s *stage) run(t *testing.T, d *datadriven.TestData) string {
	slept := s.clock.slept
	result := s.perform(t, d)
	if slept = s.clock.slept - slept; slept > 0 {
		s.note(fmt.Sprintf("(slept %v)", slept.Round(time.Millisecond)))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := strings.Join(append(sortReads(s.calls), result), "\n")
	s.calls = nil
	return strings.TrimSpace(out) + "\n"
}

func (s *stage) perform(t *testing.T, d *datadriven.TestData) string {
	var name, key, value string
	for arg, to := range map[string]*string{"log": &name, "key": &key, "value": &value} {
		if d.HasArg(arg) {
			d.ScanArgs(t, arg, to)
		}
	}
	switch d.Cmd {
	case "open":
		return s.open(t, name)
	case "commit", "create":
		op := set(key, value)
		if d.Cmd == "create" {
			op = create(key, value)
		}
		seq, err := s.logs[name].Commit(t.Context(), op)
		return outcome(seq, err)
	case "catch-up":
		return outcome(s.logs[name].CatchUp(t.Context()))
	case "dump":
		return s.states[name].Dump()
	case "fault", "overtake":
		s.plan(t, d, name, key)
		return "ok"
	case "release":
		n := 0
		for _, f := range s.faulty {
			n += f.Release(t.Context(), -1)
		}
		return fmt.Sprintf("%d writes arrived late", n)
	case "snapshot":
		return outcome(s.snapshot(t, name))
	case "log":
		return s.segments(t)
	}
	t.Fatalf("%s: unknown command %q", d.Pos, d.Cmd)
	return ""
}

func (s *stage) snapshot(t *testing.T, name string) (wal.Seq, error) {
	ref, err := s.states[name].Snapshot(t.Context(), s.bucket)
	if err == nil {
		err = waltest.Truncate(t.Context(), s.bucket, wal.RootChange{Env: s.clock.env(uint64(ref.Seq))}, ref)
	}
	return ref.Seq, err
}

func (s *stage) overtake(t *testing.T, name string) {
	mustCatchUp(t, s.logs[name])
	mustCommit(t, s.logs[name], set("overtaken-by", name))
	if _, err := s.snapshot(t, name); err != nil {
		t.Error(err)
	}
	s.note("(the log was truncated)")
}

func outcome(seq wal.Seq, err error) string {
	switch {
	case err == nil:
		return fmt.Sprintf("-> slot %d", seq)
	case errors.Is(err, wal.ErrUnknown):
		return "-> unknown"
	default:
		return "-> " + err.Error()
	}
}

func (s *stage) open(t *testing.T, name string) string {
	bucket := blob.Observe(s.bucket, func(_ context.Context, c blob.Call) { s.note(name + " " + describe(c)) })
	faulty := blobtest.NewFaulty(bucket, blobtest.FaultyOptions{Decide: func(_ int, op string, key blob.Key) blobtest.Fault {
		return s.next(t, name, op, key)
	}})
	s.faulty = append(s.faulty, faulty)
	s.states[name] = waltest.NewState(s.bucket)
	l, err := wal.Open(t.Context(), faulty, s.states[name], wal.Options{Env: s.clock.env(uint64(name[0])), HedgeAfter: -1})
	if err != nil {
		return "-> " + err.Error()
	}
	s.logs[name] = l
	return outcome(l.Seq(), nil)
}

func (s *stage) plan(t *testing.T, d *datadriven.TestData, name, key string) {
	p := plannedFault{log: name, key: key}
	d.ScanArgs(t, "op", &p.op)
	if d.Cmd == "overtake" {
		d.ScanArgs(t, "by", &p.by)
	} else {
		var fault string
		d.ScanArgs(t, "fault", &fault)
		i := slices.IndexFunc(faults, func(f blobtest.Fault) bool { return f.String() == strings.ReplaceAll(fault, "-", " ") })
		if i < 0 {
			t.Fatalf("%s: unknown fault %q", d.Pos, fault)
		}
		p.fault = faults[i]
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, p)
}

// next returns the fault planned for a call, once.
func (s *stage) next(t *testing.T, name, op string, key blob.Key) blobtest.Fault {
	s.mu.Lock()
	i := slices.IndexFunc(s.faults, func(f plannedFault) bool {
		return f.op == op && (f.log == "" || f.log == name) && (f.key == "" || f.key == short(key))
	})
	if i < 0 {
		s.mu.Unlock()
		return blobtest.None
	}
	p := s.faults[i]
	s.faults = slices.Delete(s.faults, i, i+1)
	if p.by == "" {
		s.calls = append(s.calls, fmt.Sprintf("%s %s %s: %v", name, op, short(key), p.fault))
	}
	s.mu.Unlock()
	if p.by != "" {
		s.overtake(t, p.by)
	}
	return p.fault
}

func (s *stage) note(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, line)
}

// short shortens the name of a slot.
func short(key blob.Key) string {
	text, ok := strings.CutPrefix(string(key), "log/")
	if seq, err := wal.ParseSeq(text); ok && err == nil {
		return fmt.Sprintf("log/%d", seq)
	}
	return string(key)
}

func describe(c blob.Call) string {
	result := "ok"
	for _, known := range []error{blob.ErrNotExist, blob.ErrExist, blob.ErrChanged, blob.ErrUnchanged} {
		if errors.Is(c.Err, known) {
			result = known.Error()
		}
	}
	return fmt.Sprintf("%s %s: %s", c.Op, short(c.Key), result)
}

// sortReads sorts each run of reads of slots.
func sortReads(calls []string) []string {
	isRead := func(call string) bool { return strings.Contains(call, " get log/") }
	for i := 0; i < len(calls); i++ {
		j := i
		for j < len(calls) && isRead(calls[j]) {
			j++
		}
		slices.Sort(calls[i:j])
		i = max(i, j-1)
	}
	return calls
}

func (s *stage) segments(t *testing.T) string {
	var out bytes.Buffer
	writers := map[wal.WriterID]string{}
	for seg, err := range wal.ReadSegments(t.Context(), s.bucket, 0, 0) {
		if err != nil {
			return out.String() + err.Error()
		}
		if writers[seg.Writer] == "" {
			writers[seg.Writer] = fmt.Sprintf("writer %d", len(writers)+1)
		}
		fmt.Fprintf(&out, "slot %d: %s, batch %d:", seg.Seq, writers[seg.Writer], seg.Batch)
		for _, e := range seg.Entries {
			if e.Kind == wal.Set {
				fmt.Fprintf(&out, " %s=%s", e.Key, e.Value)
			}
		}
		out.WriteByte('\n')
	}
	return out.String()
}
