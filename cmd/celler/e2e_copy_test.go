//go:build e2e

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestE2ECopyThroughThreeServers pushes with nothing but Nix, each request to another server,
// and substitutes what it has pushed.
func TestE2ECopyThroughThreeServers(t *testing.T) {
	buckets(t, func(t *testing.T, r *rig, bucket string, env []string) {
		var ends []string
		for i := range 3 {
			ends = append(ends, r.serve(t, bucket, filepath.Join(r.dir, fmt.Sprint("local", i)), "", env...).endpoint)
		}
		lb := roundRobin(t, ends...)
		r.login(t, lb)
		netrc := filepath.Join(r.dir, "netrc")
		line := "machine 127.0.0.1 login celler password " + r.token(t, "--pull", "*", "--push", "*") + "\n"
		if err := os.WriteFile(netrc, []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
		top, paths, sums := r.build(t, t.Name())
		keys := map[string]string{}
		for _, compression := range []string{"none", "zstd", "gzip", "lz4"} {
			keys[compression] = r.cache(t, lb, "by-"+compression)
			r.run(t, "nix", "copy", "--option", "netrc-file", netrc, "--to", lb+"/by-"+compression+"?compression="+compression, top)
		}
		for compression, key := range keys {
			r.remove(t, paths)
			r.substitute(t, lb, "by-"+compression, key, top, sums, "--option", "netrc-file", netrc)
		}
		// Once more: there is nothing to send.
		if out, err := r.tryIn(t.Context(), filepath.Join(r.dir, "elsewhere"), "nix", "copy", "--option", "netrc-file", netrc, "--to", lb+"/by-zstd?compression=zstd", top); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		r.remove(t, paths)
	})
}
