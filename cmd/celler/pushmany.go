package main

import (
	"errors"
	"fmt"
	"slices"
)

// references are the caches to push to. Only one that is misspelt keeps all of them from
// being pushed to.
func (c *pushCmd) references(a *app) ([]string, error) {
	references := []string{c.Cache}
	for _, reference := range c.Also {
		if slices.Contains(references, reference) {
			return nil, &usageError{Problem: fmt.Sprintf("cache %q is named twice", reference)}
		}
		references = append(references, reference)
	}
	for _, reference := range references {
		if _, err := a.remote(reference); err != nil {
			return nil, err
		}
	}
	return references, nil
}

// each pushes to every cache, whatever becomes of the others.
func each(a *app, references []string, push func(reference string) error) error {
	if len(references) == 1 {
		return push(references[0])
	}
	failed, partly := 0, false
	for _, reference := range references {
		if err := push(reference); err != nil {
			v := explain(err)
			a.ui.Error("push "+reference, v.sentence, v.hints...)
			failed++
			partly = partly || v.code == exitPartly
		}
	}
	switch {
	case failed == 0:
		return nil
	case failed == len(references) && !partly:
		return &silentError{errors.New("no cache could be pushed to")}
	}
	return &partlyError{Done: len(references) - failed, Failed: failed, What: "cache"}
}
