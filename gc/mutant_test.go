//go:build mutant

package gc_test

import (
	"bytes"
	"testing"

	"github.com/celler/celler/gc"
	"github.com/celler/celler/internal/catalog"
)

// Each mutant must do harm that somebody would notice; the rules as they are must not.
func TestMutantsAreCaught(t *testing.T) {
	for _, c := range []struct {
		name    string
		mutants gc.Mutants
		harm    func(t *testing.T, m gc.Mutants) bool
	}{
		{"objects are deleted before readers had their grace", gc.Mutants{DeleteBeforeGrace: true}, readerIsCutOff},
		{"NARs are removed that clients may ask for", gc.Mutants{IgnoreGrace: true}, urlIsDead},
		{"uploads are swept that may still be committed", gc.Mutants{SweepEarly: true}, pushIsLost},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.harm(t, gc.Mutants{}) {
				t.Error("harm is done without the mutant")
			}
			if !c.harm(t, c.mutants) {
				t.Error("nobody notices the mutant")
			}
		})
	}
}

func withMutants(m gc.Mutants) func(*gc.Options) { return func(o *gc.Options) { o.Mutants = m } }

// readerIsCutOff reads a NAR by a recipe that it learnt before the last round but one.
func readerIsCutOff(t *testing.T, m gc.Mutants) bool {
	w := mkWorld(t)
	n, reader := w.mkNode(t), w.mkNode(t)
	n.create("main", 10*day)
	n.push("main", "a")
	if err := reader.readBack("main", "a"); err != nil {
		t.Fatal(err)
	}
	p, err := reader.cat.Path(t.Context(), "main", part("a"))
	if err != nil {
		t.Fatal(err)
	}
	recipe, err := reader.cat.Recipe(t.Context(), p.NarHash)
	if err != nil {
		t.Fatal(err)
	}
	c := n.collector(withMutants(m), func(o *gc.Options) { o.NarGrace = -1 })
	sum := gc.Report{}
	for days := 0; sum.Condemned == 0; days++ {
		if sum = n.live(1, c); days > 30 {
			t.Fatal("nothing dies")
		}
	}
	plain, err := reader.chunks.Plain(t.Context(), &recipe)
	if err != nil {
		return true
	}
	_, err = new(bytes.Buffer).ReadFrom(plain)
	if closeErr := plain.Close(); closeErr != nil {
		t.Error(closeErr)
	}
	return err != nil
}

// urlIsDead asks for the NAR of a path that has just left.
func urlIsDead(t *testing.T, m gc.Mutants) bool {
	w := mkWorld(t)
	n := w.mkNode(t)
	n.create("main", 10*day)
	n.push("main", "a")
	p, err := n.cat.Path(t.Context(), "main", part("a"))
	if err != nil {
		t.Fatal(err)
	}
	n.live(13, n.collector(withMutants(m)))
	n.wantPaths("main", "")
	_, err = n.cat.Recipe(t.Context(), p.NarHash)
	return err != nil
}

// A deletion that does not see what has come to need its paths must be missed.
func TestDeletionMutantsAreCaught(t *testing.T) {
	if neededIsDeleted(t, catalog.Mutants{}) {
		t.Error("harm is done without the mutant")
	}
	if !neededIsDeleted(t, catalog.Mutants{NoStaleCheck: true}) {
		t.Error("nobody notices the mutant")
	}
}

// neededIsDeleted has a path pushed that needs what only a path did which is being deleted.
func neededIsDeleted(t *testing.T, m catalog.Mutants) bool {
	w := mkWorld(t)
	w.broken = m
	other := w.mkNode(t)
	other.create("main", 0)
	other.push("main", "libc")
	other.push("main", "lib: libc")
	d := &doorstep{Bucket: w.bucket, after: 2}
	n, err := w.openNode(t, d)
	if err != nil {
		t.Fatal(err)
	}
	d.act = func() { other.push("main", "new: libc") }
	if _, err := n.collector().Delete(t.Context(), gc.DeleteRequest{Cache: "main", Paths: hashParts("lib"), Closure: true}); err != nil {
		t.Fatal(err)
	}
	return other.names("main") != "libc new"
}

// pushIsLost commits a pack after a round that ran while it was uploaded.
func pushIsLost(t *testing.T, m gc.Mutants) bool {
	w := mkWorld(t)
	n, other := w.mkNode(t), w.mkNode(t)
	n.create("main", 0)
	nar := mkNar("a")
	res, err := n.chunks.Write(t.Context(), bytes.NewReader(nar))
	if err != nil {
		t.Fatal(err)
	}
	other.mustRound(other.collector(withMutants(m)))
	_, err = n.cat.Publish(t.Context(), catalog.Publication{
		Path:   catalog.Path{Cache: "main", StorePath: mkPath("a"), NarHash: res.Recipe.NarHash, NarSize: res.PlainBytes},
		Recipe: res.Recipe, Packs: res.Packs,
	})
	if err != nil {
		t.Fatal(err)
	}
	w.nars["a"] = nar
	return w.mkNode(t).readBack("main", "a") != nil
}
