package node_test

import (
	"context"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/internal/node"
)

// lines is a handler that passes on the messages of a log.
type lines struct{ messages chan string }

func (l lines) Enabled(context.Context, slog.Level) bool { return true }
func (l lines) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l lines) WithGroup(string) slog.Handler            { return l }
func (l lines) Handle(_ context.Context, r slog.Record) error {
	select {
	case l.messages <- r.Message:
	default:
	}
	return nil
}

// A server keeps its log short by itself, and another one begins with the snapshot.
func TestMaintenance(t *testing.T) {
	cfg := mkConfig(t)
	cfg.Maintenance, cfg.MaintenanceInterval, cfg.MaintenanceSegments = "on", config.Span(20*time.Millisecond), 1
	log := lines{make(chan string, 1000)}
	first := mustRun(t, cfg, node.Options{Logger: slog.New(log)})
	token, err := first.AdminToken(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if code, body := first.do(t, http.MethodPost, "/_api/v1/cache-config/main", token, newCache); code != http.StatusOK {
		t.Fatalf("create cache: %d %s", code, body)
	}
	seq := first.Seq()
	for {
		rep, err := node.Compact(t.Context(), cfg.Buckets, cfg.Compact, node.CompactRequest{DryRun: true})
		if err != nil {
			t.Fatal(err)
		}
		if uint64(rep.Snapshot) >= seq && uint64(rep.Floor) >= seq {
			break
		}
		for m := range log.messages {
			if m == "compacted the log" {
				break
			}
		}
	}
	first.end(t)

	cfg.CacheDir, cfg.Maintenance = t.TempDir(), "off"
	second := mustRun(t, cfg, node.Options{})
	if code, body := second.do(t, http.MethodGet, "/main/nix-cache-info", "", ""); code != http.StatusOK {
		t.Errorf("a server that began with the snapshot does not know the cache: %d %s", code, body)
	}
	if code, body := second.do(t, http.MethodGet, "/_api/v1/cache-config/main", token, ""); code != http.StatusOK {
		t.Errorf("nor believes the token: %d %s", code, body)
	}
}
