package httpapi_test

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/nix/nixtest"
)

var update = flag.Bool("update", false, "write testdata/transcripts.txt anew")

// TestTranscripts compares whole answers, headers and all, with what they were when
// somebody last looked at them. What depends on the encoder or the clock is blanked.
func TestTranscripts(t *testing.T) {
	n := mkNode(t, nil)
	key := nixtest.MkSecretKey(t, "golden-1")
	for name, public := range map[string]bool{"open": true, "shut": false} {
		n.call("POST", "/_api/v1/cache-config/"+name, n.root(), wire.CreateCacheRequest{
			Keypair: wire.Keypair{Secret: key.Secret()}, IsPublic: public, StoreDir: "/nix/store", Priority: 41, UpstreamCacheKeyNames: []string{"cache.nixos.org-1"},
		}).want(t, 200, "")
	}
	dep := nixtest.MkPath(t, "dep", nixtest.Text("dependency"))
	p := nixtest.MkPath(t, "golden", nixtest.Dir{"bin": nixtest.Script("#!/bin/sh\n"), "link": nixtest.Link("bin")}, dep.Info.StorePath)
	n.push("open", dep, p)
	n.push("shut", p)
	part := p.Info.StorePath.HashPart().String()
	url := n.narInfo("open", p.Info.StorePath.HashPart(), "").URL

	var got strings.Builder
	var sent any // the next request's body
	f := func(method, path, who string, headers ...string) {
		t.Helper()
		token := map[string]string{"anybody": "", "root": n.root(), "puller": n.token("shut: pull")}[who]
		r := n.call(method, path, token, sent, append(headers, "Host", "cache.example:8080")...)
		fmt.Fprintf(&got, "> %s %s (%s)%s\n", method, path, who, strings.Join(append([]string{""}, headers...), " "))
		if sent != nil {
			got.WriteString("\n" + jsonText(sent) + "\n\n")
			sent = nil
		}
		fmt.Fprintf(&got, "< %s\n", r.Status)
		var lines []string
		for name, values := range r.Header {
			if name == "Date" {
				continue
			}
			lines = append(lines, "< "+name+": "+strings.Join(values, ", "))
		}
		slices.Sort(lines)
		got.WriteString(strings.Join(lines, "\n") + "\n")
		body := string(r.body)
		if strings.Contains(r.Header.Get("Content-Type"), "x-nix-nar") && strings.HasSuffix(r.Header.Get("Content-Type"), "nar") {
			body = fmt.Sprintf("(%s)", map[bool]string{true: "the NAR, compressed", false: "no body"}[len(r.body) > 0])
		}
		if body != "" {
			got.WriteString("\n" + strings.TrimSuffix(body, "\n") + "\n")
		}
		got.WriteString("\n")
	}
	f("GET", "/", "anybody")
	f("GET", "/healthz", "anybody")
	f("GET", "/readyz", "anybody")
	f("GET", "/open/nix-cache-info", "anybody")
	f("GET", "/shut/nix-cache-info", "puller")
	f("GET", "/open/"+part+".narinfo", "anybody")
	f("HEAD", "/open/"+part+".narinfo", "anybody")
	f("GET", "/open/"+dep.Info.StorePath.HashPart().String()+".narinfo", "anybody")
	f("GET", "/shut/"+part+".narinfo", "puller")
	f("GET", "/shut/"+part+".narinfo", "anybody")
	f("GET", "/open/00bgd045z0d4icpbc2yyz4gx48ak44la.narinfo", "anybody")
	f("GET", "/open/"+url, "anybody")
	f("HEAD", "/open/"+url, "anybody")
	f("GET", "/shut/"+url, "puller")
	f("GET", "/open/nar/"+part+".nar", "anybody")
	f("GET", "/open/"+url, "anybody", "Range", "bytes=0-3")
	f("GET", "/open/"+url, "anybody", "Range", "bytes=99999-")
	f("GET", "/_api/v1/cache-config/open", "root")
	f("GET", "/_api/v1/cache-config/absent", "root")
	f("GET", "/_api/v1/cache-config/shut", "anybody")
	f("DELETE", "/_api/v1/cache-config/shut", "puller")
	f("POST", "/_api/v1/cache-config/shut", "root")
	f("GET", "/-bad/nix-cache-info", "anybody")
	f("GET", "/no/such/url", "anybody")
	f("POST", "/open/nix-cache-info", "root")
	f("PATCH", "/_api/v1/cache-config/shut", "root", "Content-Type", "application/json")
	const pins, remove = "/_api/v1/caches/shut/pins", "/_api/v1/caches/shut/delete-paths"
	f("GET", pins, "puller")
	sent = wire.PinRequest{StorePath: pathOf(p), Policy: &wire.PinPolicy{KeepRevisions: 3}}
	f("PUT", pins+"/release/24.05", "root")
	sent = wire.PinRequest{StorePath: pathOf(dep)}
	f("PUT", pins+"/next", "root")
	sent = wire.PinRequest{StorePath: pathOf(dep)}
	f("PUT", pins+"/next", "puller")
	f("GET", pins, "puller")
	f("GET", pins+"/release/24.05", "puller")
	f("GET", pins+"/absent", "puller")
	f("GET", "/_api/v1/caches/shut/stats", "puller")
	f("GET", "/_api/v1/stats", "root")
	sent = wire.DeleteRequest{Paths: []string{part}}
	f("POST", remove, "root")
	f("DELETE", pins+"/release/24.05", "root")
	sent = wire.DeleteRequest{Paths: []string{part}, DryRun: true}
	f("POST", remove, "root")
	sent = wire.DeleteRequest{Paths: []string{part}}
	f("POST", remove, "root")
	f("GET", "/shut/"+part+".narinfo", "puller")
	f("HEAD", "/shut/"+url, "puller")
	f("DELETE", "/_api/v1/cache-config/shut", "root")

	text := got.String()
	for _, blank := range []struct{ pattern, with string }{
		{`FileSize: \d+`, "FileSize: ####"},
		{`X-Request-Id: [0-9a-f]{16}`, "X-Request-Id: ################"},
		{`Etag: "[0-9a-f]{32}"`, `Etag: "################################"`},
		{`Content-Length: \d+`, "Content-Length: ####"},
		{`/\d+\n`, "/####\n"},
		{`"staleness_seconds":[^}]+`, `"staleness_seconds":#`},
		{`"created":"[^"]+"`, `"created":"####"`},
		{`("[a-z_]*(?:file|stored|buried)_bytes"|"saved_by_compression"):-?\d+`, "$1:#"},
	} {
		text = regexp.MustCompile(blank.pattern).ReplaceAllString(text, blank.with)
	}
	const file = "testdata/transcripts.txt"
	if *update {
		must(t, os.WriteFile(file, []byte(text), 0o644))
	}
	want, err := os.ReadFile(file)
	must(t, err)
	if diff := cmp.Diff(string(want), text); diff != "" {
		t.Errorf("answers differ from %s (-want +got):\n%s", file, diff)
	}
}
