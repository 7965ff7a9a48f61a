package nix_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/celler/celler/nix"
	"github.com/celler/celler/nix/nixtest"
)

// TestRealHashes compares spellings with nix-hash and nix hash.
func TestRealHashes(t *testing.T) {
	n := nixtest.Real(t)
	file := filepath.Join(n.Dir, "abc")
	if err := os.WriteFile(file, []byte("abc"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, algo := range []string{"md5", "sha1", "sha256", "sha512"} {
		hex := n.Run(t, "nix-hash", "--flat", "--type", algo, file)
		h, err := nix.ParseHash(algo + ":" + hex)
		if err != nil {
			t.Fatal(err)
		}
		nix32 := n.Run(t, "nix-hash", "--flat", "--base32", "--type", algo, file)
		sri := n.Run(t, "nix", "hash", "to-sri", "--type", algo, hex)
		base64 := n.Run(t, "nix", "hash", "to-base64", "--type", algo, hex)
		got := [...]string{h.Hex(), h.Nix32(), h.SRI(), h.Base64()}
		want := [...]string{algo + ":" + hex, algo + ":" + nix32, sri, algo + ":" + base64}
		if got != want {
			t.Error(cmp.Diff(want, got))
		}
		for _, s := range want {
			if again, err := nix.ParseHash(s); err != nil || again != h {
				t.Errorf("%q: %v, %v", s, again, err)
			}
			// The other direction: nix reads what we print.
			if out := n.Run(t, "nix", "hash", "to-base16", s); out != hex {
				t.Errorf("nix reads %q as %q", s, out)
			}
		}
	}
}

// TestRealStorePathNames asks nix about store paths that do not exist: it
// complains that they are not valid if it likes the name, and about the name if
// not. Whatever we accept, nix must accept.
func TestRealStorePathNames(t *testing.T) {
	n := nixtest.Real(t)
	const hash = "00bgd045z0d4icpbc2yyz4gx48ak44la"
	for _, base := range []string{
		hash + "-hello", hash + "-.hidden", hash + "-...", hash + "--", hash + "-+._?=Az09-",
		hash + "-" + strings.Repeat("n", 211), hash + "-" + strings.Repeat("n", 212),
		hash + "-", hash, hash[1:], hash + "-a b", hash + "-a~", hash + "-é", hash + "-a*", hash + "-a,b",
		"e" + hash[1:] + "-x", "u" + hash[1:] + "-x", "B" + hash[1:] + "-x", hash + "-.", hash + "-..",
	} {
		path := string(n.StoreDir) + "/" + base
		_, err := nix.ParseStorePath(path)
		_, nixErr := n.TryOutput(t, nil, "nix-store", "--query", "--references", path)
		if nixErr == nil {
			t.Fatalf("%q: nix says it exists", path)
		}
		liked := strings.Contains(nixErr.Error(), "is not valid")
		if err == nil && !liked {
			t.Errorf("%q: accepted, but nix says %v", base, nixErr)
		}
		if err != nil && liked && base != hash+"-." && base != hash+"-.." { // refused since Nix 2.20
			t.Errorf("%q: nix accepts it, we say: %v", base, err)
		}
	}
}

// TestRealNarInfo signs with nix and verifies here, and signs here what nix
// signed.
func TestRealNarInfo(t *testing.T) {
	n := nixtest.Real(t)
	secret, public := filepath.Join(n.Dir, "sec.key"), filepath.Join(n.Dir, "pub.key")
	n.Run(t, "nix-store", "--generate-binary-cache-key", "test-1", secret, public)
	text, err := os.ReadFile(secret)
	if err != nil {
		t.Fatal(err)
	}
	key, err := nix.ParseSecretKey(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	text, err = os.ReadFile(public)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(string(text)); got != key.Public().String() {
		t.Errorf("nix wrote public key %q, we make it %q", got, key.Public())
	}

	top := n.Build(t, nixtest.Chain, "top")
	cache := filepath.Join(n.Dir, "cache")
	n.Run(t, "nix", "copy", "--to", "file://"+cache+"?secret-key="+secret+"&compression=zstd", top.String())

	infoText, err := os.ReadFile(filepath.Join(cache, "nix-cache-info"))
	if err != nil {
		t.Fatal(err)
	}
	if c, err := nix.ParseCacheInfo(infoText); err != nil || c.StoreDir != n.StoreDir {
		t.Errorf("nix-cache-info %q: %v, %v", infoText, c, err)
	}

	files, err := filepath.Glob(filepath.Join(cache, "*.narinfo"))
	if err != nil || len(files) != 3 {
		t.Fatalf("narinfos: %v, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		info, err := nix.ParseNarInfo(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if d := cmp.Diff(string(text), info.String()); d != "" {
			t.Errorf("printed otherwise than nix did: %s", d)
		}
		if name := info.StorePath.HashPart().String() + ".narinfo"; name != filepath.Base(file) {
			t.Errorf("%s is in %s", name, file)
		}
		fp, err := info.Fingerprint()
		if err != nil {
			t.Fatal(err)
		}
		if !nix.VerifyAny([]nix.PublicKey{key.Public()}, fp, info.Sig) {
			t.Errorf("%v: the signature by nix does not verify over %q", info.StorePath, fp)
		}
		if d := cmp.Diff(info.Sig, []nix.Signature{key.Sign(fp)}, cmpopts.EquateComparable(nix.Signature{})); d != "" {
			t.Errorf("%v: signed otherwise than nix did: %s", info.StorePath, d)
		}
	}
}
