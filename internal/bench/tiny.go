package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// tiny pushes many small store paths of a real Nix store with "celler push".
func tiny(ctx context.Context, l *lab) error {
	nix := filepath.Join(l.dir, "nix")
	home := filepath.Join(l.dir, "home")
	env := append(os.Environ(), "NIX_STORE_DIR="+nix+"/store", "NIX_STATE_DIR="+nix+"/state", "NIX_LOG_DIR="+nix+"/log",
		"NIX_CONF_DIR="+nix+"/etc", "NIX_REMOTE=local", "HOME="+home, "XDG_CONFIG_HOME="+home)
	for _, d := range []string{nix + "/etc", home, nix + "/src"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(nix+"/etc/nix.conf", []byte("sandbox = false\nbuild-users-group =\n"), 0o644); err != nil {
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
	if err := command(ctx, env, l.celler, "login", "--set-default", "bench", s.endpoint, "--token-file", tokenFile); err != nil {
		return err
	}
	var rates []float64
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range l.rounds {
		args := []string{"--add"}
		for i := range l.tiny {
			f := filepath.Join(nix, "src", fmt.Sprintf("tiny-%d-%d", round, i))
			b := make([]byte, 200+rng.IntN(8000))
			for j := range b {
				b[j] = "0123456789abcdefghijklmnopqrstuv"[rng.IntN(32)]
			}
			if err := os.WriteFile(f, b, 0o644); err != nil {
				return err
			}
			args = append(args, f)
		}
		add := exec.CommandContext(ctx, "nix-store", args...)
		add.Env = env
		out, err := add.Output()
		if err != nil {
			return fmt.Errorf("nix-store --add: %w", err)
		}
		cache := fmt.Sprintf("tiny%d", round)
		if err := command(ctx, env, l.celler, "cache", "create", cache, "--store-dir", nix+"/store"); err != nil {
			return err
		}
		push := exec.CommandContext(ctx, l.celler, "push", cache, "--stdin")
		push.Env, push.Stdin = env, strings.NewReader(string(out))
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
