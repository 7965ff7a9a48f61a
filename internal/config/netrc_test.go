package config_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/internal/config"
)

func TestSetNetrc(t *testing.T) {
	set := func(in, want string) {
		t.Helper()
		got, changed, err := config.SetNetrc(in, "cache.example", "new")
		if err != nil {
			t.Errorf("from %q: %v", in, err)
			return
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("from %q (-want +got):\n%s", in, diff)
		}
		if changed != (in != want) {
			t.Errorf("from %q: reported changed = %v", in, changed)
		}
		if again, changed, _ := config.SetNetrc(got, "cache.example", "new"); changed || again != got {
			t.Errorf("from %q: not idempotent, second time gives %q", in, again)
		}
	}

	set("", "machine cache.example login celler password new\n")
	set("machine other password x", "machine other password x\nmachine cache.example login celler password new\n")
	set("machine cache.example password old\n", "machine cache.example password new\n")
	set("machine cache.example password new\n", "machine cache.example password new\n")
	set("machine cache.example\n\tlogin me\n\tpassword old # keep\nmachine b password old\n", "machine cache.example\n\tlogin me\n\tpassword new # keep\nmachine b password old\n")
	set("machine cache.example login \"a b\" password \"o \\\" ld\"\n", "machine cache.example login \"a b\" password new\n")
	set("machine cache.example login me\nmachine b password old\n", "machine cache.example password new login me\nmachine b password old\n")
	set("# machine cache.example password no\n", "# machine cache.example password no\nmachine cache.example login celler password new\n")
	set("default login anonymous password me\n", "machine cache.example login celler password new\ndefault login anonymous password me\n")
	set("machine b password default\n", "machine b password default\nmachine cache.example login celler password new\n")
	set("machine b login machine password cache.example\n", "machine b login machine password cache.example\nmachine cache.example login celler password new\n")
	set("macdef init\nmachine cache.example password no\n\nmachine b password x\n", "macdef init\nmachine cache.example password no\n\nmachine b password x\nmachine cache.example login celler password new\n")
	set("machine b password x\nmacdef init\ncd /\n", "machine b password x\nmacdef init\ncd /\n\nmachine cache.example login celler password new\n")
	set("machine cache.example.org password old\n", "machine cache.example.org password old\nmachine cache.example login celler password new\n")
	set("machine cache.example password", "machine cache.example password new password")
}

func TestSetNetrcRefuses(t *testing.T) {
	if got, _, err := config.SetNetrc("machine b password \"open", "cache.example", "new"); err == nil {
		t.Errorf("an open quote swallowed the entry: %q", got)
	}
	for _, password := range []string{"", "two words", "a\nmachine evil", `q"uote`, "#hash"} {
		if got, _, err := config.SetNetrc("", "cache.example", password); err == nil {
			t.Errorf("password %q was accepted: %q", password, got)
		}
	}
}

func FuzzSetNetrc(f *testing.F) {
	f.Add("machine a password b\ndefault login c\n")
	f.Add("macdef x\n\"")
	f.Fuzz(func(t *testing.T, text string) {
		got, _, err := config.SetNetrc(text, "host", "secret")
		if err != nil {
			return
		}
		if again, changed, err := config.SetNetrc(got, "host", "secret"); changed || err != nil || again != got {
			t.Fatalf("from %q: %q is changed again to %q, %v", text, got, again, err)
		}
	})
}

func splitWords(s string) []string { return strings.Fields(strings.SplitN(s, "#", 2)[0]) }

func contains(words []string, word string) bool { return slices.Contains(words, word) }
