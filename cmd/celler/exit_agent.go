package main

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/celler/celler/internal/agent"
	"github.com/celler/celler/internal/queue"
	"github.com/celler/celler/internal/ui"
)

// explainAgent explains what packages queue and agent return.
func explainAgent(err error) (verdict, bool) {
	if unsafe, ok := errors.AsType[*queue.UnsafeError](err); ok {
		return verdict{exitFailed, unsafe.Error(), []string{
			fmt.Sprintf("who can write there can have anything pushed anywhere; \"chmod go-w %s\", or choose another with --queue", unsafe.Dir),
		}}, true
	}
	if locked, ok := errors.AsType[*queue.LockedError](err); ok {
		return verdict{exitFailed, locked.Error(), []string{`"celler agent status" says what it does, "celler agent wait" waits for it`}}, true
	}
	if name, ok := errors.AsType[*agent.SocketNameError](err); ok {
		return verdict{exitFailed, name.Error(), []string{"choose a directory with a shorter name with --queue"}}, true
	}
	if absent, ok := errors.AsType[*agent.NotRunningError](err); ok {
		return verdict{exitFailed, "paths are queued, and " + absent.Error(), []string{
			`"celler agent --drain-and-exit" pushes them; "celler agent" is to run always`,
		}}, true
	}
	if undone, ok := errors.AsType[*agent.UndoneError](err); ok {
		lines := []string{undone.Error()}
		for _, f := range undone.Failed[min(1, len(undone.Failed)):] {
			lines = append(lines, f.String())
		}
		if undone.Left == 0 {
			return verdict{exitPartly, undone.Error(), []string{`what was built is in the store, and "celler push" can push it by hand; then remove the files`}}, true
		}
		return verdict{exitPartly, strings.Join(lines, "\n"), []string{`what is left stays queued: mend what is said above, and start "celler agent" again; "celler agent status" says how it fares`}}, true
	}
	if late, ok := errors.AsType[*lateError](err); ok {
		return verdict{exitPartly, late.Error(), []string{`they stay queued; "celler agent status" says how they fare`}}, true
	}
	if paths, ok := errors.AsType[*hookPathsError](err); ok {
		if paths.queued == 0 {
			return verdict{exitFailed, paths.Error(), nil}, true
		}
		return verdict{exitFailed, paths.Error(), []string{"the others were queued: " + ui.Plural(paths.queued, "path", "paths")}}, true
	}
	if q, ok := errors.AsType[*queueError](err); ok {
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			return verdict{exitFailed, q.Error(), []string{
				fmt.Sprintf("make room on the disk of %s, or choose another with --queue; what was built is in the store, and \"celler push\" can push it by hand", q.dir),
				"hook --keep-going lets Nix build on",
			}}, true
		}
	}
	return verdict{}, false
}
