package nix

import "testing"

func BenchmarkParseNarInfo(b *testing.B) {
	text := []byte(realNarInfo)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseNarInfo(text); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendText(b *testing.B) {
	n, err := ParseNarInfo([]byte(realNarInfo))
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := n.AppendText(buf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSign(b *testing.B) {
	n, err := ParseNarInfo([]byte(realNarInfo))
	if err != nil {
		b.Fatal(err)
	}
	fp, err := n.Fingerprint()
	if err != nil {
		b.Fatal(err)
	}
	k := newSecretKey("k", make([]byte, 32))
	b.ReportAllocs()
	for b.Loop() {
		_ = k.Sign(fp)
	}
}
