package main

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"time"

	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/internal/node"
)

type bookmarkCmd struct {
	Add    bookmarkAddCmd    `cmd:"" help:"Keep the state of now, or of another point, for as long as the bookmark is there."`
	List   bookmarkListCmd   `cmd:"" help:"List the bookmarks of a bucket."`
	Remove bookmarkRemoveCmd `cmd:"" help:"Remove bookmarks; what only they kept goes with the next rounds."`
}

// Help is printed below the verbs.
func (c *bookmarkCmd) Help() string {
	return `A bookmark names a slot of the log. However much of the log is folded and deleted, the
state of that slot can be looked at ("celler serve --at NAME") and restored from
("celler restore --at NAME"). Paths that are withdrawn afterwards keep their bytes.`
}

// operator names who types, as far as the machine knows, for people who read the log.
func (a *app) operator() string {
	who := a.env.Get("SUDO_USER")
	if who == "" {
		who = a.env.Get("USER")
	}
	if who == "" {
		who = "somebody"
		if u, err := user.LookupId(strconv.Itoa(os.Getuid())); err == nil {
			who = u.Username
		}
	}
	if host, err := os.Hostname(); err == nil {
		who += "@" + host
	}
	return who
}

type bookmarkAddCmd struct {
	jsonFlag
	serverFlags
	config.Buckets `embed:""`

	Name string    `arg:"" help:"Name of the bookmark: a letter, then letters, digits, dots, dashes and underscores."`
	At   givenText `placeholder:"WHEN" help:"Slot, bookmark or time to keep the state of (now)."`
}

// Run sets the bookmark.
func (c *bookmarkAddCmd) Run(ctx context.Context, a *app) error {
	if err := c.Complete(a.env, c.file); err != nil {
		return err
	}
	var when *node.When
	if c.At != "" {
		w, err := node.ParseWhen(string(c.At), a.now())
		if err != nil {
			return err
		}
		when = &w
	}
	set, err := node.SetBookmark(ctx, c.Buckets, c.Name, when, a.operator(), a.now())
	if err != nil {
		return err
	}
	return a.show(set, func() { a.ui.Data("bookmark %s keeps slot %d", set.Name, set.Seq) })
}

type bookmarkListCmd struct {
	jsonFlag
	serverFlags
	config.Buckets `embed:""`
}

// Run prints the bookmarks.
func (c *bookmarkListCmd) Run(ctx context.Context, a *app) error {
	if err := c.Complete(a.env, c.file); err != nil {
		return err
	}
	all, err := node.Bookmarks(ctx, c.Buckets)
	if err != nil {
		return err
	}
	if a.ui.JSON() {
		for _, b := range all {
			if err := a.ui.Value(b); err != nil {
				return err
			}
		}
		return nil
	}
	var rows [][]string
	for _, b := range all {
		at := ""
		if !b.At.IsZero() {
			at = b.At.UTC().Format(time.RFC3339)
		}
		rows = append(rows, []string{b.Name, fmt.Sprint(b.Seq), at, b.By})
	}
	a.ui.Table([]string{"NAME", "SLOT", "SET", "BY"}, rows)
	return nil
}

type bookmarkRemoveCmd struct {
	jsonFlag
	serverFlags
	config.Buckets `embed:""`

	Names []string `arg:"" name:"name" help:"Bookmarks to remove."`
}

// Run removes the bookmarks.
func (c *bookmarkRemoveCmd) Run(ctx context.Context, a *app) error {
	if err := c.Complete(a.env, c.file); err != nil {
		return err
	}
	for _, name := range c.Names {
		if err := node.RemoveBookmark(ctx, c.Buckets, name, a.operator()); err != nil {
			return err
		}
		a.ui.Note("celler: bookmark %s is removed", name)
	}
	return nil
}
