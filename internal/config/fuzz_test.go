package config_test

import (
	"testing"

	"github.com/celler/celler/internal/config"
)

func FuzzParseBytes(f *testing.F) {
	for _, seed := range []string{"0", "8MiB", "10 GB", "1.5k", "-1", "1e9", "99999999TiB"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		b, err := config.ParseBytes(text)
		if err != nil {
			return
		}
		if b < 0 {
			t.Fatalf("ParseBytes(%q) = %d", text, int64(b))
		}
		if again, err := config.ParseBytes(b.String()); err != nil || again != b {
			t.Fatalf("%q is %d, printed %q, which is %d, %v", text, int64(b), b, int64(again), err)
		}
	})
}

func FuzzParseSpan(f *testing.F) {
	for _, seed := range []string{"0", "30s", "2years 2min", "1h30m", "12 hours", "1..2s", "292years"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := config.ParseSpan(text)
		if err != nil {
			return
		}
		if s < 0 {
			t.Fatalf("ParseSpan(%q) = %d", text, int64(s))
		}
		// Printing rounds nothing, reading may: the parts of a long span are added as floats.
		if again, err := config.ParseSpan(s.String()); err != nil || max(again-s, s-again) > s/1e12 {
			t.Fatalf("%q is %d, printed %q, which is %d, %v", text, int64(s), s, int64(again), err)
		}
	})
}

// A server.toml that is read never makes the reader panic, and says where it is wrong.
func FuzzLoadFile(f *testing.F) {
	f.Add([]byte("listen = \"x\"\n"))
	f.Add([]byte(atticLocal))
	f.Fuzz(func(t *testing.T, body []byte) {
		file, err := config.ParseFile(config.NewEnv(nil), "fuzz.toml", body)
		if (file == nil) == (err == nil) {
			t.Fatalf("got %v and %v", file, err)
		}
	})
}
