package client

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/nix"
)

// survey finds out which paths of a closure a cache lacks without asking about each of them.
// It begins with the roots and goes down only where something is missing: of a path that is
// there the server says whether all is there that it leads to. That may lack what this push
// would leave out anyway, because an upstream cache has it: the server gives the sum of what is
// absent, and if that is the sum of what would be left out, nothing else is missing. If it is
// not, or the server has not looked, every path below is asked about.
//
// What is asked about at once are the references of what was missing the last time, and
// after a few questions more and more levels of references, so that a long chain of new paths
// takes few questions.
//
// The answer is as true as one about each path: what was asked about is not collected for
// now, and nor is what it leads to. What is gone all the same when the push refers to it is
// seen by the commit; see push.withdrawn.
type survey struct {
	p       *push
	dropped func(*path) string // the upstream key for whose sake a path is left out, or ""
	dir     nix.StoreDir       // of the cache; "" = not known

	nodes map[nix.StorePath]*surveyed
	order []*surveyed // as they were met

	walks     int // by number, for surveyed.walk
	questions int // by number, for surveyed.question
	most      int // paths that one answer spoke of
	answers   int // that found something
}

// surveyed is a path of the local store that was met.
type surveyed struct {
	path     path
	key      string // upstream key: it is left out
	state    surveyState
	met      bool // its state is settled, or the question is on its way
	question int  // in which it was asked about; 0: none
	walk     int  // that came by last
}

type surveyState uint8

const (
	surveyOpen surveyState = iota
	surveyMissing
	surveyPresent
)

// surveyLevels returns how many levels of references the n-th question is about: one at a
// time where old and new meet as a rule.
func surveyLevels(n int) int { return 1 << min(max(0, n-3), 20) }

// survey returns the paths to be pushed, references first, and how many there are in the
// closure, as far as is known.
func (p *push) survey(ctx context.Context, roots []nix.StorePath, cache *Cache, pins pinsOf) ([]path, int, error) {
	s := &survey{p: p, dir: nix.StoreDir(cache.StoreDir), nodes: map[nix.StorePath]*surveyed{}}
	s.dropped = func(path *path) string { return p.upstreamKey(path, cache.UpstreamKeyNames, pins) }
	level := slices.Clone(roots)
	for n := 0; len(level) > 0; n++ {
		ask, err := s.descend(ctx, level, surveyLevels(n))
		if err != nil {
			return nil, 0, err
		}
		level = nil
		for part := range slices.Chunk(ask, closurePaths) {
			more, err := s.ask(ctx, part)
			if err != nil {
				return nil, 0, err
			}
			level = append(level, more...)
		}
	}
	wanted, err := s.wanted()
	if err != nil {
		return nil, 0, err
	}
	p.looked = s
	return wanted, s.tell(), nil
}

// load asks the store about those paths that it was not asked about, all at once.
func (s *survey) load(ctx context.Context, paths []nix.StorePath) error {
	var unknown []nix.StorePath
	for _, p := range paths {
		if s.nodes[p] == nil {
			s.nodes[p] = &surveyed{}
			unknown = append(unknown, p)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	infos, err := s.p.store.PathInfos(ctx, unknown)
	if err != nil {
		return fmt.Errorf("closure: %w", err)
	}
	for i := range infos {
		n := s.nodes[unknown[i]]
		n.path = newPathOf(&infos[i])
		n.key = s.dropped(&n.path)
		if s.dir != "" && n.path.storePath.Dir() != s.dir {
			return &StoreDirError{Cache: s.p.o.Cache, Path: n.path.storePath, Dir: s.dir}
		}
		s.p.derivers[n.path.storePath] = infos[i].Deriver
		s.order = append(s.order, n)
	}
	return nil
}

// descend goes down some levels of references and returns what is to be asked about. What is
// left out is passed through: what it refers to may not be.
func (s *survey) descend(ctx context.Context, level []nix.StorePath, levels int) (ask []*surveyed, err error) {
	for ; len(level) > 0 && levels > 0; levels-- {
		var below []nix.StorePath
		for len(level) > 0 {
			if err := s.load(ctx, level); err != nil {
				return nil, err
			}
			var through []nix.StorePath
			for _, p := range level {
				n := s.nodes[p]
				switch {
				case n.met:
					continue
				case n.key != "":
					through = append(through, n.path.references...)
				default:
					ask = append(ask, n)
					below = append(below, n.path.references...)
				}
				n.met = true
			}
			level = through
		}
		level = below
	}
	return ask, nil
}

// ask asks about some paths, and returns where to go on.
func (s *survey) ask(ctx context.Context, nodes []*surveyed) (next []nix.StorePath, err error) {
	s.questions++
	hashParts := make([]nix.HashPart, len(nodes))
	for i, n := range nodes {
		hashParts[i], n.question = n.path.storePath.HashPart(), s.questions
	}
	answer, err := s.p.c.askClosures(ctx, s.p.o.Cache, hashParts)
	if err != nil {
		return nil, err
	}
	var present []*surveyed
	for i, n := range nodes {
		if answer.missing.Has(i) {
			n.state = surveyMissing
			next = append(next, n.path.references...)
			continue
		}
		n.state = surveyPresent
		present = append(present, n)
	}
	if len(present) > 0 {
		s.answers++
	}
	switch {
	case len(present) == 0:
		return next, nil
	case answer.walked && answer.absent == 0:
		s.most = max(s.most, answer.paths)
		return next, nil
	}
	if err := s.loadBelow(ctx, present); err != nil {
		return nil, err
	}
	if answer.walked {
		below, out := s.below(present, s.questions)
		if bytes.Equal(sumOf(out), answer.sum) {
			for _, n := range below {
				n.met, n.state = true, surveyPresent
			}
			for _, n := range out {
				next = append(next, n.path.storePath)
			}
			return next, nil
		}
	}
	return next, s.askEach(ctx, present)
}

// loadBelow asks the store about all that paths lead to.
func (s *survey) loadBelow(ctx context.Context, from []*surveyed) error {
	s.walks++
	for len(from) > 0 {
		var refs []nix.StorePath
		for _, n := range from {
			n.walk = s.walks
			refs = append(refs, n.path.references...)
		}
		if err := s.load(ctx, refs); err != nil {
			return err
		}
		from = nil
		for _, p := range refs {
			if n := s.nodes[p]; n.walk != s.walks {
				n.walk = s.walks
				from = append(from, n)
			}
		}
	}
	return nil
}

// below returns what a server finds that has all that is wanted below some paths: what is
// there, besides those of the question, and what is referred to and absent.
func (s *survey) below(present []*surveyed, question int) (there, absent []*surveyed) {
	s.walks++
	todo := slices.Clone(present)
	for len(todo) > 0 {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, ref := range n.path.references {
			to := s.nodes[ref]
			if to.walk == s.walks || to.question == question {
				continue
			}
			to.walk = s.walks
			if to.key != "" || to.state == surveyMissing {
				absent = append(absent, to)
				continue
			}
			there = append(there, to)
			todo = append(todo, to)
		}
	}
	return there, absent
}

func sumOf(nodes []*surveyed) []byte {
	hashParts := make([]nix.HashPart, len(nodes))
	for i, n := range nodes {
		hashParts[i] = n.path.storePath.HashPart()
	}
	return wire.AbsentSum(hashParts)
}

// askEach asks about every path below some.
func (s *survey) askEach(ctx context.Context, from []*surveyed) error {
	s.walks++
	var ask []*surveyed
	var hashParts []nix.HashPart
	todo := slices.Clone(from)
	for len(todo) > 0 {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, ref := range n.path.references {
			to := s.nodes[ref]
			if to.walk == s.walks {
				continue
			}
			to.walk = s.walks
			todo = append(todo, to)
			if !to.met && to.key == "" {
				ask = append(ask, to)
				hashParts = append(hashParts, to.path.storePath.HashPart())
			}
			to.met = true
		}
	}
	if len(ask) == 0 {
		return nil
	}
	missing, err := s.p.c.MissingPaths(ctx, s.p.o.Cache, hashParts)
	if err != nil {
		return err
	}
	for i, n := range ask {
		if n.state = surveyPresent; missing[hashParts[i]] {
			n.state = surveyMissing
		}
	}
	return nil
}

// wanted returns what is missing, references first. It does not recurse: closures are
// thousands deep when they are meant to hurt.
func (s *survey) wanted() ([]path, error) {
	type visit struct {
		node *surveyed
		refs []nix.StorePath // still to be visited
	}
	s.walks++
	open := s.walks
	s.walks++
	var wanted []path
	var stack []visit
	enter := func(n *surveyed) {
		if n != nil && n.state == surveyMissing && n.walk < open {
			n.walk = open
			stack = append(stack, visit{n, n.path.references})
		}
	}
	for _, n := range s.order {
		for enter(n); len(stack) > 0; {
			top := &stack[len(stack)-1]
			if len(top.refs) == 0 {
				top.node.walk = s.walks
				wanted = append(wanted, top.node.path)
				stack = stack[:len(stack)-1]
				continue
			}
			ref := s.nodes[top.refs[0]]
			top.refs = top.refs[1:]
			if ref != nil && ref != top.node && ref.walk == open {
				return nil, fmt.Errorf("closure: %v and %v refer to each other", ref.path.storePath, top.node.path.storePath)
			}
			enter(ref)
		}
	}
	return wanted, nil
}

// tell reports what is not pushed, and returns how many paths are known of.
func (s *survey) tell() int {
	present, all := 0, 0
	for _, n := range s.order {
		switch {
		case n.met && n.key != "":
			s.p.outcome(-1, Outcome{Path: n.path.storePath, Kind: Upstream, NarSize: n.path.narSize, Key: n.key})
		case n.state == surveyPresent:
			s.p.outcome(-1, Outcome{Path: n.path.storePath, Kind: Present, NarSize: n.path.narSize})
			present++
		case n.state != surveyMissing:
			continue
		}
		all++
	}
	if below := s.most - present; below > 0 {
		s.p.result.Present += below
		s.p.result.Closures = below
		s.p.ev.below(below, s.answers > 1)
		all += below
	}
	return all
}
