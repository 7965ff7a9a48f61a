package main

import (
	"strings"
	"testing"
)

const (
	pinPath     = "/nix/store/" + hashPart + "-app"
	pinsRequest = " /_api/v1/caches/ci/pins"
	onePin      = `{"name":"main","policy":{"keep_revisions":3},"revision":7,"store_path":"` + pinPath + `","created":"2020-01-01T00:00:00Z","created_by":"robot","waiting":false,"kept":3,` +
		`"closure":{"paths":12,"nar_bytes":4096,"file_bytes":2048},"only":{"paths":2,"nar_bytes":2048,"file_bytes":1024}}`
	waitingPin = `{"name":"next","policy":{},"revision":1,"store_path":"` + pinPath + `","created":"2020-01-01T00:00:00Z","waiting":true,"kept":1}`
)

func TestPinCommands(t *testing.T) {
	api, url := mustAPI(t, map[string]string{
		"GET" + pinsRequest:                     `200 {"pins":[` + onePin + `,` + waitingPin + `]}`,
		"PUT" + pinsRequest + "/main":           "200 " + onePin,
		"PUT" + pinsRequest + "/release/24.05":  "200 " + waitingPin,
		"GET" + pinsRequest + "/main":           `200 {"pin":` + onePin + `,"revisions":[{"revision":7,"store_path":"` + pinPath + `","kept":true},{"revision":6,"store_path":"/nix/store/x","kept":false}]}`,
		"DELETE" + pinsRequest + "/main":        "200 ",
		"DELETE" + pinsRequest + "/other":       `404 {"error":"NoSuchPin","message":"The cache has no such pin."}`,
		"PUT /_api/v1/caches/nosuch/pins/main":  noSuchCache,
		"PUT /_api/v1/caches/barred/pins/main":  `403 {"error":"AccessError","message":"no"}`,
		"GET /_api/v1/caches/empty/pins":        `200 {"pins":[]}`,
		"GET /_api/v1/caches/attic/pins/main":   `404 {"error":"NotFound","message":"The URL you requested was not found."}`,
		"DELETE /_api/v1/caches/ci/pins/absent": `404 {"error":"NoSuchPin","message":"The cache has no such pin."}`,
	})
	check := func(wantCode int, wantOut, wantErr string, args ...string) {
		t.Helper()
		code, out, errs := command("", append([]string{"pin"}, args...)...)
		if code != wantCode || !strings.Contains(out, wantOut) || !strings.Contains(errs, wantErr) {
			t.Errorf("celler pin %s: exit %d\nstdout %s\nstderr %s\nwant %d, %q and %q", strings.Join(args, " "), code, out, errs, wantCode, wantOut, wantErr)
		}
	}
	sent := func(request, want string) {
		t.Helper()
		if got := api.bodies[request]; got != want {
			t.Errorf("%s was sent %s, want %s", request, got, want)
		}
		delete(api.bodies, request)
	}
	const main = "PUT" + pinsRequest + "/main"
	check(exitDone, "", `pin main of cache "ci" is `+pinPath+" (revision 7)", "add", url+"/ci", "main", pinPath)
	sent(main, `{"store_path":"`+pinPath+`"}`)
	check(exitDone, `"revision":7,"revisions_kept":3,"store_path":"`, "", "add", "--json", url+"/ci", "main", pinPath, "--keep-revisions", "3", "--keep-days=9")
	sent(main, `{"store_path":"`+pinPath+`","policy":{"keep_revisions":3,"keep_days":9}}`)
	check(exitDone, "", "", "add", url+"/ci", "main", pinPath, "--keep-forever")
	sent(main, `{"store_path":"`+pinPath+`","policy":{"keep_forever":true}}`)
	check(exitDone, "", "waits for "+pinPath+", which is not there yet", "add", url+"/ci", "release/24.05", pinPath)

	check(exitDone, "main  7         3 revisions  ", "", "list", url+"/ci")
	check(exitDone, "robot  2.0 KiB in 12  1.0 KiB in 2  "+pinPath+"\n", "", "list", url+"/ci")
	check(exitDone, "  -             "+pinPath+" (waiting)\n", "", "list", url+"/ci")
	check(exitDone, `"only_file_bytes":1024`, "", "list", "--json", url+"/ci")
	check(exitDone, "", `cache "empty" has no pins`, "list", url+"/empty")
	check(exitDone, "dropped", "", "history", url+"/ci", "main")
	check(exitDone, `"kept":false,"pin":"main","revision":6`, "", "history", "--json", url+"/ci", "main")

	check(exitDone, "", "would remove pin main with 2 revisions; 2 paths (1.0 KiB) would be kept by no pin then", "remove", "--dry-run", url+"/ci", "main")
	check(exitDone, "", `removed pin main from cache "ci"`, "remove", url+"/ci", "main")
	check(exitPartly, "", "1 pin done, 1 failed", "remove", url+"/ci", "main", "absent")
	check(exitFailed, "", `celler: pin remove: absent: cache "ci" has no such pin`+"\nhint: \"celler pin list "+url+"/ci\" says which there are", "remove", url+"/ci", "absent")

	check(exitFailed, "", `cache "nosuch" does not exist`, "add", url+"/nosuch", "main", pinPath)
	check(exitFailed, "", `the token does not allow this on cache "barred"`+"\nhint: pinning is a right of its own", "add", url+"/barred", "main", pinPath)
	check(exitFailed, "", "not every server of Attic's kind can do this", "history", url+"/attic", "main")
	check(exitUsage, "", "expected letters, digits", "add", url+"/ci", "no spaces", pinPath)
	check(exitUsage, "", `that is not ".."`, "remove", url+"/ci", "a/../b")
	check(exitUsage, "", "--keep-revisions", "add", url+"/ci", "main", pinPath, "--keep-revisions=-1")
}

func TestPushPinUsage(t *testing.T) {
	_, url := mustAPI(t, nil)
	check := func(want string, args ...string) {
		t.Helper()
		if code, _, errs := command("", append([]string{"push", url + "/ci"}, args...)...); code != exitUsage || !strings.Contains(errs, want) {
			t.Errorf("celler push %s: exit %d\n%s\nwant usage error %q", strings.Join(args, " "), code, errs, want)
		}
	}
	check("1 pin for 2 paths: a pin holds one path\nhint: give one --pin for each path", "a", "b", "--pin", "main")
	check("hint: name it with --pin NAME", "a", "--keep-days", "3")
	check("pin name", "a", "--pin", "a b")
}

func TestStats(t *testing.T) {
	const growth = `"growth":[{"day":9,"added_paths":1,"added_nar_bytes":2048,"removed_paths":8,"removed_nar_bytes":1024},{"day":8,"ended":"2021-01-01T00:00:00Z","added_paths":6,"added_nar_bytes":4096,"removed_paths":0,"removed_nar_bytes":0}]`
	const cache = `{"cache":"ci","paths":2,"nar_bytes":4096,"file_bytes":1024,"new_bytes":2048,"new_stored_bytes":512,"oldest_use":{"store_path":"` + pinPath + `","until":"2020-01-01T00:00:00Z"},` +
		`"growth":[{"day":4,"added_paths":2,"added_nar_bytes":4096,"removed_paths":1,"removed_nar_bytes":7},{"day":3,"ended":"2020-01-01T00:00:00Z","added_paths":1,"added_nar_bytes":0,"removed_paths":0,"removed_nar_bytes":0}]}`
	_, url := mustAPI(t, map[string]string{
		"GET /_api/v1/caches/ci/stats": "200 " + cache,
		"GET /_api/v1/stats":           `200 {"store":{"paths":9,"nar_bytes":8192,"unique_bytes":4096,"chunks":5,"stored_bytes":1024,"objects":1,"saved_by_dedup":4096,"saved_by_compression":3072,` + growth + `},"caches":[` + cache + `]}`,
	})
	check := func(wantOut, wantErr string, args ...string) {
		t.Helper()
		code, out, errs := command("", append([]string{"stats"}, args...)...)
		if code != exitDone || !strings.Contains(out, wantOut) || !strings.Contains(errs, wantErr) {
			t.Errorf("celler stats %s: exit %d\nstdout %s\nstderr %s\nwant %q and %q", strings.Join(args, " "), code, out, errs, wantOut, wantErr)
		}
	}
	check("Served:      1.0 KiB (25%)", "", url+"/ci")
	check("2020-01-01 00:00:00  +1     0 B      -0     0 B", "", url+"/ci")
	check(`"nar_bytes":4096`, "", "--json", url+"/ci")
	check("Unique:        4.0 KiB in 5 chunks; dedup saves 4.0 KiB", "", "--server", url)
	check("Stored:        1.0 KiB in 1 object; compression saves 3.0 KiB", "", "--server", url)
	check("2021-01-01 00:00:00  +6     4.0 KiB  -0     0 B", "", "--server", url)
	check("now                  +1     2.0 KiB  -8     1.0 KiB", "", "--server", url)
	check(`"saved_by_dedup":4096`, "", "--json", "--server", url)
	check(growth, "", "--json", "--server", url)
	if code, _, errs := command("", "stats", url+"/ci", "--server", url); code != exitUsage || !strings.Contains(errs, "exclude each other") {
		t.Errorf("exit %d: %s", code, errs)
	}
}
