package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/celler/celler/internal/config"
)

// fakeAPI answers each "METHOD path" with a status and a body, and records requests.
type fakeAPI struct {
	answers map[string]string // "status body"
	bodies  map[string]string
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key := r.Method + " " + r.URL.Path
	body, _ := io.ReadAll(r.Body)
	f.bodies[key] = string(body)
	answer, ok := f.answers[key]
	if !ok {
		answer = `404 {"code":404,"error":"NotFound","message":"The URL you requested was not found."}`
	}
	status, text, _ := strings.Cut(answer, " ")
	var code int
	_, _ = fmt.Sscan(status, &code)
	w.WriteHeader(code)
	_, _ = io.WriteString(w, text)
}

// mustAPI serves answers and returns the fake with its address.
func mustAPI(t *testing.T, answers map[string]string) (*fakeAPI, string) {
	t.Helper()
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Setenv("CELLER_TOKEN", "secret")
	f := &fakeAPI{answers: answers, bodies: map[string]string{}}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	return f, server.URL
}

// command runs a command line as main would.
func command(stdin string, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run("celler", args, strings.NewReader(stdin), &out, &errs)
	return code, out.String(), errs.String()
}

const (
	cacheObject   = `200 {"substituter_endpoint":"https://h/ci","api_endpoint":"https://h/","public_key":"ci:AAAA","is_public":false,"store_dir":"/nix/store","priority":41,"upstream_cache_key_names":["cache.nixos.org-1"],"retention_period":"Global"}`
	noSuchCache   = `404 {"code":404,"error":"NoSuchCache","message":"The requested cache does not exist."}`
	configRequest = " /_api/v1/cache-config/ci"
	pathsRequest  = " /_api/v1/caches/ci/paths"
	hashPart      = "00bgd045z0d4icpbc2yyz4gx48ak44la"
)

func TestCacheCommands(t *testing.T) {
	api, url := mustAPI(t, map[string]string{
		"POST" + configRequest: "200 ", "GET" + configRequest: cacheObject, "PATCH" + configRequest: "200 ", "DELETE" + configRequest: "200 ",
		"GET /_api/v1/caches": `200 {"caches":[{"name":"ci","is_public":true,"priority":41,"public_key":"ci:AAAA","permissions":["pull","push"]}]}`,
		"GET" + pathsRequest:  `200 {"paths":[{"store_path":"/nix/store/` + hashPart + `-hello","nar_size":1024,"file_size":512}]}`,
	})
	ok := func(wantOut, wantErr string, args ...string) {
		t.Helper()
		code, out, errs := command("ci\n", args...)
		if code != exitDone || !strings.Contains(out, wantOut) || !strings.Contains(errs, wantErr) {
			t.Errorf("celler %s: exit %d\nstdout %s\nstderr %s\nwant %q and %q", strings.Join(args, " "), code, out, errs, wantOut, wantErr)
		}
	}
	sent := func(request, want string) {
		t.Helper()
		if got := api.bodies[request]; got != want {
			t.Errorf("%s was sent %s, want %s", request, got, want)
		}
		delete(api.bodies, request)
	}
	ok("ci:AAAA\n", `created cache "ci"`, "cache", "create", url+"/ci", "--public", "--upstream-cache-key-name", "")
	sent("POST"+configRequest, `{"keypair":"Generate","is_public":true,"store_dir":"/nix/store","priority":41,"upstream_cache_key_names":[]}`)
	ok("ci:AAAA\n", "", "cache", "info", url+"/ci")
	ok(`"public_key":"ci:AAAA"`, "", "cache", "info", url+"/ci", "--json")
	ok("pull,push", "", "cache", "list", url)
	ok(`"permissions":["pull","push"]`, "", "cache", "list", url, "--json")
	ok("", `changed cache "ci": private, retention`, "cache", "configure", url+"/ci", "--private", "--retention-period", "2d")
	sent("PATCH"+configRequest, `{"is_public":false,"retention_period":{"Period":172800}}`)
	ok("", "would destroy", "cache", "destroy", url+"/ci", "--dry-run")
	ok("", `destroyed cache "ci"`, "cache", "destroy", url+"/ci")
	ok("", `destroyed cache "ci"`, "cache", "destroy", url+"/ci", "--no-confirm")
}

// What is not there is not asked about.
func TestDestroyNothing(t *testing.T) {
	_, url := mustAPI(t, map[string]string{"GET" + configRequest: noSuchCache})
	code, _, errs := command("", "cache", "destroy", url+"/ci")
	if code != exitFailed || !strings.HasPrefix(errs, `celler: cache destroy: cache "ci" does not exist`) {
		t.Errorf("exit %d\n%s", code, errs)
	}
}

func TestVersionFlag(t *testing.T) {
	_, want, _ := command("", "version")
	for _, flag := range []string{"--version", "-V"} {
		if code, out, errs := command("", flag); code != exitDone || out != want || errs != "" {
			t.Errorf("%s: exit %d, %q, %q, want %q", flag, code, out, errs, want)
		}
	}
}

// A token that no request can carry is refused where it is read, and not shown.
func TestBrokenToken(t *testing.T) {
	_, url := mustAPI(t, map[string]string{"GET" + configRequest: cacheObject})
	t.Setenv("CELLER_TOKEN", "secret\n")
	if code, _, errs := command("", "cache", "info", url+"/ci"); code != exitDone {
		t.Errorf("a newline at the end: exit %d\n%s", code, errs)
	}
	t.Setenv("CELLER_TOKEN", "sec\nret")
	code, _, errs := command("", "cache", "info", url+"/ci")
	if code != exitFailed || errs != "celler: cache info: the token that is configured holds a line break or another control character\nhint: a token is one line; is there something before or behind it?\n" {
		t.Errorf("a newline inside: exit %d\n%s", code, errs)
	}
}

// A file that holds no secret key is named, and never sent.
func TestKeyFiles(t *testing.T) {
	api, url := mustAPI(t, map[string]string{"PATCH" + configRequest: "200 ", "POST" + configRequest: "200 "})
	check := func(body, want string) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, verb := range []string{"configure", "create"} {
			code, _, errs := command("", "cache", verb, url+"/ci", "--key-file", path)
			if code != exitUsage || !strings.Contains(errs, path+" "+want) || !strings.Contains(errs, "\nhint: ") {
				t.Errorf("%s with key file %q: exit %d, %s", verb, body, code, errs)
			}
		}
	}
	check("nonsense\n", "is not NAME:BASE64 of 64 bytes")
	check("name:AAAA\n", "is not NAME:BASE64 of 64 bytes")
	check(":"+base64.StdEncoding.EncodeToString(make([]byte, 64)), "is not NAME:BASE64 of 64 bytes")
	check("name:"+base64.StdEncoding.EncodeToString(make([]byte, 32))+"\n", "holds the public key")
	if len(api.bodies) > 0 {
		t.Errorf("requests were made: %v", api.bodies)
	}
	key := "name:" + base64.StdEncoding.EncodeToString(make([]byte, 64))
	if code, _, errs := command(key+"\n", "cache", "configure", url+"/ci", "--key-file", "-"); code != exitDone || !strings.Contains(api.bodies["PATCH"+configRequest], key) {
		t.Errorf("key from standard input: exit %d, %s, sent %v", code, errs, api.bodies)
	}
}

// TestExpiredToken is told of, since the server goes on as if there were none.
func TestExpiredToken(t *testing.T) {
	_, url := mustAPI(t, map[string]string{"GET /_api/v1/caches": `200 {"caches":[]}`, "GET" + configRequest: cacheObject})
	t.Setenv("CELLER_TOKEN", "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjEwMDAwMDAwMDAsInN1YiI6Im1lb3ciLCJodHRwczovL2p3dC5hdHRpYy5ycy92MSI6eyJjYWNoZXMiOnsiKiI6eyJyIjoxfX19fQ.AAAA")
	for _, args := range [][]string{{"cache", "list", url}, {"cache", "info", url + "/ci"}} {
		if code, _, errs := command("", args...); code != exitDone || !strings.Contains(errs, "celler: warning: this token expired at 2001-09-09T01:46:40Z\n") {
			t.Errorf("celler %s: exit %d, %q", strings.Join(args, " "), code, errs)
		}
	}
}

func TestPathCommands(t *testing.T) {
	object := `{"store_path":"/nix/store/` + hashPart + `-hello","nar_hash":"sha256:xyz","nar_size":1024,"file_size":512,"references":["a"],"sigs":["k:s"]}`
	_, url := mustAPI(t, map[string]string{
		"GET" + pathsRequest:                                 `200 {"paths":[` + object + `]}`,
		"GET" + pathsRequest + "/" + hashPart:                "200 " + object,
		"GET" + pathsRequest + "/" + strings.Repeat("0", 32): `404 {"code":404,"error":"NoSuchObject","message":"no"}`,
	})
	check := func(wantCode int, wantOut, wantErr string, args ...string) {
		t.Helper()
		code, out, errs := command("", args...)
		if code != wantCode || !strings.Contains(out, wantOut) || !strings.Contains(errs, wantErr) {
			t.Errorf("celler %s: exit %d\nstdout %s\nstderr %s\nwant %d, %q and %q", strings.Join(args, " "), code, out, errs, wantCode, wantOut, wantErr)
		}
	}
	check(exitDone, "/nix/store/"+hashPart+"-hello\n", "", "path", "list", url+"/ci")
	check(exitDone, "1.0 KiB", "", "path", "list", "-l", url+"/ci")
	check(exitDone, `"nar_bytes":1024`, "", "path", "list", "--json", url+"/ci")
	check(exitDone, "sha256:xyz", "", "path", "info", url+"/ci", hashPart)
	check(exitUsage, "", "no store path", "path", "info", url+"/ci", "nonsense")
	absent := strings.Repeat("0", 32)
	check(exitFailed, "", absent+` is not in cache "ci"`+"\nhint: \"celler path list "+url+"/ci\" says what there is", "path", "info", url+"/ci", absent)
}

// TestRemoteErrors: the sentence names the thing, and the hint is the next thing to type.
func TestRemoteErrors(t *testing.T) {
	check := func(answer, wantSentence, wantHint string, args ...string) {
		t.Helper()
		_, url := mustAPI(t, map[string]string{"GET" + configRequest: answer, "POST" + configRequest: answer})
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "URL", url)
		}
		code, out, errs := command("", args...)
		wantHint = strings.ReplaceAll(wantHint, "URL", url)
		if code != exitFailed || out != "" || !strings.Contains(errs, "celler: "+strings.Join(args[:2], " ")+": "+wantSentence) || !strings.Contains(errs, "\nhint: "+wantHint) {
			t.Errorf("answer %s: exit %d\n%s\nwant %q, hint %q", answer, code, errs, wantSentence, wantHint)
		}
	}
	check(noSuchCache, `cache "ci" does not exist`, `create it with "celler cache create URL/ci"`, "cache", "info", "URL/ci")
	check(`400 {"code":400,"error":"CacheAlreadyExists","message":"The cache already exists."}`, `cache "ci" exists already`, "to change it", "cache", "create", "URL/ci")
	check(`401 {"code":401,"error":"Unauthorized","message":"Unauthorized."}`, "http://", "see what it says", "cache", "info", "URL/ci")
	check(`403 {"code":403,"error":"AccessError","message":"no"}`, "the token does not allow this", "see what it allows", "cache", "info", "URL/ci")
	check(`507 {"code":507,"error":"Unavailable","message":"The server's storage is full."}`, "GET ", "make room where ", "cache", "info", "URL/ci")
	check(`413 <html>`, "something in front of", "raise the proxy's limit", "cache", "info", "URL/ci")
}

func TestUsage(t *testing.T) {
	_, url := mustAPI(t, nil)
	check := func(stdin, want string, args ...string) {
		t.Helper()
		if code, _, errs := command(stdin, args...); code != exitUsage || !strings.Contains(errs, want) {
			t.Errorf("celler %s: exit %d\n%s\nwant usage error %q", strings.Join(args, " "), code, errs, want)
		}
	}
	check("", "no paths to push", "push", "ci")
	check("./one\n"+strings.Repeat("x", 70_000), "line 2 of standard input is longer", "push", "ci", "--stdin")
	check("", "one or the other", "push", "ci", "--stdin", "./result")
	check("", "expected a positive number", "push", "ci", "./result", "--jobs=-1")
	check("", "nothing to change", "cache", "configure", url+"/ci")
	check("", "can't be used together", "cache", "configure", url+"/ci", "--public", "--private")
	check("other\n", `expected "ci"`, "cache", "destroy", url+"/ci")
	check("", "nobody answered", "cache", "destroy", url+"/ci")
	check("", "--at: is given, but empty", "serve", "--bucket", "mem:", "--at", "")
	check("", "--at: is given, but empty", "bookmark", "add", "--bucket", "mem:", "name", "--at=")
	check("", "--since: is given, but empty", "log", "show", "--bucket", "mem:", "--since", " ")
	check("", "--until: is given, but empty", "log", "show", "--bucket", "mem:", "--until=")
	check("", "--at: is given, but empty", "restore", "--bucket", "mem:", "--at=")
	check("", "--cache: is given, but empty", "restore", "--bucket", "mem:", "--at=1", "--cache", "")
}

// TestKeyOfAnIncludedFile: a key that another file trusts cannot be replaced in this one, and
// that is said.
func TestKeyOfAnIncludedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nix.conf")
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "more.conf"), []byte("trusted-public-keys = ci:old\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	conf := config.ParseNixConf("include more.conf\n")
	conf.Follow(path)
	err := (&useCmd{ReplaceKey: true}).trust(conf, path, "ci:new")
	if err == nil || !strings.Contains(err.Error(), `includes trusts another key named "ci"`) {
		t.Errorf("got %v", err)
	}
	if err := (&useCmd{}).trust(conf, path, "other:new"); err != nil || !slices.Contains(conf.Words("trusted-public-keys"), "other:new") {
		t.Errorf("a key of another name: %v, %v", err, conf)
	}
}
