package node

import (
	"fmt"
	"slices"

	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
)

// partDiff is the difference of one pin or path, with all they refer to of which the
// cache has nothing now.
func (x *restorer) partDiff(d *cacheDiff) error {
	switch {
	case d.Then == nil:
		return &RestoreError{Problem: fmt.Sprintf("there was no cache %q at %v", string(d.Name), x.rep.At)}
	case d.Now == nil:
		return &RestoreError{
			Problem: fmt.Sprintf("there is no cache %q now", string(d.Name)),
			Hint:    fmt.Sprintf("restore it whole with \"celler restore --at %d --cache %s\", or create it", x.rep.At.Seq, string(d.Name)),
		}
	}
	thenID := d.Then.ID
	d.Then = d.Now // its settings stay as they are
	if x.Path != "" {
		then, ok, err := x.then.Path(thenID, x.path)
		if err != nil {
			return err
		}
		if !ok {
			return &RestoreError{Problem: fmt.Sprintf("path %v was not in cache %q at %v", x.path, string(d.Name), x.rep.At)}
		}
		now, ok, err := x.now.Path(d.Now.ID, x.path)
		switch {
		case err != nil:
			return err
		case !ok:
			d.sum.Back++
			err = x.set(d, catalog.PathRestore{Then: then})
		case !x.KeepNew && !catalog.SamePath(then, now):
			d.sum.Changed++
			err = x.set(d, catalog.PathRestore{Then: then, Now: &now})
		}
		if err != nil {
			return err
		}
		return x.closure(d, thenID, []nix.HashPart{x.path}, true)
	}
	pins, err := x.then.Pins(thenID)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(pins, func(p catalog.Pin) bool { return p.Name == x.Pin })
	if i < 0 {
		return &RestoreError{Problem: fmt.Sprintf("cache %q had no pin %q at %v", string(d.Name), x.Pin, x.rep.At)}
	}
	nowPins, err := x.now.Pins(d.Now.ID)
	if err != nil {
		return err
	}
	j := slices.IndexFunc(nowPins, func(p catalog.Pin) bool { return p.Name == x.Pin })
	if j < 0 || !x.KeepNew && !samePin(&pins[i], &nowPins[j]) {
		d.sum.Pins++
		d.SetPins = append(d.SetPins, pins[i])
		if j >= 0 {
			d.DropPins = append(d.DropPins, nowPins[j])
		}
	}
	var roots []nix.HashPart
	for k, rev := range pins[i].Revisions {
		if pins[i].Kept[k] {
			roots = append(roots, rev.StorePath.HashPart())
		}
	}
	return x.closure(d, thenID, roots, false)
}

// closure adds those of the roots, unless they are seen to, and of all they referred to
// then that are not there now.
func (x *restorer) closure(d *cacheDiff, thenID catalog.CacheID, roots []nix.HashPart, seenTo bool) error {
	seen := map[nix.HashPart]bool{}
	queue := slices.Clone(roots)
	for len(queue) > 0 {
		hashPart := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		if seen[hashPart] {
			continue
		}
		seen[hashPart] = true
		then, ok, err := x.then.Path(thenID, hashPart)
		if err != nil {
			return err
		}
		if !ok {
			continue // nor was it then
		}
		for _, ref := range then.References {
			queue = append(queue, ref.HashPart())
		}
		if seenTo && slices.Contains(roots, hashPart) {
			continue
		}
		if _, ok, err = x.now.Path(d.Now.ID, hashPart); err != nil {
			return err
		} else if !ok {
			d.sum.Back++
			if err := x.set(d, catalog.PathRestore{Then: then}); err != nil {
				return err
			}
		}
	}
	return nil
}

// tell tells one change to a dry run.
func (x *restorer) tell(d *cacheDiff, what, kind, name string) error {
	if x.Each == nil {
		return nil
	}
	return x.Each(RestoreChange{What: what, Kind: kind, Cache: string(d.Name), Name: name})
}

func (x *restorer) tellPath(d *cacheDiff, p *catalog.PathRestore) error {
	what := "back"
	if p.Now != nil {
		what = "changed"
	}
	ok, err := x.now.Servable(p.Then.NarHash)
	if err != nil {
		return err
	}
	if !ok {
		what = "lost"
		x.miss(string(d.Name), p.Then.StorePath, p.Now != nil)
	}
	return x.tell(d, what, "path", p.Then.StorePath.String())
}

// tellRest tells a dry run what is not about paths.
func (x *restorer) tellRest(d *cacheDiff) error {
	if d.sum.What != "changed" || d.sum.Config {
		if err := x.tell(d, d.sum.What, "cache", ""); err != nil {
			return err
		}
	}
	set := map[string]bool{}
	for i := range d.SetPins {
		set[d.SetPins[i].Name] = true
		if err := x.tell(d, "back", "pin", d.SetPins[i].Name); err != nil {
			return err
		}
	}
	for i := range d.DropPins {
		if name := d.DropPins[i].Name; !set[name] {
			if err := x.tell(d, "removed", "pin", name); err != nil {
				return err
			}
		}
	}
	return nil
}
