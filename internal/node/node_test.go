package node_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/internal/node"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mkConfig is a configuration as serve has it without flags, in a directory of its own.
func mkConfig(t *testing.T) config.Config {
	t.Helper()
	home := t.TempDir()
	cfg := config.Config{
		Listen: "127.0.0.1:0", ResidentBytes: 1 << 30, MaxNarInfoSize: 1 << 20,
		DrainTimeout: config.Span(10 * time.Second),
		WAL:          config.WAL{PollInterval: config.Span(time.Second), MaxStaleness: config.Span(time.Minute)},
		Log:          config.Log{Level: "info", Format: "text"},
	}
	if err := cfg.Complete(config.NewEnv(map[string]string{"HOME": home}), nil); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// running is a node that serves until the test ends.
type running struct {
	*node.Node
	url    string
	stop   context.CancelFunc
	result chan error
}

func mustRun(t *testing.T, cfg config.Config, o node.Options) *running {
	t.Helper()
	n, err := node.Open(t.Context(), cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	r := &running{Node: n, url: "http://" + n.Addr().String(), stop: stop, result: make(chan error, 1)}
	go func() { r.result <- n.Run(ctx) }()
	t.Cleanup(func() { r.end(t) })
	return r
}

// end stops the node, once, and wants it to have gone well.
func (r *running) end(t *testing.T) {
	t.Helper()
	if r.result == nil {
		return
	}
	r.stop()
	if err := <-r.result; err != nil {
		t.Errorf("run: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	r.result = nil
	http.DefaultClient.CloseIdleConnections()
}

func (r *running) do(t *testing.T, method, path, token, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, r.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

const newCache = `{"keypair":"Generate","is_public":true,"store_dir":"/nix/store","priority":41,"upstream_cache_key_names":[]}`

func TestNode(t *testing.T) {
	cfg := mkConfig(t)
	var logs bytes.Buffer
	first := mustRun(t, cfg, node.Options{Version: "v1", Logger: slog.New(slog.NewTextHandler(&logs, nil))})
	if !first.Founded() {
		t.Error("the first node does not say that it founded the bucket")
	}
	if code, body := first.do(t, http.MethodGet, "/readyz", "", ""); code != http.StatusOK {
		t.Errorf("readyz: %d %s", code, body)
	}
	token, err := first.AdminToken(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if code, body := first.do(t, http.MethodPost, "/_api/v1/cache-config/main", token, newCache); code != http.StatusOK {
		t.Fatalf("create cache: %d %s", code, body)
	}
	_, body := first.do(t, http.MethodGet, "/metrics", "", "")
	for _, want := range []string{
		`celler_blob_requests_total{bucket="all",op="create",result="ok"} `,
		`celler_blob_request_seconds_count{bucket="all",op="create",result="exist"} `,
		`celler_blob_request_bytes_total{bucket="all",op="create"} `,
		`celler_build_info{version="v1"} 1`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in the metrics", want)
		}
	}
	first.end(t)

	// The same bucket with nothing else: another node, another place for the index.
	cfg.CacheDir = t.TempDir()
	second := mustRun(t, cfg, node.Options{})
	if second.Founded() {
		t.Error("the second node says that it founded the bucket")
	}
	if code, body := second.do(t, http.MethodGet, "/main/nix-cache-info", "", ""); code != http.StatusOK {
		t.Errorf("the second node does not know the cache: %d %s", code, body)
	}
	// Tokens of the first are believed: the secret is in the bucket.
	if code, body := second.do(t, http.MethodGet, "/_api/v1/cache-config/main", token, ""); code != http.StatusOK {
		t.Errorf("the second node does not believe the first one's token: %d %s", code, body)
	}
}

func TestTwoBuckets(t *testing.T) {
	cfg := mkConfig(t)
	cfg.Default = false
	cfg.LogBucket, cfg.DataBucket = filepath.Join(t.TempDir(), "log"), filepath.Join(t.TempDir(), "data")
	n := mustRun(t, cfg, node.Options{})
	if code, body := n.do(t, http.MethodGet, "/readyz", "", ""); code != http.StatusOK {
		t.Errorf("readyz: %d %s", code, body)
	}
	if _, err := os.Stat(filepath.Join(cfg.LogBucket, "FORMAT")); err != nil {
		t.Errorf("the log's bucket is not founded: %v", err)
	}
	if _, err := os.Stat(filepath.Join(cfg.DataBucket, "FORMAT")); err == nil {
		t.Error("the data's bucket is founded")
	}
}

func TestLockedIndex(t *testing.T) {
	cfg := mkConfig(t)
	mustRun(t, cfg, node.Options{})
	_, err := node.Open(t.Context(), cfg, node.Options{})
	if _, hint, ok := node.Diagnose(err); !ok || !strings.Contains(hint, "--cache-dir") {
		t.Errorf("got %v with hint %q", err, hint)
	}
}

func TestMintToken(t *testing.T) {
	cfg := mkConfig(t)
	request := node.TokenRequest{Subject: "ci", Validity: time.Hour, Rules: []node.TokenRule{{Pattern: "*", Rights: []string{"create-cache"}}}}
	if _, err := node.MintToken(t.Context(), cfg, request, time.Now); err == nil {
		t.Error("a token was made for a bucket that is not there")
	}
	n := mustRun(t, cfg, node.Options{})
	token, err := node.MintToken(t.Context(), cfg, request, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if code, body := n.do(t, http.MethodPost, "/_api/v1/cache-config/x", token, newCache); code != http.StatusOK {
		t.Errorf("the server does not believe the token: %d %s", code, body)
	}
	if code, body := n.do(t, http.MethodDelete, "/_api/v1/cache-config/x", token, ""); code != http.StatusForbidden {
		t.Errorf("the token allows more than was asked for: %d %s", code, body)
	}
	request.Rules[0].Rights = []string{"fly"}
	if _, err := node.MintToken(t.Context(), cfg, request, time.Now); !errors.As(err, new(*node.RightsError)) {
		t.Errorf("got %v, want a RightsError", err)
	}
}

func TestReadLog(t *testing.T) {
	cfg := mkConfig(t)
	n := mustRun(t, cfg, node.Options{})
	token, err := n.AdminToken(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if code, body := n.do(t, http.MethodPost, "/_api/v1/cache-config/main", token, newCache); code != http.StatusOK {
		t.Fatalf("create cache: %d %s", code, body)
	}
	var rows []string
	for seg, err := range node.ReadLog(t.Context(), cfg.Buckets, node.LogQuery{}, nil) {
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range seg.Entries {
			if _, bad := e.Fields["error"]; bad {
				t.Errorf("segment %d: %+v", seg.Seq, e)
			}
			rows = append(rows, e.Op+" "+e.Row+" "+e.Key)
			if strings.Contains(e.Text, "==") {
				t.Errorf("a key is shown: %s", e.Text)
			}
		}
	}
	all := strings.Join(rows, "\n")
	for _, want := range []string{"set secret token-hs256", "set cache main"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in\n%s", want, all)
		}
	}
}

// systemd learns when the node is ready and when it stops.
func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	n := mustRun(t, mkConfig(t), node.Options{})
	for _, want := range []string{"READY=1", "STOPPING=1"} {
		buf := make([]byte, 100)
		k, err := socket.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(buf[:k]); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		n.stop()
	}
}

// A request in flight is answered although the node was told to stop.
func TestDrain(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		protocols := new(http.Protocols)
		protocols.SetHTTP1(!h2)
		protocols.SetUnencryptedHTTP2(h2)
		t.Run(protocols.String(), func(t *testing.T) { testDrain(t, protocols) })
	}
}

func testDrain(t *testing.T, protocols *http.Protocols) {
	n := mustRun(t, mkConfig(t), node.Options{})
	token, err := n.AdminToken(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if code, body := n.do(t, http.MethodPost, "/_api/v1/cache-config/main", token, newCache); code != http.StatusOK {
		t.Fatalf("create cache: %d %s", code, body)
	}
	// The server asks for the body when its handler reads it: the request is in flight.
	inFlight := make(chan struct{})
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got100Continue: func() { close(inFlight) }})
	body, write := io.Pipe()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, n.url+"/_api/v1/get-missing-paths", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Expect", "100-continue")
	transport := &http.Transport{ExpectContinueTimeout: time.Minute, Protocols: protocols}
	defer transport.CloseIdleConnections()
	status := make(chan int, 1)
	go func() {
		res, err := transport.RoundTrip(req)
		if err != nil {
			t.Error(err)
			status <- 0
			return
		}
		status <- res.StatusCode
		_ = res.Body.Close()
	}()
	<-inFlight
	n.stop()
	if _, err := io.WriteString(write, `{"cache":"main","store_path_hashes":[]}`); err != nil {
		t.Fatal(err)
	}
	_ = write.Close()
	if got := <-status; got != http.StatusOK {
		t.Errorf("got %d, want 200", got)
	}
}
