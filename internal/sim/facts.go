package sim

import (
	"slices"
	"time"
)

// facts is what clients know of the paths of a cache: what they were told, and what
// they have asked for and not been told. From that follows what must be there.
type facts struct {
	w     *World
	known map[string]*fact
}

// fact is what clients know of one path.
type fact struct {
	used    time.Time // when it was acknowledged as pushed or present last; zero once somebody has tried to remove it
	pinned  bool      // it was there while there was a pin of it
	pinSet  int64     // step at which the pin was acknowledged; 0: there may be none
	loose   bool      // what it refers to may have gone before it was there
	wished  bool      // somebody has ever tried to pin it
	purged  bool      // somebody has ever asked for its bytes to be gone
	removal attempts
	unpin   attempts
}

// attempts are those to undo something.
type attempts struct {
	running int
	doubt   bool  // of one nobody knows whether it happened, or will
	ended   int64 // step at which the last one ended
}

func (a *attempts) begin() { a.running++ }

func (a *attempts) end(step int64, err error) {
	a.running--
	a.ended = step
	if err != nil && !nothingHappened(err) {
		a.doubt = true
	}
}

// before reports whether all of them were over before a step.
func (a *attempts) before(step int64) bool { return a.running == 0 && !a.doubt && a.ended < step }

func newFacts(w *World) *facts { return &facts{w: w, known: map[string]*fact{}} }

func (f *facts) of(path string) *fact {
	if f.known[path] == nil {
		f.known[path] = &fact{}
	}
	return f.known[path]
}

// moment is when an operation began.
type moment struct {
	step int64
	at   time.Time
}

func (f *facts) now() moment { return moment{step: f.w.Step(), at: f.w.time()} }

// isThere notes that a path was there at some time after began. refs are those of what
// it refers to that cannot have been gone before.
func (f *facts) isThere(path string, began moment) {
	p := f.of(path)
	if !p.removal.before(began.step) {
		return
	}
	if began.at.After(p.used) {
		p.used = began.at
	}
	if p.pinSet > 0 && p.pinSet < began.step && p.unpin.before(p.pinSet) {
		p.pinned = true
	}
}

// cameToBe notes that a path was pushed or restored: what it refers to may be gone if
// that was last used longer ago than it is kept, because a push takes its time.
func (f *facts) cameToBe(path string) {
	f.of(path).loose = slices.ContainsFunc(simPaths[path], func(r string) bool {
		return f.w.time().Sub(f.of(r).used) >= simRetention-time.Hour
	})
}

// removing notes that somebody tries to remove a path. The result is to be called with
// what became of it.
func (f *facts) removing(path string) func(error) {
	p := f.of(path)
	p.used, p.pinned = time.Time{}, false
	p.removal.begin()
	return func(err error) { p.removal.end(f.w.Step(), err) }
}

// pinning notes that somebody tries to pin a path.
func (f *facts) pinning(path string) { f.of(path).wished = true }

// isPinned notes that a pin which was asked for at began is there now.
func (f *facts) isPinned(path string, began moment) {
	p := f.of(path)
	if !p.unpin.before(began.step) {
		return
	}
	p.pinSet = f.w.Step()
	if f.promised(path) {
		p.pinned = true
	}
}

// unpinning notes that somebody tries to remove the pin of a path.
func (f *facts) unpinning(path string) func(error) {
	p := f.of(path)
	p.pinned, p.pinSet = false, 0
	p.unpin.begin()
	return func(err error) { p.unpin.end(f.w.Step(), err) }
}

// promised reports whether a path must be there: somebody was told so within the
// retention, or it is pinned, or something that must be there refers to it; and nobody has
// removed it.
func (f *facts) promised(path string) bool { return f.wanted(path, map[string]bool{}) }

func (f *facts) wanted(path string, seen map[string]bool) bool {
	p := f.known[path]
	if p == nil || p.used.IsZero() {
		return false
	}
	if p.pinned || f.w.time().Sub(p.used) < simRetention-time.Hour {
		return true
	}
	seen[path] = true
	for other, refs := range simPaths {
		if o := f.known[other]; o == nil || o.loose || seen[other] {
			continue
		}
		if slices.Contains(refs, path) && f.wanted(other, seen) {
			return true
		}
	}
	return false
}

// maybePinned returns what pins may keep: what anybody has ever tried to pin, and what
// that leads to.
func (f *facts) maybePinned() map[string]bool {
	all := map[string]bool{}
	var add func(name string)
	add = func(name string) {
		if !all[name] {
			all[name] = true
			for _, r := range simPaths[name] {
				add(r)
			}
		}
	}
	for name, p := range f.known {
		if p.wished {
			add(name)
		}
	}
	return all
}
