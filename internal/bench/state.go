package main

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/big"
	"time"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
)

// state is the state of a large store that nobody has pushed: every row can be
// computed from its place among the rows of its kind, in the order of their keys, so
// that tables are written as fast as rows are made up and nothing is held.
//
// Path i has one NAR of perPath chunks, which lie one after the other in pack
// i/perPack. Hashes are evenly spread, as hashes are; which path, NAR or chunk has
// which hash is a permutation that can be computed both ways.
type state struct {
	paths int64 // a multiple of 16*perPack
	cache keyspace.CacheID
	at    time.Time
	dead  func(path int64) bool // whose path and recipe have gone, so that nothing names the chunks; nil: none

	ofNAR, ofPath, ofChunk permutation // from the place of a key to what it is of
}

const (
	perPath = 10  // chunks of a NAR
	perPack = 200 // NARs of a pack
	perRef  = 5   // references of a path
	// perFrame is how many chunks lie in one frame.
	perFrame = 8

	packEpoch = 1 // upload epoch of the packs
)

func newState(paths int64, cache keyspace.CacheID) *state {
	const multiple = 16 * perPack
	paths = max(multiple, paths/multiple*multiple)
	return &state{
		paths: paths, cache: cache, at: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC),
		ofNAR: newPermutation(paths, 0x9e3779b97f4a7c15), ofPath: newPermutation(paths, 0xbf58476d1ce4e5b9),
		ofChunk: newPermutation(paths*perPath, 0x94d049bb133111eb),
	}
}

func (s *state) chunks() int64 { return s.paths * perPath }
func (s *state) packs() int64  { return s.paths / perPack }

// permutation is x -> a*x + b modulo n.
type permutation struct{ n, a, inverse, b uint64 }

func newPermutation(n int64, seed uint64) permutation {
	modulus := big.NewInt(n)
	for a := seed % uint64(n); ; a++ {
		if inverse := new(big.Int).ModInverse(new(big.Int).SetUint64(a), modulus); inverse != nil {
			return permutation{n: uint64(n), a: a, inverse: inverse.Uint64(), b: (seed >> 32) % uint64(n)}
		}
	}
}

// Products stay below 2^64 because n stays below 2^32.
func (p permutation) of(x int64) int64 { return int64((p.a*uint64(x) + p.b) % p.n) }

func (p permutation) back(y int64) int64 {
	return int64((uint64(y) + p.n - p.b) % p.n * p.inverse % p.n)
}

// mix is splitmix64: 64 bits that look random, of a number.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// hash is the hash in place of n. It ascends with the place, and sixteenths of all
// begin with the same half byte.
func hash(kind byte, place, n int64) (h [32]byte) {
	each := n / 16
	step := uint64(1) << 60 / uint64(each)
	salt := uint64(kind)<<56 ^ uint64(place)
	first := uint64(place/each)<<60 + uint64(place%each)*step + mix(salt)%step
	binary.BigEndian.PutUint64(h[:], first)
	for i := 1; i < 4; i++ {
		binary.BigEndian.PutUint64(h[8*i:], mix(salt+uint64(i)<<40))
	}
	return h
}

func (s *state) narHash(path int64) [32]byte {
	return hash(keyspace.NarPrefix, s.ofNAR.back(path), s.paths)
}

func (s *state) hashPart(place int64) nix.HashPart {
	h := hash(keyspace.PathPrefix, place, s.paths)
	return nix.HashPart(h[:20])
}

func (s *state) storePath(place int64) (nix.StorePath, error) {
	name := fmt.Sprintf("package-%d-1.%d.%d", s.ofPath.of(place), place%10, place%7)
	return nix.ParseStorePathBase(nix.DefaultStoreDir, s.hashPart(place).String()+"-"+name)
}

func (s *state) packID(pack int64) chunk.PackID {
	// The name ascends with the number, so that rows come in order.
	return chunk.PackID{Epoch: packEpoch, Rand: uint64(pack)<<32 | mix(uint64(pack))>>32}
}

// chunkSize is the plain size of a chunk by its number, 16 KiB on average.
func chunkSize(number int64) uint32 { return 4<<10 + uint32(mix(uint64(number))%(24<<10)) }

func (s *state) narSize(path int64) (n int64) {
	for i := range int64(perPath) {
		n += int64(chunkSize(path*perPath + i))
	}
	return n
}

// rowKind is the rows of one prefix: how many there are and how to make one.
type rowKind struct {
	prefix byte
	count  int64
	row    func(place int64, key, value []byte) (k, v []byte, err error)
	of     *permutation // from places to paths, of rows that go with their path; else nil
}

// skips reports whether there is no row in this place.
func (k *rowKind) skips(s *state, place int64) bool {
	return s.dead != nil && k.of != nil && s.dead(k.of.of(place))
}

// kinds are the rows that pushing all of this would have left, but for counters.
func (s *state) kinds() []rowKind {
	return []rowKind{
		{keyspace.PathPrefix, s.paths, s.pathRow, &s.ofPath},
		{keyspace.ChunkPrefix, s.chunks(), s.chunkRow, nil},
		{keyspace.RecipePrefix, s.paths, s.recipeRow, &s.ofNAR},
		{keyspace.NarPrefix, s.paths, s.narRow, &s.ofNAR},
		{keyspace.LastUsePrefix, s.paths, func(place int64, key, value []byte) ([]byte, []byte, error) {
			return keyspace.AppendLastUseKey(key, s.cache, s.hashPart(place)), keyspace.AppendLastUse(value, 1), nil
		}, &s.ofPath},
		{keyspace.UseOrderPrefix, s.paths, func(place int64, key, value []byte) ([]byte, []byte, error) {
			return keyspace.AppendUseOrderKey(key, keyspace.Use{Cache: s.cache, HashPart: s.hashPart(place), Day: 1}), keyspace.AppendUseOrder(value), nil
		}, &s.ofPath},
		{keyspace.PackPrefix, s.packs(), s.packRow, nil},
	}
}

func (s *state) pathRow(place int64, key, value []byte) ([]byte, []byte, error) {
	sp, err := s.storePath(place)
	if err != nil {
		return nil, nil, err
	}
	path := s.ofPath.of(place)
	size := s.narSize(path)
	var sig [64]byte
	for i := range 8 {
		binary.LittleEndian.PutUint64(sig[8*i:], mix(uint64(place)*8+uint64(i)))
	}
	row := keyspace.Path{
		StorePath: sp, NarHash: s.narHash(path), NarSize: size, FileSize: size / 3, System: "x86_64-linux", By: "bench", Created: s.at,
		SigKey: keyspace.KeyID{1}, Sig: "bench:" + base64.StdEncoding.EncodeToString(sig[:]),
	}
	for i := range int64(perRef) {
		ref, err := s.storePath((place*perRef + i*i*7919) % s.paths)
		if err != nil {
			return nil, nil, err
		}
		row.References = append(row.References, ref)
	}
	return keyspace.AppendPathKey(key, s.cache, sp.HashPart()), keyspace.AppendPath(value, &row), nil
}

func (s *state) chunkRow(place int64, key, value []byte) ([]byte, []byte, error) {
	number := s.ofChunk.of(place)
	at := chunk.Location{Pack: s.packID(number / (perPath * perPack)), Index: uint32(number % (perPath * perPack))}
	id := chunk.ID(hash(keyspace.ChunkPrefix, place, s.chunks()))
	return keyspace.AppendChunkKey(key, id), keyspace.AppendChunk(value, at, chunk.Proof(id[8:])), nil
}

func (s *state) recipeRow(place int64, key, value []byte) ([]byte, []byte, error) {
	path := s.ofNAR.of(place)
	size := s.narSize(path)
	r := chunk.Recipe{
		Size: size, NarHash: hash(keyspace.NarPrefix, place, s.paths), Served: chunk.Served{Encoder: 1, Size: size / 3},
		Runs: []chunk.Run{{Pack: s.packID(path / perPack), First: uint32(path % perPack * perPath), Count: perPath}},
	}
	values, _, err := keyspace.EncodeRecipe(&r)
	if err != nil {
		return nil, nil, err
	}
	return keyspace.AppendRecipeKey(key, keyspace.RecipeKey{NarHash: r.NarHash}), append(value, values[0]...), nil
}

func (s *state) narRow(place int64, key, value []byte) ([]byte, []byte, error) {
	size := s.narSize(s.ofNAR.of(place))
	n := keyspace.Nar{Paths: 1, NarSize: size, ServedSize: size / 3}
	return keyspace.AppendNarKey(key, hash(keyspace.NarPrefix, place, s.paths)), keyspace.AppendNar(value, &n), nil
}

func (s *state) packRow(pack int64, key, value []byte) ([]byte, []byte, error) {
	l := s.layout(pack)
	return keyspace.AppendPackKey(key, l.ID), keyspace.AppendPack(value, &l), nil
}

// layout makes up frames that compress to a third.
func (s *state) layout(pack int64) chunk.Layout {
	l := chunk.Layout{ID: s.packID(pack)}
	first := pack * perPath * perPack
	for i := range int64(perPath * perPack) {
		l.Sizes = append(l.Sizes, chunkSize(first+i))
	}
	for i := 0; i < len(l.Sizes); i += perFrame {
		f := chunk.Frame{Offset: l.Bytes, Checksum: uint32(mix(uint64(pack) + uint64(i)<<32)), Chunks: uint32(min(perFrame, len(l.Sizes)-i))}
		for _, size := range l.Sizes[i : i+int(f.Chunks)] {
			f.Size += int64(size / 3)
		}
		l.Frames = append(l.Frames, f)
		l.Bytes += f.Size
	}
	l.Bytes += int64(len(l.Sizes)) * 40 // the footer
	return l
}
