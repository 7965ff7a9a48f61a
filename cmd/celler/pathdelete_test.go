package main

import (
	"strings"
	"testing"
	"time"
)

const deleteRequest = "POST /_api/v1/caches/ci/delete-paths"

func TestPathDelete(t *testing.T) {
	const path = "/nix/store/" + hashPart + "-hello"
	goneBy := time.Now().Add(72 * time.Hour).UTC().Format(time.RFC3339)
	report := func(rest string) string {
		return `200 {"paths":[{"store_path":"` + path + `","nar_bytes":2048,"freed_bytes":1024}],"freed_bytes":1024` + rest + `}`
	}
	check := func(answer string, wantCode int, wantBody string, wantErr []string, args ...string) {
		t.Helper()
		api, url := mustAPI(t, map[string]string{deleteRequest: answer, "GET" + pathsRequest + "/" + hashPart: `404 {"error":"NoSuchObject","message":"no"}`})
		code, out, errs := command("", append([]string{"path", "delete", url + "/ci"}, args...)...)
		if code != wantCode || api.bodies[deleteRequest] != wantBody {
			t.Errorf("%v: exit %d, sent %s; want %d, %s\n%s%s", args, code, api.bodies[deleteRequest], wantCode, wantBody, out, errs)
		}
		for _, want := range wantErr {
			if !strings.Contains(errs, want) {
				t.Errorf("%v: %s\nwant %q", args, errs, want)
			}
		}
	}
	body := func(rest string) string { return `{"paths":["` + hashPart + `"]` + rest + `}` }

	check(report(`,"gone_by":"`+goneBy+`"`), exitDone, body(""), []string{
		"deleted " + path, `deleted 1 path (2.0 KiB) from cache "ci"; 1.0 KiB in the bucket are freed, what else they take is shared and stays`, "what nothing else shares is gone from the bucket by ", "(in 3 days)",
	}, path)
	check(report(""), exitDone, body(`,"closure":true,"dry_run":true,"now":true`), []string{"would delete " + path}, hashPart, "--closure", "--now", "--dry-run")
	check(report(`,"referrers":["/nix/store/x-y"],"elsewhere":["b"],"hidden_elsewhere":2`), exitDone, body(""), []string{
		"/nix/store/x-y stays and refers to what is deleted", "in other caches, where it stays: b, and 2 caches that you may not see",
	}, hashPart)
	check(report(`,"hidden_elsewhere":1`), exitDone, body(""), []string{"where it stays: 1 cache that you may not see"}, hashPart)

	check(report(`,"former_nars":1,"closure_unknown":["`+hashPart+`"],"waiting":["one","two"]`), exitDone, body(`,"closure":true,"now":true`), []string{
		`cache "ci" does not have any more only their own NARs are hurried, not what they referred to, which is not known: ` + hashPart + "\n",
		"name those that are to go now as well (\"celler path delete --now http://", "/ci HASH…\"): one two\n",
	}, hashPart, "--closure", "--now")

	// What is no path is known before anything is deleted.
	check(report(""), exitUsage, "", []string{"\"nonsense\" is no store path", "hint: nothing was deleted"}, hashPart, "nonsense")
	check(`404 {"error":"NoSuchObject","message":"no"}`, exitFailed, body(""), []string{
		hashPart + ` is not in cache "ci"`, "hint: nothing was deleted; \"celler path list http://",
	}, hashPart)
	check(`409 {"error":"Pinned","message":"Path X is kept by pin \"main\"."}`, exitFailed, body(""), []string{
		`celler: path delete: path X is kept by pin "main"` + "\n", "/ci NAME\", or move it",
	}, hashPart)
}

func TestPathDeleteJSON(t *testing.T) {
	_, url := mustAPI(t, map[string]string{deleteRequest: `200 {"paths":[],"freed_bytes":7}`})
	if code, out, errs := command("", "path", "delete", "--json", url+"/ci", hashPart); code != exitDone || out != `{"paths":[],"freed_bytes":7}`+"\n" || errs != "" {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
}
