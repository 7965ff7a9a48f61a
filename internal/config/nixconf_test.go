package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/internal/config"
)

func TestNixConfAddWord(t *testing.T) {
	add := func(in, want string) {
		t.Helper()
		n := config.ParseNixConf(in)
		changed := n.AddWord("substituters", "http://c/ci")
		if diff := cmp.Diff(want, n.String()); diff != "" {
			t.Errorf("from %q (-want +got):\n%s", in, diff)
		}
		if changed != (in != want) {
			t.Errorf("from %q: reported changed = %v", in, changed)
		}
		again := config.ParseNixConf(n.String())
		if again.AddWord("substituters", "http://c/ci") {
			t.Errorf("from %q: not idempotent, second time gives %q", in, again.String())
		}
	}

	add("", "extra-substituters = http://c/ci\n")
	add("# hello\n", "# hello\nextra-substituters = http://c/ci\n")
	add("cores = 4", "cores = 4\nextra-substituters = http://c/ci\n")
	add("cores = 4\r\n", "cores = 4\r\nextra-substituters = http://c/ci\r\n")
	add("substituters = https://a\n", "substituters = https://a http://c/ci\n")
	add("  substituters   =\thttps://a  # mine\nx = y\n", "  substituters   =\thttps://a http://c/ci  # mine\nx = y\n")
	add("substituters =\n", "substituters = http://c/ci\n")
	add("substituters = https://a\r\n", "substituters = https://a http://c/ci\r\n")
	add("substituters = a\nsubstituters = b\n", "substituters = a\nsubstituters = b http://c/ci\n")
	add("substituters = a\nextra-substituters = b\n", "substituters = a\nextra-substituters = b http://c/ci\n")
	add("extra-substituters = http://c/ci\nsubstituters = b\n", "extra-substituters = http://c/ci\nsubstituters = b http://c/ci\n")
	add("substituters = http://c/ci # already\n", "substituters = http://c/ci # already\n")
	add("#substituters = b\n", "#substituters = b\nextra-substituters = http://c/ci\n")
	add("substituters=b\n", "substituters=b\nextra-substituters = http://c/ci\n") // Nix refuses that line; ours is not the place to mend it
	add("include /etc/nix/more.conf\n!include maybe.conf\n", "include /etc/nix/more.conf\n!include maybe.conf\nextra-substituters = http://c/ci\n")
	add("substituters = http://c/ci-2\n", "substituters = http://c/ci-2 http://c/ci\n")
	add("\n\n", "\n\nextra-substituters = http://c/ci\n")
}

func TestNixConfRemoveWord(t *testing.T) {
	remove := func(in, want string) {
		t.Helper()
		n := config.ParseNixConf(in)
		n.RemoveWord("trusted-public-keys", "ci:old")
		if diff := cmp.Diff(want, n.String()); diff != "" {
			t.Errorf("from %q (-want +got):\n%s", in, diff)
		}
	}

	remove("trusted-public-keys = a:1 ci:old b:2 # ci:old\n", "trusted-public-keys = a:1 b:2 # ci:old\n")
	remove("trusted-public-keys = ci:old\n", "trusted-public-keys =\n")
	remove("trusted-public-keys =  ci:old  ci:old2 ci:old\r\n", "trusted-public-keys =  ci:old2\r\n")
	remove("extra-trusted-public-keys =\tci:old a:1\n", "extra-trusted-public-keys = a:1\n")
	remove("other = ci:old\n", "other = ci:old\n")
}

func TestNixConfSet(t *testing.T) {
	set := func(in, want string) {
		t.Helper()
		n := config.ParseNixConf(in)
		n.Set("netrc-file", "/n")
		if diff := cmp.Diff(want, n.String()); diff != "" {
			t.Errorf("from %q (-want +got):\n%s", in, diff)
		}
	}

	set("", "netrc-file = /n\n")
	set("netrc-file = /old # why\n", "netrc-file = /n # why\n")
	set("netrc-file =   /n\n", "netrc-file =   /n\n")
	set("netrc-file = /a\nnetrc-file = /b\n", "netrc-file = /a\nnetrc-file = /n\n")
}

func TestNixConfReads(t *testing.T) {
	n := config.ParseNixConf("substituters = a b\nextra-substituters = c # d\ninclude /x\n!include y # z\nnetrc-file = /my file\n")
	if diff := cmp.Diff([]string{"a", "b", "c"}, n.Words("substituters")); diff != "" {
		t.Error(diff)
	}
	if v, ok := n.Value("netrc-file"); !ok || v != "/my file" {
		t.Errorf("netrc-file = %q, %v", v, ok)
	}
	if _, ok := n.Value("cores"); ok {
		t.Error("cores is set, though no line sets it")
	}
}

// What other files say counts where they are included, and only this file is edited.
func TestNixConfIncludes(t *testing.T) {
	dir := t.TempDir()
	for name, body := range map[string]string{
		"more.conf":     "substituters = https://more\ninclude sub/deep.conf\n",
		"sub/deep.conf": "netrc-file = /deep # here\n!include absent.conf\ninclude ../loop.conf\nextra-substituters = http://c/deep\n",
		"loop.conf":     "include loop.conf\ninclude loop.conf\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check := func(in, word, want, netrc string) {
		t.Helper()
		n := config.ParseNixConf(in)
		n.Follow(filepath.Join(dir, "nix.conf"))
		if got, _ := n.Value("netrc-file"); got != netrc {
			t.Errorf("from %q: netrc-file = %q, want %q", in, got, netrc)
		}
		n.AddWord("substituters", word)
		if diff := cmp.Diff(want, n.String()); diff != "" {
			t.Errorf("from %q (-want +got):\n%s", in, diff)
		}
		if !slices.Contains(n.Words("substituters"), word) {
			t.Errorf("from %q: %q is not in effect", in, word)
		}
	}
	check("extra-substituters = a\ninclude more.conf\n", "c", "extra-substituters = a\ninclude more.conf\nextra-substituters = c\n", "/deep")
	check("include more.conf\nextra-substituters = a\n", "c", "include more.conf\nextra-substituters = a c\n", "/deep")
	check("!include "+dir+"/more.conf", "c", "!include "+dir+"/more.conf\nextra-substituters = c\n", "/deep")
	check("include more.conf\n", "http://c/deep", "include more.conf\n", "/deep")
	check("substituters = a\n!include later.conf\n", "c", "substituters = a\n!include later.conf\nextra-substituters = c\n", "")
	check("include more.conf\nnetrc-file = /own\n", "https://more", "include more.conf\nnetrc-file = /own\n", "/own")

	n := config.ParseNixConf("include more.conf\nextra-substituters = https://more b\n")
	n.Follow(filepath.Join(dir, "nix.conf"))
	n.RemoveWord("substituters", "https://more")
	n.Set("netrc-file", "/new")
	if diff := cmp.Diff("include more.conf\nextra-substituters = b\nnetrc-file = /new\n", n.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"https://more", "http://c/deep", "b"}, n.Words("substituters")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestInNixStore has links of directories and of files, and what is not there yet.
func TestInNixStore(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	err = errors.Join(
		os.MkdirAll(at("real/store/x"), 0o700), os.Mkdir(at("home"), 0o700), os.WriteFile(at("real/store/x/nix.conf"), nil, 0o600),
		os.Symlink("real/store", at("store")), os.Symlink(at("store/x"), at("home/nix")), os.Symlink(at("store/x/nix.conf"), at("home/nix.conf")),
	)
	if err != nil {
		t.Fatal(err)
	}
	env := config.NewEnv(map[string]string{"NIX_STORE_DIR": at("store")})
	for path, want := range map[string]string{
		"home/nix.conf":      "real/store/x/nix.conf",
		"home/nix/netrc":     "real/store/x/netrc", // is not there, and would be
		"home/nix/a/b/c":     "real/store/x/a/b/c",
		"home/netrc":         "",
		"home/../store/x/.":  "real/store/x",
		"real/stores/x":      "",
		"home/none/nix.conf": "",
	} {
		target, inside := config.InNixStore(env, dir+"/"+path)
		if inside != (want != "") || inside && target != at(want) {
			t.Errorf("%s leads to %s, in the store: %v; want %q", path, target, inside, want)
		}
	}
	none := config.NewEnv(nil)
	if _, inside := config.InNixStore(none, at("home/nix.conf")); inside {
		t.Error("a directory that nobody calls a store is one")
	}
	if _, inside := config.InNixStore(none, "/nix/store/x/nix.conf"); !inside {
		t.Error("the Nix store is none")
	}
}

// What is not asked for is never changed, whatever the file looks like.
func FuzzNixConf(f *testing.F) {
	f.Add("substituters = a # b\n", "http://c")
	f.Add("\r\nextra-substituters =", "x")
	f.Fuzz(func(t *testing.T, text, word string) {
		n := config.ParseNixConf(text)
		if n.String() != text {
			t.Fatalf("parsing alone changed %q to %q", text, n.String())
		}
		if len(cmp.Diff(splitWords(word), []string{word})) > 0 {
			return
		}
		n.AddWord("substituters", word)
		if !contains(n.Words("substituters"), word) {
			t.Fatalf("%q is not in %q", word, n.String())
		}
		before := n.String()
		if n.AddWord("substituters", word) || n.String() != before {
			t.Fatalf("adding twice changed %q to %q", before, n.String())
		}
	})
}
