package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// tiny pushes many small store paths of a real Nix store with "celler push".
func tiny(ctx context.Context, l *lab) error {
	store, err := l.newStore("tiny")
	if err != nil {
		return err
	}
	s, err := l.serve(ctx, filepath.Join(l.dir, "tiny-bucket"), filepath.Join(l.dir, "tiny-local"))
	if err != nil {
		return err
	}
	tokenFile := filepath.Join(l.dir, "tiny-token")
	if err := os.WriteFile(tokenFile, []byte(s.token), 0o600); err != nil {
		return err
	}
	if err := command(ctx, store.env, l.celler, "login", "--set-default", "bench", s.endpoint, "--token-file", tokenFile); err != nil {
		return err
	}
	var rates []float64
	for round := range l.rounds {
		out, err := store.addTiny(ctx, uint64(round), l.tiny)
		if err != nil {
			return err
		}
		cache := fmt.Sprintf("tiny%d", round)
		if err := command(ctx, store.env, l.celler, "cache", "create", cache, "--store-dir", store.dir); err != nil {
			return err
		}
		push := exec.CommandContext(ctx, l.celler, "push", cache, "--stdin")
		push.Env, push.Stdin = store.env, strings.NewReader(out)
		begin := time.Now()
		if text, err := push.CombinedOutput(); err != nil {
			return fmt.Errorf("celler push: %w: %s", err, text)
		}
		rates = append(rates, float64(l.tiny)/time.Since(begin).Seconds())
	}
	req, err := s.bucketRequests()
	if err != nil {
		return err
	}
	n := float64(l.tiny * l.rounds)
	m := median(rates)
	l.add("tiny paths", fmt.Sprintf("celler push of %d store paths, local bucket", l.tiny), fmt.Sprintf("%.0f paths/s", m), "", "", target(m >= 500, "≥ 500/s"))
	l.add("tiny paths", "data PUTs and log creates per 100 paths", fmt.Sprintf("%.1f, %.1f", 100*req["put"]/n, 100*req["create"]/n), "", "", "")
	return nil
}

func command(ctx context.Context, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = env
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, text)
	}
	return nil
}
