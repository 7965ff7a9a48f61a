package nix

import (
	"slices"
	"strings"
	"testing"
)

const helloHash = "00bgd045z0d4icpbc2yyz4gx48ak44la"

func TestParseStorePath(t *testing.T) {
	ok := func(in, dir, hashPart, name string) {
		t.Helper()
		p, err := ParseStorePath(in)
		if err != nil {
			t.Errorf("%q: %v", in, err)
			return
		}
		if string(p.Dir()) != dir || p.HashPart().String() != hashPart || p.Name() != name {
			t.Errorf("%q: got dir %q, hash part %v, name %q", in, p.Dir(), p.HashPart(), p.Name())
		}
		if p.String() != in || p.Base() != hashPart+"-"+name {
			t.Errorf("%q: prints as %q, base %q", in, p, p.Base())
		}
		q, err := ParseStorePathBase(p.Dir(), p.Base())
		if err != nil || q != p {
			t.Errorf("%q: from its base name: %v, %v", in, q, err)
		}
	}
	bad := func(in, why string) {
		t.Helper()
		p, err := ParseStorePath(in)
		if err == nil {
			t.Errorf("%q: accepted as %v, expected: %s", in, p, why)
		} else if !strings.Contains(err.Error(), why) {
			t.Errorf("%q: got error %q, expected: %s", in, err, why)
		}
	}

	ok("/nix/store/"+helloHash+"-hello", "/nix/store", helloHash, "hello")
	ok("/nix/store/"+helloHash+"-net-tools-1.60_p2017.drv", "/nix/store", helloHash, "net-tools-1.60_p2017.drv")
	ok("/nix/store/"+helloHash+"-+._?=Az09-", "/nix/store", helloHash, "+._?=Az09-")
	ok("/nix/store/"+helloHash+"-.hidden", "/nix/store", helloHash, ".hidden")
	ok("/nix/store/"+helloHash+"-...", "/nix/store", helloHash, "...")
	ok("/nix/store/"+helloHash+"--", "/nix/store", helloHash, "-")
	ok("/nix/store/"+helloHash+"-"+strings.Repeat("n", 211), "/nix/store", helloHash, strings.Repeat("n", 211))
	ok("/store/"+helloHash+"-x", "/store", helloHash, "x")
	ok("/home/me/my store/"+helloHash+"-x", "/home/me/my store", helloHash, "x")

	bad("", "not an absolute path")
	bad(helloHash+"-hello", "not an absolute path")
	bad("/"+helloHash+"-hello", "not an absolute path")
	bad("nix/store/"+helloHash+"-hello", "not an absolute path")
	bad("/nix/store", "too short")
	bad("/nix/store/", "too short")
	bad("/nix/store/"+helloHash, "too short")
	bad("/nix/store/"+helloHash+"Xhello", "no dash after the hash part")
	bad("/nix/store/"+helloHash+"-", "empty")
	bad("/nix/store/"+helloHash+"-"+strings.Repeat("n", 212), "the limit is 211")
	bad("/nix/store/"+helloHash+"-a b", `' '`)
	bad("/nix/store/"+helloHash+"-a\x00", `'\x00'`)
	bad("/nix/store/"+helloHash+"-é", "not allowed in a name")
	bad("/nix/store/"+helloHash+"-.", `component of the name is "."`)
	bad("/nix/store/"+helloHash+"-..", `component of the name is ".."`)
	bad("/nix/store/"+helloHash+"-.-x", `component of the name is "."`)
	bad("/nix/store/"+helloHash+"-..-x", `component of the name is ".."`)
	bad("/nix/store/"+helloHash+"-hello/bin", "inside /nix/store/"+helloHash+"-hello")
	bad("/nix/store/e"+helloHash[1:]+"-hello", `'e' of the hash part`)
	bad("/nix/store/"+strings.ToUpper(helloHash)+"-hello", "nix32 alphabet")
	bad("/nix//store/"+helloHash+"-x", "clean path")
	bad("//store/"+helloHash+"-x", "clean path")
	bad("/nix/../store/"+helloHash+"-x", "clean path")
	bad("/nix/./store/"+helloHash+"-x", "clean path")
	bad("/nix/sto\nre/"+helloHash+"-x", "control character")
	bad("/"+strings.Repeat("d", 4096)+"/"+helloHash+"-x", "the limit is 4096")
}

func TestStoreDir(t *testing.T) {
	for _, in := range []string{"/nix/store", "/s", "/a/b/c d"} {
		if d, err := ParseStoreDir(in); err != nil || string(d) != in {
			t.Errorf("%q: %q, %v", in, d, err)
		}
	}
	for _, in := range []string{"", "/", "nix/store", "/nix/store/", "/nix/\tstore"} {
		if d, err := ParseStoreDir(in); err == nil {
			t.Errorf("%q: accepted as %q", in, d)
		}
	}
}

func TestHashPartOrder(t *testing.T) {
	texts := []string{
		strings.Repeat("0", 32), strings.Repeat("0", 31) + "1", helloHash, "0" + strings.Repeat("z", 31),
		"1" + strings.Repeat("0", 31), strings.Repeat("z", 32), "7b0ky1gx9ja2cp7zpy1f2nqqnnjgy8k5",
	}
	slices.Sort(texts)
	var last HashPart
	for i, s := range texts {
		h, err := ParseHashPart(s)
		if err != nil {
			t.Fatal(err)
		}
		if h.String() != s {
			t.Errorf("%q prints as %q", s, h)
		}
		if i > 0 && slices.Compare(last[:], h[:]) >= 0 {
			t.Errorf("the bytes of %q do not sort after those of %q", s, texts[i-1])
		}
		last = h
	}
	if _, err := ParseHashPart(helloHash + "0"); err == nil {
		t.Error("33 characters accepted")
	}
	if _, err := ParseHashPart("u" + helloHash[1:]); err == nil {
		t.Error(`"u" accepted`)
	}
}

func TestZeroStorePath(t *testing.T) {
	var p StorePath
	if !p.IsZero() || p.String() != "" || p.Name() != "" || p.HashPart() != (HashPart{}) {
		t.Errorf("zero path: %q %q %v", p, p.Name(), p.HashPart())
	}
}
