package chunk_test

import (
	"testing"

	"github.com/celler/celler/blob/chunk"
)

// FuzzParseProfile: there is one name for each profile, and no profile cuts a chunk
// longer than readers are ready for.
func FuzzParseProfile(f *testing.F) {
	f.Add("fast2016-16k")
	f.Add("fast2016-+16k")
	f.Add("fast2016-256k")
	f.Add("")
	f.Fuzz(func(t *testing.T, name string) {
		p, err := chunk.ParseProfile(name)
		if err != nil {
			return
		}
		if p.String() != name || p.Min <= 0 || p.Min > p.Avg || p.Avg > p.Max || p.Max > chunk.MaxSize {
			t.Errorf("ParseProfile(%q) = %+v", name, p)
		}
	})
}
