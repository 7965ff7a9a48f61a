package chunkstore

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// TestCopiesBounded keeps more copies than there may be, all of them tiny: what is
// known of each is in memory.
func TestCopiesBounded(t *testing.T) {
	dir := t.TempDir()
	c, err := openResident(dir, 10<<30, time.Now, newStoreMetrics(metrics.NewSet()))
	if err != nil {
		t.Fatal(err)
	}
	c.copies = 10
	etag := func(i int) string { return fmt.Sprintf("%032x", i) }
	for i := range 15 {
		a := c.begin("")
		if !a.write([]byte{1}) {
			t.Fatal("a copy was not written")
		}
		a.admit(etag(i), 1)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 10 || len(c.items) != 10 {
		t.Errorf("%d files and %d entries, %v; want 10 of each", len(files), len(c.items), err)
	}
	for i, want := range map[int]bool{4: false, 5: true, 14: true} {
		f := c.open(etag(i), 1)
		if (f != nil) != want {
			t.Errorf("copy %d: there %v, want %v", i, f != nil, want)
		}
		if f != nil {
			f.Close()
		}
	}
}
