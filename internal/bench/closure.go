package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// deltaClosure is (b) with one root: all that it refers to is there.
func (l *lab) deltaClosure(ctx context.Context, s *server, store *nixStore) error {
	n := 4 * l.tiny
	old, err := store.addClosure(ctx, n, "")
	if err != nil {
		return err
	}
	const cache = "closure"
	if err := s.createCacheAt(ctx, cache, store.dir); err != nil {
		return err
	}
	if _, err := l.pushStore(ctx, s, store, cache, old, false, nil); err != nil {
		return err
	}
	again, err := l.pushStore(ctx, s, store, cache, old, false, nil)
	if err != nil {
		return err
	}
	whole, err := l.pushStore(ctx, s, store, cache, old, true, nil)
	if err != nil {
		return err
	}
	wire := again.up + again.down
	l.add("delta", fmt.Sprintf("(b) one root with a closure of %d paths again: bytes on the wire in all", n), fmt.Sprint(wire), fmt.Sprintf("%d asking about each path", whole.up+whole.down), "", target(wire <= 4096, "≤ 4096"))

	above, err := store.addClosure(ctx, n, "above")
	if err != nil {
		return err
	}
	fresh, err := l.pushStore(ctx, s, store, cache, above, false, nil)
	if err != nil {
		return err
	}
	l.add("delta", fmt.Sprintf("(b) a new root above a closure of %d paths: bytes on the wire in all", n), fmt.Sprint(fresh.up+fresh.down), "", "", "")
	return nil
}

// addClosure adds derivations, which nobody builds: n of them make a tree, of which the root is
// returned; or, if above has a name, one more that refers to the root.
func (st *nixStore) addClosure(ctx context.Context, n int, above string) (string, error) {
	cmd := exec.CommandContext(ctx, "nix-instantiate", "--quiet", "--expr", fmt.Sprintf(`let
  n = %d;
  mk = name: inputs: derivation { inherit name inputs; system = "none"; builder = "/bin/sh"; };
  tree = builtins.genList (i: mk "closure-${toString i}" (map (builtins.elemAt tree) (builtins.filter (c: c < n) [ (2 * i + 1) (2 * i + 2) ]))) n;
  root = builtins.elemAt tree 0;
in if %q == "" then root else mk "above" [ root ]`, n, above))
	cmd.Env = st.env
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return "", fmt.Errorf("nix-instantiate: %w: %s", err, exit.Stderr)
	}
	return strings.TrimSpace(string(out)) + "\n", err
}
