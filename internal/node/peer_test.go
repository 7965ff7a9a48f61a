package node

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/celler/celler/httpapi"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/wal"
)

// freeAddress returns an address that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// mustRunPeer runs a node on bucket whose index looks at the log once an hour. It
// returns the node, and the hints that reach it.
func mustRunPeer(t *testing.T, bucket string) (*Node, <-chan uint64, func()) {
	t.Helper()
	address := freeAddress(t)
	cfg := config.Config{
		Buckets: config.Buckets{Bucket: bucket}, Listen: address, Advertise: "http://" + address, CacheDir: t.TempDir(), MaxNarInfoSize: 1 << 20,
		DrainTimeout: config.Span(10 * time.Second),
		WAL:          config.WAL{PollInterval: config.Span(time.Hour), MaxStaleness: config.Span(2 * time.Hour)},
		AllowedHosts: []string{"only-for-clients"}, Maintenance: "off",
	}
	cfg.GC.ReaderGrace, cfg.GC.NarGrace = config.Span(24*time.Hour), config.Span(24*time.Hour)
	if err := cfg.Complete(config.NewEnv(map[string]string{"HOME": t.TempDir()}), nil); err != nil {
		t.Fatal(err)
	}
	n, err := Open(t.Context(), cfg, Options{})
	if err != nil {
		t.Fatal(err)
	}
	hints := make(chan uint64, 1000)
	n.peers.arrived = func(seq uint64) {
		n.log.Hint(wal.Seq(seq))
		hints <- seq
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	result := make(chan error, 1)
	go func() { result <- n.Run(ctx) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			if err := <-result; err != nil {
				t.Errorf("run: %v", err)
			}
			if err := n.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return n, hints, stop
}

func await(t *testing.T, what string, hints <-chan uint64, ok func(seq uint64) bool) {
	t.Helper()
	patience := time.NewTimer(30 * time.Second)
	defer patience.Stop()
	for {
		select {
		case seq := <-hints:
			if ok(seq) {
				return
			}
		case <-patience.C:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func any1(uint64) bool { return true }

// Two servers that were told nothing but their own address find each other by the log,
// tell each other what is new, and take leave.
func TestPeersFindEachOther(t *testing.T) {
	bucket := filepath.Join(t.TempDir(), "bucket")
	a, fromB, _ := mustRunPeer(t, bucket)
	b, fromA, stopB := mustRunPeer(t, bucket)
	await(t, "a hears b", fromB, any1)
	await(t, "b hears a", fromA, any1)
	if !a.peers.allAlive() || !b.peers.allAlive() {
		t.Error("who has spoken is not taken for alive")
	}
	seq, err := a.cat.CreateCache(t.Context(), catalog.Cache{Name: "ci", StoreDir: "/nix/store"})
	if err != nil {
		t.Fatal(err)
	}
	await(t, "b is told of the slot", fromA, func(s uint64) bool { return s >= uint64(seq) })

	stopB()
	await(t, "b takes leave", fromB, func(uint64) bool { return !a.peers.allAlive() })
	if n := a.peers.count(); n != 0 {
		t.Errorf("%d peers after the only one has left", n)
	}
}

// An address that nobody answers at must not make a server rely on hints.
func TestSilentPeerIsNotAlive(t *testing.T) {
	now := time.Now()
	p := newPeers("http://self/", func() time.Time { return now }, slog.New(slog.DiscardHandler), metrics.NewSet())
	p.spawn = func(func(context.Context)) {}
	alive := func(want bool, why string) {
		t.Helper()
		if p.allAlive() != want {
			t.Errorf("%s: alive is %v", why, !want)
		}
	}
	alive(false, "nobody is there")
	p.met("http://self/", true)
	p.met("ftp://x/", true)
	alive(false, "only itself, and what is no server")
	p.met("http://a/", true)
	alive(true, "it has spoken")
	p.met("http://b/", false)
	alive(false, "one was read of and has not spoken")
	p.met("http://b/", true)
	alive(true, "now it has")
	now = now.Add(peerAlive + time.Second)
	p.met("http://b/", true)
	alive(false, "the other is silent")
	p.arrived = func(uint64) {}
	p.Hint(httpapi.PeerHint{From: "http://a/", Bye: true})
	alive(true, "the silent one has left")
	for i := range 2 * maxPeers {
		p.met("http://"+string(rune('a'+i%26))+string(rune('a'+i/26))+"/", false)
	}
	if len(p.known) != maxPeers {
		t.Errorf("%d peers, want at most %d", len(p.known), maxPeers)
	}
}
