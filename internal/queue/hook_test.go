package queue

import (
	"slices"
	"testing"

	"github.com/celler/celler/nix"
)

const derivation = `Derive([("doc","/nix/store/11bgd045z0d4icpbc2yyz4gx48ak44la-hello-doc","",""),("out","/nix/store/00bgd045z0d4icpbc2yyz4gx48ak44la-hello","r:sha256","ab")],[],[],"x86_64-linux","/bin/sh",[],[("name","a\\"b")])`

func TestDecodeOutputs(t *testing.T) {
	got, err := DecodeOutputs([]byte(derivation))
	want := []nix.StorePath{
		mustPath(t, "/nix/store/11bgd045z0d4icpbc2yyz4gx48ak44la-hello-doc"),
		mustPath(t, "/nix/store/00bgd045z0d4icpbc2yyz4gx48ak44la-hello"),
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("outputs %v %v, want %v", got, err, want)
	}
	for i := range len(derivation) - len(`,[],[],"x86_64-linux","/bin/sh",[],[("name","a\\"b")])`) {
		if got, err := DecodeOutputs([]byte(derivation[:i])); err == nil {
			t.Errorf("cut to %d bytes: outputs %v", i, got)
		}
	}
	for _, bad := range []string{
		`DrvWithVersion("xp-dyn-drv",[`, `Derive([])`, `Derive([("out","","r:sha256","")],[]`, `Derive([("out","/etc/passwd","","")],[]`,
		`Derive([("o\\"ut","/nix/store/00bgd045z0d4icpbc2yyz4gx48ak44la-hello","","")],[]`,
	} {
		if got, err := DecodeOutputs([]byte(bad)); err == nil {
			t.Errorf("%s: outputs %v", bad, got)
		}
	}
}

func TestParsePaths(t *testing.T) {
	got, err := ParsePaths([]string{"nonsense", "/nix/store/00bgd045z0d4icpbc2yyz4gx48ak44la-hello"})
	if err == nil || len(got) != 1 {
		t.Errorf("parsed %v %v, want one path and an error", got, err)
	}
}

func FuzzDecodeOutputs(f *testing.F) {
	f.Add([]byte(derivation))
	f.Fuzz(func(t *testing.T, src []byte) {
		paths, err := DecodeOutputs(src)
		if err == nil && (len(paths) == 0 || len(paths) > maxPaths) {
			t.Errorf("%d outputs", len(paths))
		}
	})
}
