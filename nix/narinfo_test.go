package nix

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// As cache.nixos.org serves it, with the signature it carries.
const realNarInfo = `StorePath: /nix/store/syd87l2rxw8cbsxmxl853h0r6pdwhwjr-curl-7.82.0-bin
URL: nar/05ra3y72i3qjri7xskf9qj8kb29r6naqy1sqpbs3azi3xcigmj56.nar.xz
Compression: xz
FileHash: sha256:05ra3y72i3qjri7xskf9qj8kb29r6naqy1sqpbs3azi3xcigmj56
FileSize: 68852
NarHash: sha256:1b4sb93wp679q4zx9k1ignby1yna3z7c4c2ri3wphylbc2dwsys0
NarSize: 196040
References: 0jqd0rlxzra1rs38rdxl43yh6rxchgc6-curl-7.82.0 6w8g7njm4mck5dmjxws0z1xnrxvl81xa-glibc-2.34-115 j5jxw3iy7bbz4a57fh9g2xm2gxmyal8h-zlib-1.2.12 yxvjs9drzsphm9pcf42a4byzj1kb9m7k-openssl-1.1.1n
Deriver: 5rwxzi7pal3qhpsyfc16gzkh939q1np6-curl-7.82.0.drv
Sig: cache.nixos.org-1:TsTTb3WGTZKphvYdBHXwo6weVILmTytUjLB+vcX89fOjjRicCHmKA4RCPMVLkj6TMJ4GMX3HPVWRdD1hkeKZBQ==
Sig: test1:519iiVLx/c4Rdt5DNt6Y2Jm6hcWE9+XY69ygiWSZCNGVcmOcyL64uVAJ3cV8vaTusIZdbTnYo9Y7vDNeTmmMBQ==
`

func mustNarInfo(t *testing.T, text string) *NarInfo {
	t.Helper()
	n, err := ParseNarInfo([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestRealNarInfo(t *testing.T) {
	n := mustNarInfo(t, realNarInfo)
	if n.String() != realNarInfo {
		t.Error(cmp.Diff(realNarInfo, n.String()))
	}
	fp, err := n.Fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	const want = "1;/nix/store/syd87l2rxw8cbsxmxl853h0r6pdwhwjr-curl-7.82.0-bin;" +
		"sha256:1b4sb93wp679q4zx9k1ignby1yna3z7c4c2ri3wphylbc2dwsys0;196040;" +
		"/nix/store/0jqd0rlxzra1rs38rdxl43yh6rxchgc6-curl-7.82.0,/nix/store/6w8g7njm4mck5dmjxws0z1xnrxvl81xa-glibc-2.34-115," +
		"/nix/store/j5jxw3iy7bbz4a57fh9g2xm2gxmyal8h-zlib-1.2.12,/nix/store/yxvjs9drzsphm9pcf42a4byzj1kb9m7k-openssl-1.1.1n"
	if fp != want {
		t.Error(cmp.Diff(want, fp))
	}
	key, _ := ParsePublicKey(cacheNixosOrg)
	if !VerifyAny([]PublicKey{key}, fp, n.Sig) {
		t.Error("the signature of cache.nixos.org does not verify")
	}

	// The order of references in the file does not matter to the signature, nor
	// does one that is given twice.
	slices.Reverse(n.References)
	n.References = append(n.References, n.References[1])
	if fp2, err := n.Fingerprint(); err != nil || fp2 != want {
		t.Errorf("with references in disorder: %v, %v", fp2, err)
	}
}

const shortNarInfo = "StorePath: /s/" + helloHash + "-x\nURL: nar/x.nar\nNarHash: sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\nNarSize: 120\n"

func TestParseNarInfo(t *testing.T) {
	ok := func(more string, want NarInfo) {
		t.Helper()
		got, err := ParseNarInfo([]byte(shortNarInfo + more))
		if err != nil {
			t.Errorf("%q: %v", more, err)
			return
		}
		want.StorePath, _ = ParseStorePath("/s/" + helloHash + "-x")
		want.URL, want.NarSize = "nar/x.nar", 120
		want.NarHash, _ = ParseHash("sha256:" + abcHashes[2].nix32)
		if want.Compression == "" {
			want.Compression = "bzip2"
		}
		if d := cmp.Diff(want, *got, cmpopts.EquateComparable(StorePath{}, Hash{}, Signature{})); d != "" {
			t.Errorf("%q: %s", more, d)
		}
		text, err := got.AppendText(nil)
		if err != nil {
			t.Errorf("%q: print: %v", more, err)
			return
		}
		again, err := ParseNarInfo(text)
		if err != nil || !cmp.Equal(got, again, cmpopts.EquateComparable(StorePath{}, Hash{}, Signature{}), cmpopts.EquateEmpty()) {
			t.Errorf("%q: printed %q, which reads as %v, %v", more, text, again, err)
		}
	}
	ref := func(name string) StorePath {
		p, err := ParseStorePathBase("/s", helloHash+"-"+name)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}

	ok("", NarInfo{})
	ok("Compression: zstd\n", NarInfo{Compression: "zstd"})
	ok("Compression: \n", NarInfo{})
	ok("References: \n", NarInfo{})
	ok("References: "+helloHash+"-b  "+helloHash+"-a \n", NarInfo{References: []StorePath{ref("b"), ref("a")}})
	ok("Deriver: unknown-deriver\n", NarInfo{})
	ok("Deriver: "+helloHash+"-x.drv\n", NarInfo{Deriver: helloHash + "-x.drv"})
	ok("System: x86_64-linux\nCA: fixed:r:sha256:"+abcHashes[2].nix32+"\n",
		NarInfo{System: "x86_64-linux", CA: "fixed:r:sha256:" + abcHashes[2].nix32})
	ok("Provenance: {\"a\": 1}\nFoo: \nFoo: b:c\n", NarInfo{Extra: []Field{{"Provenance", `{"a": 1}`}, {"Foo", ""}, {"Foo", "b:c"}}})
	ok("Sig: a:b\nSig: a:c\n", NarInfo{Sig: []Signature{{"a", "b"}, {"a", "c"}}})
	ok("FileHash: sha256-"+abcHashes[2].base64+"\nFileSize: 9\n",
		NarInfo{FileSize: 9, FileHash: func() Hash { h, _ := ParseHash("sha256:" + abcHashes[2].hex); return h }()})
}

func TestParseNarInfoRefuses(t *testing.T) {
	bad := func(text, want string) {
		t.Helper()
		n, err := ParseNarInfo([]byte(text))
		if err == nil {
			t.Errorf("%q: accepted as %v", text, n)
			return
		}
		if _, is := errors.AsType[*SyntaxError](err); !is || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got error %q, expected %q", text, err, want)
		}
	}
	without := func(key string) string {
		var keep []string
		for line := range strings.Lines(shortNarInfo) {
			if !strings.HasPrefix(line, key+":") {
				keep = append(keep, line)
			}
		}
		return strings.Join(keep, "")
	}

	bad("", "narinfo: StorePath: missing")
	for _, key := range []string{"StorePath", "URL", "NarHash"} {
		bad(without(key), "narinfo: "+key+": missing")
	}
	bad(without("NarSize"), "narinfo: NarSize: expected more than 0")
	for line := range strings.Lines(shortNarInfo) {
		bad(shortNarInfo+line, "given twice")
	}
	bad(shortNarInfo+"References: \nReferences: \n", "line 6: References: given twice")
	bad(shortNarInfo+"References:\nDeriver: x\n", "line 5: References: expected a space")
	bad(shortNarInfo+"Foo:bar\n", "line 5: Foo: expected a space")
	bad(shortNarInfo+"Foo: bar", "line 5: the line does not end")
	bad(shortNarInfo+"\n", "line 5: expected")
	bad(shortNarInfo+"nonsense\n", "line 5: expected")
	bad(shortNarInfo+": x\n", "line 5: expected")
	bad(strings.ReplaceAll(shortNarInfo, "\n", "\r\n"), "control character")
	bad(shortNarInfo+"References: /s/"+helloHash+"-a\n", "line 5: References")
	bad(shortNarInfo+"References: x\n", "line 5: References")
	bad(shortNarInfo+"Deriver: /s/"+helloHash+"-a\n", "line 5: Deriver")
	bad(shortNarInfo+"FileSize: -1\n", "not a number")
	bad(shortNarInfo+"FileSize: +1\n", "not a number")
	bad(shortNarInfo+"FileSize: 1_0\n", "not a number")
	bad(shortNarInfo+"FileSize: 9223372036854775808\n", "not a number")
	bad(shortNarInfo+"FileHash: sha256:x\n", "line 5: FileHash")
	bad(shortNarInfo+"Sig: nonsense\n", "line 5: Sig")
	bad(shortNarInfo+"CA: a b\n", "line 5: CA")
	bad(strings.Replace(shortNarInfo, "URL: nar/x.nar", "URL: ", 1), "line 2: URL: missing")
	bad(strings.Replace(shortNarInfo, "NarSize: 120", "NarSize: 0", 1), "NarSize")
	bad(strings.Replace(shortNarInfo, "/s/", "s/", 1), "line 1: StorePath")
	bad(strings.Repeat("x", MaxNarInfoBytes+1), "the limit is")
}

func TestAppendTextRefuses(t *testing.T) {
	for name, damage := range map[string]func(*NarInfo){
		"StorePath":   func(n *NarInfo) { n.StorePath = StorePath{} },
		"URL":         func(n *NarInfo) { n.URL = "nar/x\nSig: forged" },
		"Compression": func(n *NarInfo) { n.Compression = "a b" },
		"FileSize":    func(n *NarInfo) { n.FileSize = -1 },
		"NarHash":     func(n *NarInfo) { n.NarHash = Hash{} },
		"NarSize":     func(n *NarInfo) { n.NarSize = 0 },
		"References":  func(n *NarInfo) { n.References[0].dir = "/elsewhere" },
		"Deriver":     func(n *NarInfo) { n.Deriver = "a\nb" },
		"System":      func(n *NarInfo) { n.System = "a\nb" },
		"CA":          func(n *NarInfo) { n.CA = "a\nb" },
		"Sig":         func(n *NarInfo) { n.Sig[0] = Signature{} },
		"Extra":       func(n *NarInfo) { n.Extra = []Field{{"a\nb", ""}} },
		"Sig again":   func(n *NarInfo) { n.Extra = []Field{{"Sig", "a:b"}} },
		"URL again":   func(n *NarInfo) { n.Extra = []Field{{"URL", "x"}} },
	} {
		n := mustNarInfo(t, realNarInfo)
		damage(n)
		dst := []byte("before")
		got, err := n.AppendText(dst)
		if err == nil || string(got) != "before" {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
}

func TestFingerprintRefuses(t *testing.T) {
	for name, damage := range map[string]func(*NarInfo){
		"store path": func(n *NarInfo) { n.StorePath = StorePath{} },
		"no hash":    func(n *NarInfo) { n.NarHash = Hash{} },
		"sha512":     func(n *NarInfo) { n.NarHash, _ = ParseHash("sha512:" + abcHashes[3].hex) },
		"size":       func(n *NarInfo) { n.NarSize = 0 },
		"reference":  func(n *NarInfo) { n.References[1].dir = "/elsewhere" },
		"zero":       func(n *NarInfo) { n.References[1] = StorePath{} },
	} {
		n := mustNarInfo(t, realNarInfo)
		damage(n)
		if fp, err := n.Fingerprint(); err == nil || fp != "" {
			t.Errorf("%s: got %q, %v", name, fp, err)
		}
	}
}

func TestCacheInfo(t *testing.T) {
	const text = "WantMassQuery: 1\nStoreDir: /nix/store\nPriority: 40\n"
	c, err := ParseCacheInfo([]byte(text))
	want := CacheInfo{StoreDir: "/nix/store", WantMassQuery: true, Priority: 40}
	if err != nil || !cmp.Equal(c, want) {
		t.Errorf("got %v, %v", c, err)
	}
	if b, err := c.AppendText(nil); err != nil || string(b) != text {
		t.Errorf("prints as %q, %v", b, err)
	}
	c, err = ParseCacheInfo([]byte("nonsense\nWantMassQuery:0\nX: y \r\n"))
	want = CacheInfo{Priority: DefaultPriority, Extra: []Field{{"X", "y"}}}
	if err != nil || !cmp.Equal(c, want) {
		t.Errorf("got %v, %v", c, err)
	}
	for _, in := range []string{"Priority: high\n", "StoreDir: nix\n", "StoreDir:\n", strings.Repeat("a", 65<<10)} {
		if c, err := ParseCacheInfo([]byte(in)); err == nil {
			t.Errorf("%q: accepted as %v", in, c)
		}
	}
	for _, bad := range []CacheInfo{{StoreDir: "x"}, {Extra: []Field{{"a:b", ""}}}, {Extra: []Field{{"a", "b\nc"}}}} {
		if b, err := bad.AppendText(nil); err == nil {
			t.Errorf("%v printed as %q", bad, b)
		}
	}
}

func TestAllocationBudget(t *testing.T) {
	n := mustNarInfo(t, realNarInfo)
	text := []byte(realNarInfo)
	buf := make([]byte, 0, 4096)
	path, hash := n.StorePath.String(), "sha256:"+abcHashes[2].nix32
	for name, c := range map[string]struct {
		max float64
		fn  func()
	}{
		"print narinfo":      {0, func() { _, _ = n.AppendText(buf) }},
		"append fingerprint": {0, func() { _, _ = n.AppendFingerprint(buf) }},
		"parse store path":   {0, func() { _, _ = ParseStorePath(path) }},
		"hash part":          {0, func() { _ = n.StorePath.HashPart() }},
		"print hash part":    {0, func() { _, _ = n.StorePath.HashPart().AppendText(buf) }},
		"parse hash":         {0, func() { _, _ = ParseHash(hash) }},
		"parse narinfo":      {8, func() { _, _ = ParseNarInfo(text) }},
	} {
		if got := testing.AllocsPerRun(100, c.fn); got > c.max {
			t.Errorf("%s: %v allocations, the budget is %v", name, got, c.max)
		}
	}
}
