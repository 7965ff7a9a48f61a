package nixstore

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"github.com/celler/celler/nix"
)

// A fakeDaemon answers like a real one of a given protocol version, from a map.
type fakeDaemon struct {
	minor uint64
	infos map[string]PathInfo // by store path
	// noise makes it send every kind of message before every answer.
	noise bool
	// refuse makes it answer an operation on a path with an error.
	refuse map[string]string
}

// listen serves connections with handle until the test ends, and returns the
// socket.
func listen(t testing.TB, handle func(net.Conn)) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer nc.Close()
				handle(nc)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return socket
}

func mustOpen(t testing.TB, socket string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Options{Remote: "unix://" + socket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// serve speaks the daemon's half until the client hangs up. Every answer goes
// through w, so that it can be recorded.
func (f *fakeDaemon) serve(r io.Reader, w io.Writer) {
	d := &decoder{r: bufio.NewReader(r)}
	var out []byte
	send := func() {
		_, _ = w.Write(out)
		out = out[:0]
	}
	if d.uint64() != magicClient {
		return
	}
	out = appendUint64(appendUint64(out, magicDaemon), protocolMajor<<8|f.minor)
	send()
	minor := min(d.uint64()&0xff, f.minor)
	if minor >= 38 {
		d.strings("features", 100)
		out = appendUint64(out, 2)
		out = appendString(appendString(out, "one"), "another-feature")
		send()
	}
	d.uint64()
	d.uint64()
	if minor >= 33 {
		out = appendString(out, "2.99.0")
	}
	if minor >= 35 {
		out = appendUint64(out, 1)
	}
	out = appendUint64(out, msgLast)
	send()
	for d.err == nil {
		op := d.uint64()
		if d.err != nil {
			return
		}
		out = f.answer(op, d, out, minor)
		send()
	}
}

func (f *fakeDaemon) answer(op uint64, d *decoder, out []byte, minor uint64) []byte {
	if f.noise {
		out = appendNoise(out)
	}
	var paths []string
	switch op {
	case opQueryValidPaths:
		paths = d.strings("paths", maxPathString)
		if minor >= 27 {
			d.uint64()
		}
	default:
		paths = []string{d.string("a path", maxPathString)}
	}
	for _, p := range paths {
		if why, ok := f.refuse[p]; ok {
			return appendError(out, why, minor)
		}
	}
	out = appendUint64(out, msgLast)
	switch op {
	case opIsValidPath:
		_, valid := f.infos[paths[0]]
		return appendBool(out, valid)
	case opAddTempRoot:
		return appendUint64(out, 1)
	case opQueryPathFromHashPart:
		for p, info := range f.infos {
			if info.StorePath.HashPart().String() == paths[0] {
				return appendString(out, p)
			}
		}
		return appendString(out, "")
	case opQueryValidPaths:
		var valid []string
		for _, p := range paths {
			if _, ok := f.infos[p]; ok {
				valid = append(valid, p)
			}
		}
		return appendStrings(out, valid)
	case opQueryPathInfo:
		info, ok := f.infos[paths[0]]
		out = appendBool(out, ok)
		if ok {
			out = appendInfo(out, info)
		}
	}
	return out
}

func appendInfo(out []byte, info PathInfo) []byte {
	deriver := ""
	if info.Deriver != "" {
		deriver = string(info.StorePath.Dir()) + "/" + info.Deriver
	}
	out = appendString(out, deriver)
	out = appendString(out, hex.EncodeToString(info.NarHash.Sum()))
	var refs, sigs []string
	for _, r := range info.References {
		refs = append(refs, r.String())
	}
	for _, s := range info.Sigs {
		sigs = append(sigs, s.String())
	}
	out = appendStrings(out, refs)
	var sec uint64
	if !info.RegistrationTime.IsZero() {
		sec = uint64(info.RegistrationTime.Unix())
	}
	out = appendUint64(out, sec)
	out = appendUint64(out, uint64(info.NarSize))
	out = appendBool(out, info.Ultimate)
	out = appendStrings(out, sigs)
	return appendString(out, info.CA)
}

func appendStrings(out []byte, ss []string) []byte {
	out = appendUint64(out, uint64(len(ss)))
	for _, s := range ss {
		out = appendString(out, s)
	}
	return out
}

func appendBool(out []byte, b bool) []byte {
	if b {
		return appendUint64(out, 1)
	}
	return appendUint64(out, 0)
}

func appendNoise(out []byte) []byte {
	out = appendString(appendUint64(out, msgNext), "warning: \x1b[35;1mnothing\x1b[0m happened")
	out = appendUint64(out, msgStartActivity)
	for range 3 {
		out = appendUint64(out, 7)
	}
	out = appendString(out, "querying")
	out = appendUint64(out, 2) // fields
	out = appendUint64(appendUint64(out, 0), 42)
	out = appendString(appendUint64(out, 1), "field")
	out = appendUint64(out, 0) // parent
	out = appendUint64(out, msgResult)
	out = appendUint64(appendUint64(out, 7), 105)
	out = appendUint64(out, 0)
	return appendUint64(appendUint64(out, msgStopActivity), 7)
}

func appendError(out []byte, why string, minor uint64) []byte {
	out = appendUint64(out, msgError)
	if minor < 26 {
		return appendUint64(appendString(out, why), 1)
	}
	out = appendString(out, "Error")
	out = appendUint64(out, 0)
	out = appendString(out, "Error")
	out = appendString(out, why)
	out = appendUint64(out, 0)
	out = appendUint64(out, 1)
	out = appendUint64(out, 0)
	return appendString(out, "while \x1b[1mtesting\x1b[0m")
}

// mkInfos makes path infos with every field in use: a chain of n paths in which
// each refers to itself, the one before and the first.
func mkInfos(t testing.TB, n int) ([]nix.StorePath, map[string]PathInfo) {
	t.Helper()
	infos := map[string]PathInfo{}
	var paths []nix.StorePath
	for i := range n {
		p := mkPath(t, byte(i), byte(i>>8))
		info := PathInfo{
			StorePath: p,
			NarHash:   nix.SHA256Hash([32]byte{byte(i), byte(i >> 8), 3: 0xff}),
			NarSize:   int64(120 + 8*i),
			Ultimate:  i%2 == 0,
		}
		if i > 0 {
			refs := []nix.StorePath{p, paths[i-1], paths[0]}
			info.References = unique(refs)
			info.Deriver = mkPath(t, byte(i), 0xff).Base() + ".drv"
			info.CA = "fixed:r:sha256:x"
		}
		sig, err := nix.ParseSignature("cache-1:c2ln")
		if err != nil {
			t.Fatal(err)
		}
		info.Sigs = []nix.Signature{sig}
		infos[p.String()] = info
		paths = append(paths, p)
	}
	return paths, infos
}

func mkPath(t testing.TB, seed ...byte) nix.StorePath {
	t.Helper()
	b := bytes.Repeat([]byte{0xa5}, 20)
	copy(b, seed)
	p, err := nix.ParseStorePathBase(nix.DefaultStoreDir, string(nix.AppendNix32(nil, b))+"-path-"+hex.EncodeToString(seed))
	if err != nil {
		t.Fatal(err)
	}
	return p
}
