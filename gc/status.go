package gc

import (
	"context"
	"fmt"
	"time"

	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
)

// Status says where collection stands.
type Status struct {
	Now     time.Time  `json:"now"` // by the bucket's clock
	Day     uint32     `json:"day"`
	Last    *LastRound `json:"last,omitempty"`
	Waiting Waiting    `json:"waiting"`
	// Oldest says of each cache that does not keep its paths for ever what was used
	// longest ago.
	Oldest []OldestPath `json:"oldest,omitempty"`
}

// LastRound is the last round that ended, whoever did it.
type LastRound struct {
	Ended  time.Time `json:"ended"` // by the bucket's clock
	Report Report    `json:"report"`
}

// OldestPath is what retention will look at next.
type OldestPath struct {
	Cache     catalog.CacheName `json:"cache"`
	Retention time.Duration     `json:"retention"`
	Idle      time.Duration     `json:"idle"` // of the path that was used longest ago
}

// Status looks at the index, after a catch-up.
func (c *Collector) Status(ctx context.Context) (st Status, err error) {
	s, clock, err := c.look(ctx)
	if err != nil {
		return st, err
	}
	defer func() { err = joinClose(err, s) }()
	st.Now, st.Day = clock.Now, clock.Day
	last, ok, err := s.LastRound()
	if err != nil {
		return st, err
	}
	if ok {
		st.Last = &LastRound{Ended: last.Ended, Report: lastReport(last)}
	}
	if st.Waiting, err = c.waiting(s, clock, true); err != nil {
		return st, err
	}
	t, err := c.cat.Stats(ctx, "")
	if err != nil {
		return st, err
	}
	st.Waiting.DeadBytes = t.DeadBytes
	caches, err := s.Caches()
	if err != nil {
		return st, err
	}
	for i := range caches {
		keep := c.retention(&caches[i])
		if keep == 0 {
			continue
		}
		for u, err := range s.UsesByDay(caches[i].ID) {
			if err != nil {
				return st, err
			}
			st.Oldest = append(st.Oldest, OldestPath{caches[i].Name, keep, clock.Age(u.Day)})
			break
		}
	}
	return st, nil
}

// look returns the newest state, and the time.
func (c *Collector) look(ctx context.Context) (*catalog.Snapshot, catalog.Clock, error) {
	if _, err := c.cat.CatchUp(ctx); err != nil {
		return nil, catalog.Clock{}, err
	}
	s, err := c.cat.Snapshot(ctx)
	if err != nil {
		return nil, catalog.Clock{}, err
	}
	clock, err := s.Clock()
	if err == nil {
		err = c.setNow(ctx, &clock)
	}
	if err != nil {
		return nil, clock, joinClose(err, s)
	}
	return s, clock, nil
}

// setNow corrects the time of a clock that was read without a tick.
func (c *Collector) setNow(ctx context.Context, clock *catalog.Clock) error {
	if c.o.Clock == nil {
		return nil
	}
	now, err := c.o.Clock(ctx)
	if err == nil && now.After(clock.Now) {
		clock.Now = now
	}
	return err
}

// Explanation says why a path is there, or is not.
type Explanation struct {
	Cache     string `json:"cache"`
	HashPart  string `json:"hash_part"`
	StorePath string `json:"store_path,omitempty"`
	Present   bool   `json:"present"`
	Verdict   string `json:"verdict"` // for people

	Idle      time.Duration `json:"idle,omitempty"` // since the end of the day it was last used on
	Retention time.Duration `json:"retention,omitempty"`
	// Because leads from what keeps the path, a pin or a path that was used, to the path.
	Because []Reason `json:"because,omitempty"`
}

// Reason is a path on the way from what keeps a path to the path itself.
type Reason struct {
	StorePath string        `json:"store_path"`
	Pin       string        `json:"pin,omitempty"`
	Idle      time.Duration `json:"idle"`
}

// Explain says why a path is in a cache, or why it is not. It reads all paths of the cache.
func (c *Collector) Explain(ctx context.Context, name catalog.CacheName, hashPart nix.HashPart) (ex Explanation, err error) {
	s, clock, err := c.look(ctx)
	if err != nil {
		return ex, err
	}
	defer func() { err = joinClose(err, s) }()
	ex = Explanation{Cache: string(name), HashPart: hashPart.String()}
	cache, ok, err := s.Cache(name)
	if err == nil && !ok {
		err = fmt.Errorf("cache %q: %w", string(name), catalog.ErrNoCache)
	}
	if err != nil {
		return ex, err
	}
	row, ok, err := s.Path(cache.ID, hashPart)
	if err != nil {
		return ex, err
	}
	if !ok {
		return ex, c.explainAbsent(ctx, s, clock, &cache, hashPart, &ex)
	}
	ex.Present, ex.StorePath = true, row.StorePath.String()
	g, err := c.plant(s, []catalog.Cache{cache}, clock)
	if err != nil {
		return ex, err
	}
	at, ok := g.find(0, hashPart)
	if !ok {
		return ex, fmt.Errorf("path %v of cache %q came and went while it was looked for", hashPart, string(name))
	}
	ex.Idle, ex.Retention = clock.Age(g.days[at]), g.keep[0]
	return ex, g.explain(s, at, &ex)
}

// explain fills in what keeps path at.
func (g *grove) explain(s *catalog.Snapshot, at int, ex *Explanation) error {
	way := g.why(at, g.young)
	for _, i := range way {
		row, ok, err := s.Path(g.caches[0].ID, g.hashes[i])
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		reason := Reason{StorePath: row.StorePath.String(), Idle: g.clock.Age(g.days[i])}
		for _, p := range g.pinned {
			if len(ex.Because) == 0 && p.path == i {
				reason.Pin = p.pin
			}
		}
		ex.Because = append(ex.Because, reason)
	}
	switch {
	case len(ex.Because) == 0:
		ex.Verdict = fmt.Sprintf("nothing keeps it: it was not used for %s and the retention is %s; the next round removes it", days(ex.Idle), days(ex.Retention))
	case ex.Because[0].Pin != "" && len(ex.Because) == 1:
		ex.Verdict = fmt.Sprintf("pin %q names it", ex.Because[0].Pin)
	case ex.Because[0].Pin != "":
		ex.Verdict = fmt.Sprintf("pin %q names a path that needs it", ex.Because[0].Pin)
	case len(ex.Because) > 1:
		ex.Verdict = fmt.Sprintf("a path needs it that was used %s ago, which is less than the retention of %s", days(ex.Because[0].Idle), days(ex.Retention))
	case ex.Retention == 0:
		ex.Verdict = "the cache keeps its paths for ever"
	default:
		ex.Verdict = fmt.Sprintf("it was used %s ago, which is less than the retention of %s", days(ex.Idle), days(ex.Retention))
	}
	return nil
}

// explainAbsent says of a path that is not there what can be said.
func (c *Collector) explainAbsent(ctx context.Context, s *catalog.Snapshot, clock catalog.Clock, cache *catalog.Cache, hashPart nix.HashPart, ex *Explanation) error {
	ex.Verdict = "it is not in the cache"
	pins, err := s.Pins(cache.ID)
	if err != nil {
		return err
	}
	for _, p := range pins {
		for i, r := range p.Revisions {
			if p.Kept[i] && r.StorePath.HashPart() == hashPart {
				ex.StorePath = r.StorePath.String()
				ex.Verdict = fmt.Sprintf("it is not in the cache; pin %q waits for it", p.Name)
			}
		}
	}
	for u, err := range s.Unreferenced() {
		if err != nil {
			return err
		}
		was, err := c.cat.Former(ctx, cache.Name, hashPart, u.NarHash)
		if err != nil {
			return err
		}
		if was {
			gone := clock.Age(u.Day)
			ex.Verdict += fmt.Sprintf("; it was removed at least %s ago, and its NAR can be fetched by those who remember its URL for about another %s", days(gone), days(max(0, c.o.NarGrace-gone)))
			break
		}
	}
	return nil
}
