package httpapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/internal/catalog"
)

func stateOf(t testing.TB, p []byte) chunk.SHAState {
	t.Helper()
	h := sha256.New()
	h.Write(p)
	s, err := chunk.SHAStateOf(h)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mkReceipts(t testing.TB) []receipt {
	t.Helper()
	a, b := chunk.PackID{Epoch: 3, Rand: 0x0102030405060708}, chunk.PackID{Epoch: 4, Rand: 9}
	first := chunkstore.Segment{
		From: stateOf(t, nil), To: stateOf(t, []byte("abc")), Plain: 3, Encoder: 1,
		Runs: []chunk.Run{{Pack: a, First: 5, Count: 2}, {Pack: b, First: 0, Count: 1}, {Pack: a, First: 300, Count: 1}}, Stretches: []uint32{7, 1000},
	}
	second := chunkstore.Segment{
		From: first.To, To: stateOf(t, bytes.Repeat([]byte("abc"), 30)), Plain: 87, Encoder: 1,
		Runs: []chunk.Run{{Pack: b, First: 1, Count: 4}},
	}
	return []receipt{receiptOf(&first, true), receiptOf(&second, false)}
}

var receiptCmp = cmp.Options{cmp.AllowUnexported(receipt{}, chunk.SHAState{})}

func TestReceiptGolden(t *testing.T) {
	rs := mkReceipts(t)
	joined, err := joinReceipts(rs)
	if err != nil {
		t.Fatal(err)
	}
	s := newSealer([]byte("key"))
	for i, c := range []struct {
		r               receipt
		content, sealed string
	}{
		{rs[0], "03016a09e667bb67ae853c6ef372a54ff53a510e527f9b05688c1f83d9ab5be0cd1903616263010203080706050403020104090000000000000001030300050201000100ac02010207e807", "0129472f0497540897c052cf0fb5cfdad1e2b0f8ed4251a6b38711483d3368c05f67a402aada2d9b8cc482cfebe30717f3d33e532a7857eb23adc35248becfa7a37fd1b6552e240929e349d9b5bec377dfbf21a084b1541b1a1d5053"},
		{rs[1], "00bbd5c0aa2e464aa5d31e53fc0e1db4643132f8d9305fe32e5ce741ba31f123450147afa2061ca2df6e3ceb998796fb5f8ed81825503687566159e87975cbe813045a6263616263616263616263616263616263616263616263616263010104090000000000000001570100010400", "011a24399fe5e0bc045d7c8f94c9f4582c37ed9bc0c56e10c0bcf5d2e3410ce670576b9a54fac831f0a09b23e0c7d49c10d83c43746eb555adb545f4790f63727b7f7b72d19dff9c428a44e453a320a53d81704ce295adc21594aee9a3c53186ea84d524e0b9678eda72f6e15b5c46251659a316ebe268e12be7a52ac8b87c51"},
		{joined, "010147afa2061ca2df6e3ceb998796fb5f8ed81825503687566159e87975cbe813045a6263616263616263616263616263616263616263616263616263010203080706050403020104090000000000000002030300050201000100ac02010207e807570101010400", "01198c56846b4019b79aec182feb81ef91259a699cae74e1f46e50cb53bf6e45e81246828218bea696fe65da75cb4d0ad5e76f636cf922ba6556de342b5e33751a6eae4e86b27ddfa6529c9086bb5427eba6e9d12f896aab6dbadd64ef799cd4a79f37a1c239caf8cf878aa3baf183fdeb1cdcce4129d3aea1"},
	} {
		if got := hex.EncodeToString(c.r.append(nil)); got != c.content {
			t.Errorf("receipt %d is\n%s, want\n%s", i, got, c.content)
		}
		if got := hex.EncodeToString(s.seal(&c.r, "ci", "alice")); got != c.sealed {
			t.Errorf("receipt %d is sealed as\n%s, want\n%s", i, got, c.sealed)
		}
		back, err := s.open(s.seal(&c.r, "ci", "alice"), "ci", "alice")
		if diff := cmp.Diff(c.r, back, receiptCmp); diff != "" || err != nil {
			t.Errorf("receipt %d: %v %s", i, err, diff)
		}
	}
}

// TestReceiptIsForOne: a receipt is good for the cache and the subject it was sealed for,
// and for servers with the key, and as it is.
func TestReceiptIsForOne(t *testing.T) {
	s := newSealer([]byte("key"))
	r := mkReceipts(t)[0]
	sealed := s.seal(&r, "ci", "alice")
	if !bytes.Equal(sealed, s.seal(&r, "ci", "alice")) {
		t.Error("sealed twice it looks different: a repeated request gives another answer")
	}
	refused := func(why string, s *sealer, sealed []byte, cache, subject string) {
		t.Helper()
		if _, err := s.open(sealed, catalog.CacheName(cache), subject); err == nil {
			t.Errorf("%s: it is accepted", why)
		}
	}
	refused("another cache", s, sealed, "ci2", "alice")
	refused("another subject", s, sealed, "ci", "alic")
	refused("nobody", s, sealed, "ci", "")
	refused("parts shifted", s, sealed, "cia", "lice")
	refused("another key", newSealer([]byte("key2")), sealed, "ci", "alice")
	refused("nothing", s, nil, "ci", "alice")
	for n := range sealed {
		refused("cut off", s, sealed[:n], "ci", "alice")
		bent := bytes.Clone(sealed)
		bent[n] ^= 0x10
		refused("a bit changed", s, bent, "ci", "alice")
	}
	refused("more than it", s, append(bytes.Clone(sealed), 0), "ci", "alice")
}

func TestJoinReceipts(t *testing.T) {
	rs := mkReceipts(t)
	all, err := joinReceipts(rs)
	if err != nil || len(all.parts) != 2 || !all.begins || all.whole || all.after != rs[1].after || all.plain() != 90 {
		t.Errorf("%+v, %v", all, err)
	}
	if len(rs[0].parts) != 1 {
		t.Error("joining changed what was joined")
	}
	if _, err := joinReceipts([]receipt{rs[1], rs[0]}); err == nil {
		t.Error("a beginning in the middle is joined")
	}
	if _, err := joinReceipts([]receipt{rs[0], rs[0]}); err == nil {
		t.Error("one receipt is joined twice")
	}
	other := rs[1]
	other.before[0] ^= 1
	if _, err := joinReceipts([]receipt{rs[0], other}); err == nil {
		t.Error("a gap is joined")
	}
	later := rs[1]
	later.parts = []chunkstore.Segment{rs[1].parts[0]}
	later.parts[0].Encoder = 2
	if _, err := joinReceipts([]receipt{rs[0], later}); err == nil {
		t.Error("receipts of two encoders are joined: a recipe has one")
	}
	if one, err := joinReceipts(rs[:1]); err != nil || !one.whole {
		t.Errorf("one alone: %+v, %v", one, err)
	}
}

func FuzzReceipt(f *testing.F) {
	for _, r := range mkReceipts(f) {
		f.Add(r.append(nil))
	}
	joined, _ := joinReceipts(mkReceipts(f))
	f.Add(joined.append(nil))
	f.Fuzz(func(t *testing.T, src []byte) {
		r, err := decodeReceipt(src)
		if err != nil {
			return
		}
		if got := r.append(nil); !bytes.Equal(got, src) {
			t.Fatalf("%x is read as %x", src, got)
		}
		if len(r.parts) > len(src) {
			t.Fatalf("%d parts in %d bytes", len(r.parts), len(src))
		}
	})
}

// FuzzOpenReceipt: nothing that was not sealed is opened.
func FuzzOpenReceipt(f *testing.F) {
	s := newSealer([]byte("key"))
	r := mkReceipts(f)[0]
	good := s.seal(&r, "ci", "alice")
	f.Add(good)
	f.Fuzz(func(t *testing.T, sealed []byte) {
		if _, err := s.open(sealed, "ci", "alice"); err == nil && !bytes.Equal(sealed, good) {
			t.Fatalf("%x is accepted", sealed)
		}
	})
}
