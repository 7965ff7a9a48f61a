package nixtest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/celler/celler/nix"
)

// MkStorePath makes the store path of a name in /nix/store. Different names
// have different hash parts.
func MkStorePath(t testing.TB, name string) nix.StorePath {
	t.Helper()
	return MkStorePathIn(t, nix.DefaultStoreDir, name)
}

// MkStorePathIn is MkStorePath for another store dir.
func MkStorePathIn(t testing.TB, dir nix.StoreDir, name string) nix.StorePath {
	t.Helper()
	sum := sha256.Sum256([]byte(string(dir) + ":" + name))
	p, err := nix.ParseStorePathBase(dir, string(nix.AppendNix32(nil, sum[:20]))+"-"+name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// MkSecretKey makes the secret key of a name.
func MkSecretKey(t testing.TB, name string) nix.SecretKey {
	t.Helper()
	seed := sha256.Sum256([]byte("secret key of " + name))
	k, err := nix.GenerateSecretKey(name, bytes.NewReader(seed[:]))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// A Path is a store path with everything that a push of it needs.
type Path struct {
	Info nix.NarInfo // complete, with Compression "none"
	Tree Node
	NAR  []byte
}

// MkPath makes a store path called name with the given tree and references.
func MkPath(t testing.TB, name string, tree Node, refs ...nix.StorePath) Path {
	t.Helper()
	b := MkNAR(t, tree)
	h := nix.SHA256Hash(sha256.Sum256(b))
	p := Path{Tree: tree, NAR: b}
	p.Info = nix.NarInfo{
		StorePath:   MkStorePath(t, name),
		Compression: "none",
		FileHash:    h,
		FileSize:    int64(len(b)),
		NarHash:     h,
		NarSize:     int64(len(b)),
		References:  refs,
	}
	p.Info.URL = "nar/" + h.Nix32()[len("sha256:"):] + ".nar"
	return p
}

// MkClosure makes n paths of about size bytes each. Every path but the first
// refers to one or two before it, and every third one to itself, so that the
// last ones have deep closures and the order is topological.
func MkClosure(t testing.TB, seed uint64, n, size int) []Path {
	t.Helper()
	rng := mkRand(seed)
	paths := make([]Path, 0, n)
	for i := range n {
		name := fmt.Sprintf("pkg-%d-%d.%d", seed, i, rng.IntN(10))
		self := MkStorePath(t, name)
		var refs []nix.StorePath
		if i > 0 {
			refs = append(refs, paths[i-1].Info.StorePath)
		}
		if i > 1 && rng.IntN(2) == 0 {
			refs = append(refs, paths[rng.IntN(i-1)].Info.StorePath)
		}
		if i%3 == 0 {
			refs = append(refs, self)
		}
		tree := MkTree(rng.Uint64(), size)
		tree["references"] = Text(fmt.Sprint(refs))
		paths = append(paths, MkPath(t, name, tree, refs...))
	}
	return paths
}

// Sign adds the key's signature to a copy of the path's narinfo.
func (p Path) Sign(t testing.TB, key nix.SecretKey) nix.NarInfo {
	t.Helper()
	info := p.Info
	fp, err := info.Fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	info.Sig = append(info.Sig[:len(info.Sig):len(info.Sig)], key.Sign(fp))
	return info
}
