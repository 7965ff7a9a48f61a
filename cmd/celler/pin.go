package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/celler/celler/client"
	"github.com/celler/celler/internal/ui"
)

type pinCmd struct {
	Add     pinAddCmd     `cmd:"" aliases:"set" help:"Pin a store path: keep it and all it refers to."`
	List    pinListCmd    `cmd:"" help:"List the pins of a cache and what they hold."`
	Remove  pinRemoveCmd  `cmd:"" aliases:"delete" help:"Remove pins. What they held goes when nothing else keeps it."`
	History pinHistoryCmd `cmd:"" help:"List the revisions of a pin."`
}

// keepFlags say which revisions of a pin are kept.
type keepFlags struct {
	KeepRevisions int  `placeholder:"N" help:"Keep the newest N revisions of the pin."`
	KeepDays      int  `placeholder:"N" help:"Keep the revisions that were set in the last N days."`
	KeepForever   bool `help:"Keep all revisions."`
}

// policy is nil if no flag was given: then a pin keeps the policy it has.
func (k *keepFlags) policy() (*client.PinPolicy, error) {
	switch {
	case k.KeepRevisions < 0 || k.KeepDays < 0:
		return nil, &usageError{Problem: "expected a number from 1 behind --keep-revisions and --keep-days"}
	case k.KeepForever && (k.KeepRevisions > 0 || k.KeepDays > 0):
		return nil, &usageError{Problem: "--keep-forever goes with neither --keep-revisions nor --keep-days"}
	case !k.KeepForever && k.KeepRevisions == 0 && k.KeepDays == 0:
		return nil, nil //nolint:nilnil // nothing was said
	}
	return &client.PinPolicy{KeepRevisions: k.KeepRevisions, KeepDays: k.KeepDays, KeepForever: k.KeepForever}, nil
}

type pinAddCmd struct {
	Cache string `arg:"" help:"Name, server:name, or URL."`
	Name  string `arg:"" help:"What to call the pin, such as main or release/24.05."`
	Path  string `arg:"" help:"Store path, or a link to one such as ./result."`
	keepFlags
	jsonFlag
}

// Help is printed below the flags.
func (c *pinAddCmd) Help() string {
	return `A path that is pinned, and all it refers to, is never collected, whatever retention and
quota say. To pin a name again makes a new revision of the pin; the flags say which older
ones are kept as well. Without any the pin keeps to what it was told before, and a new one
keeps its newest revision. Revisions that several flags speak of are kept if one of them
says so; with --keep-days alone the newest goes as well when its days are over.

The path need not be in the cache yet: the pin waits for it, and holds it from the very
moment it is pushed. "celler push --pin NAME" does both in one step.`
}

// Run pins a path.
func (c *pinAddCmd) Run(ctx context.Context, a *app) error {
	policy, err := c.policy()
	if err != nil {
		return err
	}
	if err := client.CheckPinName(c.Name); err != nil {
		return &usageError{Problem: err.Error()}
	}
	path, err := storePath(ctx, a, c.Path)
	if err != nil {
		return err
	}
	api, r, err := a.dial(c.Cache)
	if err != nil {
		return err
	}
	defer api.Close()
	pin, err := api.AddPin(ctx, r.Cache, c.Name, client.PinRequest{StorePath: path, Policy: policy})
	if err != nil {
		return mayNotPin(at(r, err), r.Cache)
	}
	return a.show(pinJSON(&pin), func() { a.ui.Note("%s", pinned(&pin, r.Cache)) })
}

// pinned says what became of a pin.
func pinned(p *client.Pin, cache string) string {
	if p.Waiting {
		return fmt.Sprintf("pin %s of cache %q waits for %s, which is not there yet (revision %d)", p.Name, cache, p.StorePath, p.Revision)
	}
	return fmt.Sprintf("pin %s of cache %q is %s (revision %d)", p.Name, cache, p.StorePath, p.Revision)
}

// storePath reads what a person types for a store path. Only a link to one needs the
// local store.
func storePath(ctx context.Context, a *app, text string) (string, error) {
	if path, ok := client.ParseStorePath(text); ok {
		return path, nil
	}
	store, err := client.OpenStore(ctx, a.env.Get)
	if err != nil {
		return "", err
	}
	defer func() { _ = store.Close() }() // only read from
	path, err := store.Resolve(text)
	if err != nil {
		return "", &usageError{Problem: err.Error(), Hint: "give a whole store path, or a link to one such as ./result"}
	}
	return path.String(), nil
}

type pinListCmd struct {
	Cache string `arg:"" help:"Name, server:name, or URL."`
	jsonFlag
}

// Help is printed below the flags.
func (c *pinListCmd) Help() string {
	return `CLOSURE is what the pin keeps alive, of all revisions that are kept; ONLY THIS is the
part of it that no other pin of the cache keeps. Both are the sizes of the NARs as they
are served; what is freed may be less, because chunks are shared.`
}

// Run lists pins.
func (c *pinListCmd) Run(ctx context.Context, a *app) error {
	api, r, err := a.dial(c.Cache)
	if err != nil {
		return err
	}
	defer api.Close()
	pins, err := api.Pins(ctx, r.Cache)
	if err != nil {
		return at(r, err)
	}
	if a.ui.JSON() {
		for i := range pins {
			if err := a.ui.Value(pinJSON(&pins[i])); err != nil {
				return err
			}
		}
		return nil
	}
	if len(pins) == 0 {
		a.ui.Note("cache %q has no pins", r.Cache)
		return nil
	}
	rows := make([][]string, 0, len(pins))
	for i := range pins {
		p := &pins[i]
		path := p.StorePath
		if p.Waiting {
			path += " (waiting)"
		}
		rows = append(rows, []string{
			p.Name, strconv.FormatUint(p.Revision, 10), keeps(p.Policy), age(a.now(), p.Created), p.CreatedBy,
			holding(p.Closure), holding(p.Only), path,
		})
	}
	a.ui.Table([]string{"PIN", "REVISION", "KEEPS", "AGE", "BY", "CLOSURE", "ONLY THIS", "PATH"}, rows)
	return nil
}

// keeps says in words which revisions are kept.
func keeps(p client.PinPolicy) string {
	var rules []string
	if p.KeepRevisions > 0 {
		rules = append(rules, ui.Plural(p.KeepRevisions, "revision", "revisions"))
	}
	if p.KeepDays > 0 {
		rules = append(rules, ui.Plural(p.KeepDays, "day", "days"))
	}
	switch {
	case p.KeepForever:
		return "all"
	case len(rules) == 0:
		return "newest"
	}
	return strings.Join(rules, ", ")
}

// holding says what a pin holds; a server that did not count says nothing.
func holding(h *client.Holding) string {
	if h == nil {
		return "-"
	}
	return fmt.Sprintf("%s in %d", ui.Size(h.FileBytes), h.Paths)
}

// age says how long ago something was, for a person.
func age(now, then time.Time) string {
	switch d := now.Sub(then); {
	case d < time.Minute:
		return "now"
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d/time.Minute))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d/time.Hour))
	default:
		return fmt.Sprintf("%dd", int(d/(24*time.Hour)))
	}
}

// pinJSON is a pin as JSON output has it.
func pinJSON(p *client.Pin) map[string]any {
	m := map[string]any{
		"pin": p.Name, "revision": p.Revision, "store_path": p.StorePath, "created": p.Created, "waiting": p.Waiting,
		"revisions_kept": p.Kept, "keep_forever": p.Policy.KeepForever,
	}
	if p.CreatedBy != "" {
		m["created_by"] = p.CreatedBy
	}
	if n := p.Policy.KeepRevisions; n > 0 {
		m["keep_revisions"] = n
	}
	if n := p.Policy.KeepDays; n > 0 {
		m["keep_days"] = n
	}
	for key, h := range map[string]*client.Holding{"closure": p.Closure, "only": p.Only} {
		if h != nil {
			m[key+"_paths"], m[key+"_nar_bytes"], m[key+"_file_bytes"] = h.Paths, h.NarBytes, h.FileBytes
		}
	}
	return m
}

type pinRemoveCmd struct {
	Cache  string   `arg:"" help:"Name, server:name, or URL."`
	Names  []string `arg:"" name:"name" help:"Pins to remove, with all their revisions."`
	DryRun bool     `help:"Say what would go, and leave it."`
}

// Run removes pins.
func (c *pinRemoveCmd) Run(ctx context.Context, a *app) error {
	for _, name := range c.Names {
		if err := client.CheckPinName(name); err != nil {
			return &usageError{Problem: err.Error()}
		}
	}
	api, r, err := a.dial(c.Cache)
	if err != nil {
		return err
	}
	defer api.Close()
	return eachOf(a, "pin remove", "pin", c.Names, func(name string) error {
		if c.DryRun {
			h, err := api.PinHistory(ctx, r.Cache, name)
			if err == nil {
				a.ui.Note("would remove pin %s with %s; %s would be kept by no pin then", name,
					ui.Plural(len(h.Revisions), "revision", "revisions"), holdingOf(h.Pin.Only))
			}
			return at(r, err)
		}
		err := api.RemovePin(ctx, r.Cache, name)
		if err == nil {
			a.ui.Note("removed pin %s from cache %q", name, r.Cache)
		}
		return mayNotPin(at(r, err), r.Cache)
	})
}

// mayNotPin says what a token lacks that may do other things in the cache.
func mayNotPin(err error, cache string) error {
	return withHints(err, client.AccessDenied,
		`pinning is a right of its own: see what the token allows with "celler token inspect"`,
		fmt.Sprintf(`make one that may with "celler token create --sub NAME --pin %s"`, cache))
}

func holdingOf(h *client.Holding) string {
	if h == nil {
		return "what it holds alone"
	}
	return fmt.Sprintf("%s (%s)", ui.Plural(h.Paths, "path", "paths"), ui.Size(h.FileBytes))
}

// eachOf does something with each of several things, goes on after a failure, and
// returns an error that says how it went.
func eachOf(a *app, command, what string, items []string, do func(item string) error) error {
	done, failed := 0, 0
	var last error
	for _, item := range items {
		if err := do(item); err != nil {
			failed++
			last = err
			v := explain(err)
			a.ui.Error(command, item+": "+v.sentence, v.hints...)
			continue
		}
		done++
	}
	switch {
	case failed == 0:
		return nil
	case done == 0:
		return &silentError{last}
	}
	return &partlyError{Done: done, Failed: failed, What: what}
}

type pinHistoryCmd struct {
	Cache string `arg:"" help:"Name, server:name, or URL."`
	Name  string `arg:"" help:"The pin."`
	jsonFlag
}

// Run lists the revisions of a pin.
func (c *pinHistoryCmd) Run(ctx context.Context, a *app) error {
	if err := client.CheckPinName(c.Name); err != nil {
		return &usageError{Problem: err.Error()}
	}
	api, r, err := a.dial(c.Cache)
	if err != nil {
		return err
	}
	defer api.Close()
	h, err := api.PinHistory(ctx, r.Cache, c.Name)
	if err != nil {
		return at(r, err)
	}
	rows := make([][]string, 0, len(h.Revisions))
	for _, rev := range h.Revisions {
		state := "kept"
		switch {
		case !rev.Kept:
			state = "dropped"
		case rev.Waiting:
			state = "waiting"
		}
		if a.ui.JSON() {
			if err := a.ui.Value(map[string]any{
				"pin": c.Name, "revision": rev.Revision, "store_path": rev.StorePath, "created": rev.Created,
				"created_by": rev.CreatedBy, "kept": rev.Kept, "waiting": rev.Waiting,
			}); err != nil {
				return err
			}
			continue
		}
		rows = append(rows, []string{strconv.FormatUint(rev.Revision, 10), state, rev.Created.Format(time.RFC3339), rev.CreatedBy, rev.StorePath})
	}
	if !a.ui.JSON() {
		a.ui.Table([]string{"REVISION", "STATE", "SET", "BY", "PATH"}, rows)
	}
	return nil
}
