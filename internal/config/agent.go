package config

import "path/filepath"

// rootQueue is where the queue of root's hooks is: they run inside the Nix daemon, which
// has no home.
const rootQueue = "/var/lib/celler-agent"

// QueueDir is the directory of the queue of what is to be pushed: the flag, or else a
// place that a hook and an agent of the same user agree on without being told.
func QueueDir(env Env, flag string, uid int) string {
	switch {
	case flag != "":
		return flag
	case uid == 0:
		return rootQueue
	}
	return filepath.Join(env.xdg("XDG_STATE_HOME", ".local", "state"), "celler", "queue")
}
