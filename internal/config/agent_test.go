package config

import "testing"

func TestQueueDir(t *testing.T) {
	want := func(dir string, vars map[string]string, flag string, uid int) {
		t.Helper()
		if got := QueueDir(NewEnv(vars), flag, uid); got != dir {
			t.Errorf("queue in %s, want %s", got, dir)
		}
	}
	home := map[string]string{"HOME": "/home/me"}
	want("/home/me/.local/state/celler/queue", home, "", 1000)
	want("/state/celler/queue", map[string]string{"HOME": "/home/me", "XDG_STATE_HOME": "/state"}, "", 1000)
	want("/var/lib/celler-agent", home, "", 0)
	want("/elsewhere", home, "/elsewhere", 0)
}
