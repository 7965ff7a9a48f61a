package node_test

import (
	"path/filepath"
	"testing"

	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/internal/node"
)

// fsck reads a bucket from end to end and returns what it found.
func fsck(t *testing.T, cfg config.Config, repair bool) (rep node.FsckReport, found []node.FsckFinding) {
	t.Helper()
	rep, err := node.Fsck(t.Context(), cfg, node.FsckRequest{Objects: true, Read: node.FsckRead{All: true}, Repair: repair, Version: "test", Each: func(f node.FsckFinding) error {
		found = append(found, f)
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return rep, found
}

// TestFsckGolden checks the buckets that this version and earlier ones have written. Those
// from before anything was counted lack counts, which a repair makes, and nothing else.
func TestFsckGolden(t *testing.T) {
	tars, err := filepath.Glob(filepath.Join("testdata", "buckets", "*.tar"))
	if err != nil || len(tars) == 0 {
		t.Fatalf("no buckets in testdata: %v", err)
	}
	for _, name := range tars {
		t.Run(filepath.Base(name), func(t *testing.T) {
			cfg := mkConfig(t)
			cfg.Bucket = t.TempDir()
			cfg.LogBucket, cfg.DataBucket = cfg.Bucket, cfg.Bucket
			untar(t, name, cfg.Bucket)
			rep, found := fsck(t, cfg, false)
			for _, f := range found {
				if f.Kind != "count" || filepath.Base(name) != "1.tar" {
					t.Errorf("found %+v", f)
				}
			}
			if rep.Paths == 0 || rep.Objects == 0 || rep.Read != rep.Objects || rep.Tables == 0 || rep.ReadTables != rep.Tables {
				t.Errorf("it looked at %+v", rep)
			}
			if rep, _ = fsck(t, cfg, true); !rep.Sound() && (rep.Repair.Left > 0 || rep.Repair.Paths > 0) {
				t.Errorf("repaired %+v", rep.Repair)
			}
			if rep, found = fsck(t, cfg, false); !rep.Sound() {
				t.Errorf("after a repair: %+v", found)
			}
			st, err := node.ScrubStatus(t.Context(), cfg, "test")
			if _, all := st.Within(); err != nil || !all || st.Objects != rep.Objects {
				t.Errorf("status %+v, %v", st, err)
			}
		})
	}
}

// TestFsckNothing checks places where nothing is.
func TestFsckNothing(t *testing.T) {
	cfg := mkConfig(t)
	cfg.Bucket = t.TempDir()
	cfg.LogBucket, cfg.DataBucket = cfg.Bucket, cfg.Bucket
	if _, err := node.Fsck(t.Context(), cfg, node.FsckRequest{}); err == nil {
		t.Error("an empty directory was checked")
	}
}
