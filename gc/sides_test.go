package gc_test

import (
	"testing"

	"github.com/celler/celler/internal/catalog"
)

// TestLogsLiveAsLongAsTheirPaths gives a path a log, a realisation and a URL of plain Nix,
// and lets it expire.
func TestLogsLiveAsLongAsTheirPaths(t *testing.T) {
	w := mkWorld(t)
	n := w.mkNode(t)
	ctx := t.Context()
	c := n.collector()
	n.create("main", 20*day)
	n.push("main", "app")
	n.push("main", "other")
	put := func(kind catalog.SideKind, name string, owner catalog.OwnerKind, of [32]byte) {
		t.Helper()
		up := catalog.SideUpload{Cache: "main", Side: catalog.Side{Kind: kind, Name: name, OwnerKind: owner, Owner: of}}
		if _, err := n.cat.PutSide(ctx, up); err != nil {
			t.Fatal(err)
		}
	}
	put(catalog.SideLog, "app.drv", catalog.OwnerNone, [32]byte{})
	put(catalog.SideBuildTrace, "app.drv/out.doi", catalog.OwnerPath, catalog.PathOwner(part("app")))
	put(catalog.SideBuildTrace, "other.drv/out.doi", catalog.OwnerPath, catalog.PathOwner(part("other")))
	p, err := n.cat.Path(ctx, "main", part("app"))
	if err != nil {
		t.Fatal(err)
	}
	recipe, err := n.cat.Recipe(ctx, p.NarHash)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.cat.CommitUpload(ctx, catalog.NarUpload{Cache: "main", FileHash: [32]byte{1}, Compression: "xz", Recipe: recipe}); err != nil {
		t.Fatal(err)
	}
	there := func(want bool, what string, err error) {
		t.Helper()
		if (err == nil) != want {
			t.Errorf("%s: %v, want it to be there: %v", what, err, want)
		}
	}
	look := func(log, trace, other, upload bool) {
		t.Helper()
		_, err := n.cat.Side(ctx, "main", catalog.SideLog, "app.drv")
		there(log, "log", err)
		_, err = n.cat.Side(ctx, "main", catalog.SideBuildTrace, "app.drv/out.doi")
		there(trace, "build trace", err)
		_, err = n.cat.Side(ctx, "main", catalog.SideBuildTrace, "other.drv/out.doi")
		there(other, "build trace of what is used", err)
		_, err = n.cat.Upload(ctx, "main", [32]byte{1})
		there(upload, "upload", err)
	}
	for range 3 {
		n.use("main", "app", "other")
		n.live(6, c)
	}
	look(true, true, true, true)
	n.use("main", "other")
	n.live(19, c) // app was last used 25 days ago; the log of a derivation that nobody names is as old as the cache keeps
	n.wantPaths("main", "other")
	look(false, false, true, true)
	n.use("main", "other")
	n.live(12, c)
	look(false, false, true, false)
	if rep := n.mustRound(c); !rep.Idle() {
		t.Errorf("there is always something to do: %+v", rep)
	}
}
