package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/celler/celler/client"
	"github.com/celler/celler/internal/ui"
)

type pathCmd struct {
	List   pathListCmd   `cmd:"" help:"List the store paths of a cache."`
	Info   pathInfoCmd   `cmd:"" aliases:"show" help:"Show what a cache knows of a store path."`
	Delete pathDeleteCmd `cmd:"" help:"Withdraw store paths from a cache."`
	Log    pathLogCmd    `cmd:"" help:"Print the log of the build of a store path."`
}

type pathListCmd struct {
	Cache string `arg:"" help:"Name, server:name, or URL."`
	Long  bool   `short:"l" help:"With sizes and dates."`
	jsonFlag
}

func (c *pathListCmd) Run(ctx context.Context, a *app) error {
	api, r, err := a.dial(c.Cache)
	if err != nil {
		return err
	}
	defer api.Close()
	for p, err := range api.Paths(ctx, r.Cache) {
		if err != nil {
			return at(r, err)
		}
		switch {
		case a.ui.JSON():
			if err := a.ui.Value(pathJSON(&p)); err != nil {
				return err
			}
		case c.Long: // a table would need all of them first, and there may be millions
			a.ui.Data("%10s %10s  %s  %s", ui.Size(p.NarSize), ui.Size(p.FileSize), p.Created.Format(time.DateOnly), p.StorePath)
		default:
			a.ui.Data("%s", p.StorePath)
		}
	}
	return nil
}

type pathInfoCmd struct {
	Cache string `arg:"" help:"Name, server:name, or URL."`
	Path  string `arg:"" help:"Store path, its hash part, or a link to it such as ./result."`
	jsonFlag
}

func (c *pathInfoCmd) Run(ctx context.Context, a *app) error {
	hashPart, err := hashPartOf(c.Path)
	if err != nil {
		return err
	}
	api, r, err := a.dial(c.Cache)
	if err != nil {
		return err
	}
	defer api.Close()
	p, err := api.Path(ctx, r.Cache, hashPart)
	if status, ok := errors.AsType[*client.StatusError](err); ok && status.Name == client.NoSuchObject {
		return &hintedError{fmt.Errorf("%s is not in cache %q", c.Path, r.Cache), []string{
			fmt.Sprintf("\"celler path list %s\" says what there is; where the bucket can be reached, \"celler gc explain %s %s\" why not", r.Ref, r.Cache, c.Path),
		}}
	}
	if err != nil {
		return at(r, err)
	}
	if a.ui.JSON() {
		return a.ui.Value(pathJSON(&p))
	}
	rows := [][]string{
		{"Store path:", p.StorePath},
		{"NAR hash:", p.NarHash},
		{"NAR size:", ui.Size(p.NarSize)},
		{"File size:", ui.Size(p.FileSize)},
		{"References:", strings.Join(p.References, "\n")},
		{"Deriver:", p.Deriver},
		{"System:", p.System},
		{"CA:", p.CA},
		{"Signatures:", strings.Join(p.Sigs, "\n")},
		{"Pushed by:", p.CreatedBy},
		{"Pushed:", p.Created.Format(time.RFC3339)},
	}
	var known [][]string
	for _, row := range rows {
		for i, line := range strings.Split(row[1], "\n") {
			switch {
			case i > 0:
				known = append(known, []string{"", line})
			case line != "":
				known = append(known, []string{row[0], line})
			}
		}
	}
	a.ui.Table(nil, known)
	return nil
}

// hashPartOf reads what names a path of a cache.
func hashPartOf(text string) (client.HashPart, error) {
	hashPart, err := client.ParseHashPart(followed(text))
	if err != nil {
		return hashPart, &usageError{Problem: err.Error(), Hint: "give a whole store path, the 32 characters of its hash part, or a link to it such as ./result"}
	}
	return hashPart, nil
}

// followed is the store path that a link such as ./result leads to, or text as it is.
func followed(text string) string {
	at := text
	for range 40 { // as many as Linux follows
		target, err := os.Readlink(filepath.Clean(at))
		if err != nil {
			return text
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(at), target)
		}
		if _, ok := client.ParseStorePath(target); ok {
			return target
		}
		at = target
	}
	return text
}

func pathJSON(p *client.Path) map[string]any {
	m := map[string]any{
		"store_path": p.StorePath, "nar_hash": p.NarHash, "nar_bytes": p.NarSize, "file_bytes": p.FileSize,
		"references": append([]string{}, p.References...), "signatures": append([]string{}, p.Sigs...), "created": p.Created,
	}
	for key, text := range map[string]string{"deriver": p.Deriver, "system": p.System, "ca": p.CA, "created_by": p.CreatedBy} {
		if text != "" {
			m[key] = text
		}
	}
	return m
}
