//go:build e2e

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A build of two hundred small derivations is pushed while it goes on, by a hook and by a
// watcher, and the server, and the process that pushes, are killed and started meanwhile.
// Every path arrives: the closure is substituted back, and nothing is left in the queue.

func TestE2EHookUnderABuild(t *testing.T) {
	r := newRig(t)
	hook := filepath.Join(r.dir, "hook")
	script := fmt.Sprintf("#!/bin/sh\nexec %s hook ci\n", r.celler)
	if err := os.WriteFile(hook, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	pushedUnderABuild(t, r, []string{"agent"}, "--option", "post-build-hook", hook)
}

func TestE2EWatchUnderABuild(t *testing.T) {
	pushedUnderABuild(t, newRig(t), []string{"watch", "ci", "--rescan", "10s"})
}

func pushedUnderABuild(t *testing.T, r *rig, pusher []string, nixBuild ...string) {
	r.env = append(r.env, "CELLER_QUEUE="+filepath.Join(r.dir, "q"))
	bucket, local := filepath.Join(r.dir, "bucket"), filepath.Join(r.dir, "local")
	// A watcher also takes what became valid some seconds before it began.
	older := make(map[string]bool)
	for path := range strings.FieldsSeq(r.run(t, "nix", "path-info", "--all")) {
		older[filepath.Base(path)] = true
	}
	s := r.serve(t, bucket, local, "")
	r.login(t, s.endpoint)
	key := r.cache(t, s.endpoint, "ci", "--public")
	p := r.startPusher(t, pusher)
	waitFor(t, "the pusher to be ready", func() bool {
		_, err := os.Stat(filepath.Join(r.dir, "q", "agent.sock"))
		return err == nil
	})
	if pusher[0] == "watch" {
		waitFor(t, "the watcher to have its list", func() bool {
			seen, _ := filepath.Glob(filepath.Join(r.dir, "q", "seen", "*"))
			return len(seen) == 1
		})
	}

	var top string
	var built error
	var wg sync.WaitGroup
	wg.Go(func() {
		args := append([]string{"testdata/e2e/small.nix", "--argstr", "salt", fmt.Sprint(t.Name(), time.Now().UnixNano()), "--no-out-link", "-j", "2"}, nixBuild...)
		top, built = r.try(t.Context(), "nix-build", args...)
	})
	arrived := func() int { return strings.Count(r.list(t), "-small-") }
	waitFor(t, "the first paths to arrive", func() bool { return arrived() > 5 })
	s.stop(t, syscall.SIGKILL)
	time.Sleep(time.Second)
	p.kill(t)
	s = r.serve(t, bucket, local, s.addr())
	p = r.startPusher(t, pusher)
	before := arrived()
	waitFor(t, "more paths to arrive", func() bool { return arrived() > before })
	s.stop(t, syscall.SIGTERM)
	wg.Wait()
	if built != nil {
		t.Fatal(built)
	}
	top = strings.TrimSpace(top)
	var left []string
	waitFor(t, "the queue to fill", func() bool {
		left, _ = filepath.Glob(filepath.Join(r.dir, "q", "entries", "*"))
		return len(left) > 0
	})
	s = r.serve(t, bucket, local, s.addr())
	if pusher[0] == "watch" {
		// What was built last may not have been heard of yet.
		waitFor(t, "the last path to arrive", func() bool { return strings.Contains(r.list(t), "-small-all\n") })
	}
	r.run(t, r.celler, "agent", "wait", "--timeout", "2m")

	paths := strings.Fields(r.run(t, "nix-store", "-qR", top))
	if len(paths) != 201 {
		t.Fatalf("the closure has %d paths, want 201", len(paths))
	}
	list := r.list(t)
	for _, path := range paths {
		if !strings.Contains(list, filepath.Base(path)) {
			t.Errorf("%s did not arrive", path)
		}
	}
	var docs []string
	for path := range strings.FieldsSeq(list) {
		if strings.HasSuffix(path, "-doc") && !older[filepath.Base(path)] {
			docs = append(docs, path)
		}
	}
	if len(docs) != 20 {
		t.Errorf("%d paths arrived that nothing refers to, want 20:\n%s", len(docs), strings.Join(docs, "\n"))
	}
	if links, _ := filepath.Glob(filepath.Join(r.dir, "q", "roots", "*")); len(links) > 0 {
		t.Errorf("%d roots are left", len(links))
	}
	p.stop(t)
	r.run(t, "nix-store", append([]string{"--delete"}, paths...)...)
	r.run(t, "nix-store", "-r", top, "--option", "substituters", s.endpoint+"/ci", "--option", "trusted-public-keys", key,
		"--option", "require-sigs", "true", "-j", "0")
	t.Logf("%d were queued when the last build ended", len(left))
}

// list is what is in the cache.
func (r *rig) list(t *testing.T) string { return r.run(t, r.celler, "path", "list", "ci") }

// pusherProcess is a running agent or watcher.
type pusherProcess struct {
	cmd  *exec.Cmd
	done chan error
}

func (r *rig) startPusher(t *testing.T, args []string) *pusherProcess {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(r.dir, "pusher.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p := &pusherProcess{exec.Command(r.celler, args...), make(chan error, 1)}
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = r.env, log, log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("log of the pushers:\n%s", text[max(0, len(text)-4000):])
		}
	})
	return p
}

func (p *pusherProcess) kill(t *testing.T) {
	t.Helper()
	p.cmd.Process.Kill()
	if err := <-p.done; err == nil {
		t.Error("the pusher had ended by itself")
	}
}

func (p *pusherProcess) stop(t *testing.T) {
	t.Helper()
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-p.done:
		if err != nil {
			t.Errorf("the pusher ended with %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("the pusher did not stop within a minute of the signal")
	}
}

func waitFor(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !f(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited two minutes for %s", what)
		}
	}
}

// howToMount is for who reads that a disk could not be mounted.
const howToMount = "run it as root (in a container with the capability SYS_ADMIN), or let everybody make user namespaces " +
	"(sysctl user.max_user_namespaces, on Debian kernel.unprivileged_userns_clone, on Ubuntu kernel.apparmor_restrict_unprivileged_userns)"

// mayMount runs the test again, in a process whose mounts nobody else sees, and which may
// mount even if we may not: it is root of a user namespace then. In that process it is true.
func mayMount(t *testing.T) bool {
	t.Helper()
	if os.Getenv(ownMounts) != "" {
		return true
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), ownMounts+"=root")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.Env = append(os.Environ(), ownMounts+"="+notRoot)
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	if out, err := cmd.CombinedOutput(); errors.As(err, new(*exec.ExitError)) {
		t.Fatalf("%s", out)
	} else if err != nil {
		t.Fatalf("start a process with mounts of its own: %v: %s", err, howToMount)
	}
	return false
}

// A disk that is full under the queue: the hook says so, the build stops, and when there
// is room again it goes on. With --keep-going it does not stop.
func TestE2EFullDiskUnderTheQueue(t *testing.T) {
	if !mayMount(t) {
		return
	}
	r := newRig(t)
	disk := filepath.Join(r.dir, "disk")
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("none", disk, "tmpfs", 0, "size=64k,mode=700"); err != nil {
		t.Fatalf("mount a small disk: %v: %s", err, howToMount)
	}
	t.Cleanup(func() { syscall.Unmount(disk, 0) })
	r.env = append(r.env, "CELLER_QUEUE="+filepath.Join(disk, "q"))
	ballast := filepath.Join(disk, "ballast")
	fill := func() {
		if err := os.WriteFile(ballast, make([]byte, 128<<10), 0o600); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("filled the disk with %v", err)
		}
	}
	hook := func(flags string) string {
		name := filepath.Join(r.dir, "hook"+strings.TrimPrefix(flags, "--"))
		if err := os.WriteFile(name, fmt.Appendf(nil, "#!/bin/sh\nexec %s hook %s ci\n", r.celler, flags), 0o755); err != nil {
			t.Fatal(err)
		}
		return name
	}
	build := func(name, hook string) error {
		expr := fmt.Sprintf(`derivation { name = "full-%s-%d"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo > $out" ]; }`, name, time.Now().UnixNano())
		_, err := r.try(t.Context(), "nix-build", "-E", expr, "--no-out-link", "--option", "post-build-hook", hook)
		return err
	}
	wantEntries := func(n int) {
		t.Helper()
		if names, _ := os.ReadDir(filepath.Join(disk, "q", "entries")); len(names) != n { // those with a dot included
			t.Errorf("%d files in the queue, want %d", len(names), n)
		}
	}
	if err := build("room", hook("")); err != nil {
		t.Fatal(err)
	}
	wantEntries(1)
	fill()
	err := build("full", hook(""))
	if err == nil || !strings.Contains(err.Error(), "no space left on device") || !strings.Contains(err.Error(), "make room on the disk of") {
		t.Errorf("a build with a full disk under the queue ended with %v", err)
	}
	if err := build("going", hook("--keep-going")); err != nil {
		t.Errorf("a build with --keep-going ended with %v", err)
	}
	wantEntries(1)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := build("again", hook("")); err != nil {
		t.Error(err)
	}
	wantEntries(2)
}
