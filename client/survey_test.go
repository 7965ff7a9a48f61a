package client

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/nixstore"
	"github.com/celler/celler/nix"
)

// TestSurveyAsksLittle: of a closure that is there the root is asked about, and of a new one
// above it what is new and what that refers to.
func TestSurveyAsksLittle(t *testing.T) {
	var s fakeStore
	old := layers(&s, "old", 8, 10, nil)
	s.top("root", old...)
	f := newSurveyServer(t, &s)
	f.takeAll(&s)
	c := mustServe(t, f)
	var rec recorder
	below, more := 0, true
	ev := rec.events()
	ev.Below = func(n int, orMore bool) { below, more = n, orMore }
	res, err := c.Push(t.Context(), &s, PushOptions{Cache: "ci", Paths: []string{s.last()}}, ev)
	if err != nil || res.Present != 81 || res.Closures != 80 || below != 80 || more || rec.plan.Paths != 81 || len(rec.outcomes) != 1 {
		t.Errorf("the same again: %+v, %v, %d below, plan %+v; want 81 present, 80 of them below", res, err, below, rec.plan)
	}
	if !slices.Equal(f.asked, []int{1}) || f.fakeServer.asked != 0 || s.infoPaths != 1 {
		t.Errorf("%v questions, %d about each path, %d paths of the store looked at; want one about the root", f.asked, f.fakeServer.asked, s.infoPaths)
	}

	f.asked = nil
	fresh := layers(&s, "new", 2, 3, old)
	s.top("above", append(fresh, old[0])...)
	f.know(&s)
	res, err = c.Push(t.Context(), &s, PushOptions{Cache: "ci", Paths: []string{s.last()}}, Events{})
	if err != nil || res.Pushed != 7 || res.Present < 7 || f.fakeServer.asked != 0 {
		t.Errorf("a new root: %+v, %v", res, err)
	}
	if total := sum(f.asked); total > 7+6 || len(f.asked) > 4 {
		t.Errorf("questions about %v paths, want the 7 new ones and what they refer to", f.asked)
	}
}

func sum(ns []int) (total int) {
	for _, n := range ns {
		total += n
	}
	return total
}

// TestSurveyUpstream: that what an upstream cache has is absent is no reason to ask about more.
func TestSurveyUpstream(t *testing.T) {
	var s fakeStore
	up := layers(&s, "up", 4, 10, nil)
	for i := range s.infos {
		s.infos[i].Sigs = []nix.Signature{mustSignature(t, "cache.nixos.org-1")}
	}
	old := layers(&s, "old", 4, 10, up)
	s.top("root", append(slices.Clone(up[:5]), old...)...)
	f := newSurveyServer(t, &s)
	for _, info := range s.infos[40:] {
		f.have[info.StorePath.Base()] = true
	}
	c := mustServe(t, f)
	res, _ := mustPush(t, c, &s, PushOptions{})
	if res.Present != 41 || res.Upstream != 40 || !slices.Equal(f.asked, []int{1}) || f.fakeServer.asked != 0 {
		t.Errorf("%+v with questions %v, and %d about each", res, f.asked, f.fakeServer.asked)
	}
	// Something else is missing as well, or something that need not be there is there.
	for _, odd := range []string{s.infos[45].StorePath.Base(), up[0].Base()} {
		f.have[odd] = !f.have[odd]
		f.asked, f.fakeServer.asked = nil, 0
		res, _ := mustPush(t, c, &s, PushOptions{})
		if f.fakeServer.asked != 1 || res.Pushed != map[bool]int{true: 1}[odd == s.infos[45].StorePath.Base()] || !f.have[odd] {
			t.Errorf("%s: %+v with questions %v, and %d about each", odd, res, f.asked, f.fakeServer.asked)
		}
		f.have[up[0].Base()] = false
	}
}

// TestSurveyKnownMissing: what is below a path that is there, and known to be missing, is no
// reason to ask about more, whether it is of the same question or an earlier one.
func TestSurveyKnownMissing(t *testing.T) {
	for name, roots := range map[string][]string{"earlier": {"lost", "top"}, "the same": {"lost", "there"}} {
		var s fakeStore
		s.top("up")
		s.infos[0].Sigs = []nix.Signature{mustSignature(t, "up-1")}
		s.top("lost")
		s.top("low")
		s.top("there", mkPath("lost"), mkPath("up"), mkPath("low"))
		s.top("top", mkPath("there"))
		f := newSurveyServer(t, &s)
		f.have[mkPath("there").Base()], f.have[mkPath("low").Base()] = true, true
		var paths []nix.StorePath
		for _, root := range roots {
			paths = append(paths, mkPath(root))
		}
		wanted := mustWanted(t, mustInProcess(t, f), &s, Cache{Name: "ci", Closures: true, UpstreamKeyNames: []string{"up-1"}}, paths)
		if len(wanted) == 0 || wanted[0].storePath.Name() != "lost" || f.fakeServer.asked != 0 {
			t.Errorf("%s: %d wanted, questions about %v paths and %d about each", name, len(wanted), f.asked, f.fakeServer.asked)
		}
	}
}

// TestSurveyDeep: a long chain takes few questions, whatever of it is there.
func TestSurveyDeep(t *testing.T) {
	for _, there := range []int{0, 1, 100, 290, 299} {
		var s fakeStore
		var refs []nix.StorePath
		for i := range 300 {
			refs = []nix.StorePath{mkPath(fmt.Sprint("chain", i))}
			if i > 0 {
				s.addPath(refs[0], []byte("x"), s.infos[i-1].StorePath)
			} else {
				s.addPath(refs[0], []byte("x"))
			}
		}
		f := newSurveyServer(t, &s)
		for _, info := range s.infos[:there] {
			f.have[info.StorePath.Base()] = true
		}
		wanted := mustWanted(t, mustInProcess(t, f), &s, Cache{Name: "ci", Closures: true}, refs)
		if len(wanted) != 300-there || len(f.asked) > 12 || sum(f.asked) > 2*(300-there)+2 {
			t.Errorf("%d are there: %d wanted, questions about %v paths", there, len(wanted), f.asked)
		}
	}
}

func mustWanted(t testing.TB, c *Client, s *fakeStore, cache Cache, roots []nix.StorePath) []path {
	t.Helper()
	p := &push{c: c, store: s, o: PushOptions{Cache: "ci"}, ev: &Events{}, limiter: newLimiter(0)}
	wanted, _, err := p.wanted(t.Context(), roots, &cache, pinsOf{})
	if err != nil {
		t.Fatal(err)
	}
	return wanted
}

// TestSurveyIsRight asks about random closures in random states of the cache, and compares
// with asking about each path.
func TestSurveyIsRight(t *testing.T) {
	sig := mustSignature(t, "up-1")
	rapid.Check(t, func(rt *rapid.T) {
		var s fakeStore
		n := rapid.IntRange(1, 25).Draw(rt, "paths")
		var roots []nix.StorePath
		for i := range n {
			p := mkPath(fmt.Sprint("r", i))
			var refs []nix.StorePath
			for j := range i {
				if rapid.IntRange(0, 3).Draw(rt, "refers") == 0 {
					refs = append(refs, s.infos[j].StorePath)
				}
			}
			s.addPath(p, []byte("x"), refs...)
			if rapid.IntRange(0, 4).Draw(rt, "upstream") == 0 {
				s.infos[i].Sigs = []nix.Signature{sig}
			}
			if i == n-1 || rapid.IntRange(0, 6).Draw(rt, "root") == 0 {
				roots = append(roots, p)
			}
		}
		f := newSurveyServer(t, &s)
		f.unwalked = rapid.Bool().Draw(rt, "unwalked")
		whole := rapid.Bool().Draw(rt, "mostly whole")
		for _, info := range s.infos {
			there := rapid.Bool().Draw(rt, "there")
			if whole { // as references first would have it
				there = there && !slices.ContainsFunc(info.References, func(ref nix.StorePath) bool { return !f.have[ref.Base()] })
			}
			f.have[info.StorePath.Base()] = there
		}
		c := mustInProcess(t, f)
		cache := Cache{Name: "ci", UpstreamKeyNames: []string{"up-1"}}
		reach := &closedStore{fakeStore: &s}
		want := namesOf(mustWantedOf(rt, c, reach, cache, roots))
		cache.Closures = true
		got := mustWantedOf(rt, c, reach, cache, roots)
		place := map[nix.StorePath]int{}
		for i := range got {
			place[got[i].storePath] = i
		}
		for i := range got {
			for _, ref := range got[i].references {
				if at, is := place[ref]; is && at > i {
					rt.Errorf("%s stands before its reference %s", got[i].storePath.Name(), ref.Name())
				}
			}
		}
		if diff := cmp.Diff(want, namesOf(got)); diff != "" {
			rt.Errorf("wanted (-asked each +survey):\n%s", diff)
		}
	})
}

// closedStore knows what a closure is.
type closedStore struct{ *fakeStore }

func (s *closedStore) Closure(ctx context.Context, roots []nix.StorePath) (infos []nixstore.PathInfo, err error) {
	in := map[nix.StorePath]bool{}
	for _, root := range roots {
		in[root] = true
	}
	for i := len(s.infos) - 1; i >= 0; i-- {
		if in[s.infos[i].StorePath] {
			infos = append(infos, s.infos[i])
			for _, ref := range s.infos[i].References {
				in[ref] = true
			}
		}
	}
	slices.Reverse(infos)
	return infos, ctx.Err()
}

func mustWantedOf(rt *rapid.T, c *Client, s Store, cache Cache, roots []nix.StorePath) []path {
	p := &push{c: c, store: s, o: PushOptions{Cache: "ci"}, ev: &Events{}, limiter: newLimiter(0)}
	wanted, _, err := p.wanted(rt.Context(), roots, &cache, pinsOf{})
	if err != nil {
		rt.Fatal(err)
	}
	if (p.looked != nil) != cache.Closures {
		rt.Fatal("it was not asked as it should be")
	}
	return wanted
}

func namesOf(paths []path) []string {
	names := []string{}
	for _, p := range paths {
		names = append(names, p.storePath.Name())
	}
	slices.Sort(names)
	return names
}

// TestSurveyWithdrawn: a path that is there while it is asked about goes before the commit
// that refers to it. Then every path is asked about, once.
func TestSurveyWithdrawn(t *testing.T) {
	for name, strict := range map[string]bool{"the commit tells": false, "the commit is refused": true} {
		t.Run(name, func(t *testing.T) {
			var s fakeStore
			dep := s.add(bytesOf(1, 3000))
			s.add(bytesOf(2, 3000), dep)
			f := newSurveyServer(t, &s)
			f.pretended[dep.Base()] = true
			f.strict, f.tells = strict, true
			var rec recorder
			ev := rec.events()
			done, told := ev.Done, 0
			ev.Done = func(worker int, o Outcome) { told++; done(worker, o) }
			res, err := mustServe(t, f).Push(t.Context(), &s, PushOptions{Cache: "ci", Paths: []string{s.last()}, Pins: []string{"main"}}, ev)
			if err != nil || res.Pushed != 2 || res.Present != 0 || res.Incomplete() || res.Pinned != 1 || !f.have[dep.Base()] || len(rec.notes) > 0 {
				t.Errorf("%+v, %v, notes %q; want both to be pushed", res, err, rec.notes)
			}
			if res.Counted != 2 || res.New < 3000 || res.Compressed == 0 || res.New+res.Deduplicated != res.Bytes {
				t.Errorf("%+v; want both to be counted", res)
			}
			if len(f.asked) != 2 || f.fakeServer.asked != 1 {
				t.Errorf("questions about %v paths, and %d about each; want two, and one", f.asked, f.fakeServer.asked)
			}
			if told != 3 {
				t.Errorf("%d outcomes, want one of each path, and that one of them was thought to be there", told)
			}
			want := map[string]Kind{"p0": Pushed, "p1": Pushed}
			if strict {
				want["p1"] = Deduplicated // its chunks came before the first commit
			}
			if diff := cmp.Diff(want, rec.kinds()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestSurveyWithdrawnForEver: a cache that refuses whatever is done about it is not pushed to
// for ever.
func TestSurveyWithdrawnForEver(t *testing.T) {
	var s fakeStore
	s.add(bytesOf(1, 3000))
	f := newSurveyServer(t, &s)
	paths := f.meddle
	f.meddle = func(call string, n int, w http.ResponseWriter, body []byte) bool {
		if call == "commit" {
			refuse(w, http.StatusUnprocessableEntity, wire.ErrorAbsentReferences, "something is absent")
			return true
		}
		return paths(call, n, w, body)
	}
	res, err := mustServe(t, f).Push(t.Context(), &s, PushOptions{Cache: "ci", Paths: []string{s.last()}}, Events{})
	if err != nil || res.Failed != 1 || f.made("commit") != 2 {
		t.Errorf("%+v, %v, %d commits; want a failure after two", res, err, f.made("commit"))
	}
}

// TestSurveyRefused: a server that does not answer, or not well.
func TestSurveyRefused(t *testing.T) {
	var s fakeStore
	s.add(bytesOf(1, 300))
	f := newSurveyServer(t, &s)
	status, answer := http.StatusNotFound, ""
	f.meddle = func(call string, _ int, w http.ResponseWriter, _ []byte) bool {
		if call != "paths" {
			return false
		}
		if answer == "" {
			refuse(w, status, wire.ErrorNotFound, "there is nothing here")
		} else {
			_, _ = w.Write([]byte(answer))
		}
		return true
	}
	c := mustServe(t, f)
	for _, status = range []int{404, 405, 413, 400} {
		f.fakeServer.asked = 0
		if res, _ := mustPush(t, c, &s, PushOptions{}); res.Pushed+res.Present != 1 || f.fakeServer.asked != 1 {
			t.Errorf("answered %d: %+v", status, res)
		}
	}
	for _, answer = range []string{`[]`, `{"missing":"AAA="}`, `{"missing":"/w=="}`, `{"missing":""}`, `{"missing":"AA==","closure":{"paths":1,"absent":1}}`, `{"missing":"AA==","closure":{"absent":-1}}`} {
		_, _, err := pushAll(t, c, &s, PushOptions{})
		if err == nil || !strings.Contains(err.Error(), "closures") {
			t.Errorf("answer %s: %v", answer, err)
		}
	}
	// Nor is there more than was asked about, whoever asks for what.
	f.fakeServer.asked = 0
	for _, o := range []PushOptions{{NoClosure: true}, {Whole: true}} {
		if res, _ := mustPush(t, c, &s, o); res.Present != 1 {
			t.Errorf("%+v: %+v", o, res)
		}
	}
	if f.fakeServer.asked != 2 {
		t.Errorf("%d questions about each path, want two", f.fakeServer.asked)
	}
}
