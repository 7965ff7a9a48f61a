package index

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/celler/celler/wal"
)

// holdDir names the variable that turns the test binary into another process
// which opens the index in the directory it names.
const holdDir = "CELLER_INDEX_TEST_OPEN"

func TestMain(m *testing.M) {
	if dir := os.Getenv(holdDir); dir != "" {
		db, err := Open(dir, wal.StoreID{1}, Options{})
		if err != nil {
			os.Stdout.WriteString(err.Error())
			os.Exit(1)
		}
		_ = db.Close()
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}
