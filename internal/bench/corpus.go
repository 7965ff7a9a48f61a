package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/celler/celler/nix/nar"
)

// corpusNAR is one NAR on disk and what the upload call says of it.
type corpusNAR struct {
	name     string
	file     string
	hashPart string
	narHash  string // lower-case hex SHA-256
	size     int64
}

func (c corpusNAR) storePath() string { return "/nix/store/" + c.hashPart + "-" + c.name }

// corpus makes NARs of real files of this machine: libraries, programs,
// sources and documentation, as they come in directory order.
func (l *lab) corpus(ctx context.Context) ([]corpusNAR, error) {
	if l.nars != nil {
		return l.nars, nil
	}
	files, err := realFiles(l.corpusBytes, l.narBytes)
	if err != nil {
		return nil, err
	}
	for len(files) > 0 {
		tree := filepath.Join(l.dir, "tree")
		if err := os.RemoveAll(tree); err != nil {
			return nil, err
		}
		var size int64
		n := 0
		for n < len(files) && size < l.narBytes {
			copied, err := copyInto(tree, files[n])
			if err != nil {
				return nil, err
			}
			size += copied
			n++
		}
		files = files[n:]
		c, err := l.pack(ctx, tree, len(l.nars))
		if err != nil {
			return nil, err
		}
		l.nars = append(l.nars, c)
	}
	if len(l.nars) == 0 {
		return nil, fmt.Errorf("no readable files for a corpus below /usr")
	}
	return l.nars, os.RemoveAll(filepath.Join(l.dir, "tree"))
}

// realFiles names files of this machine of so many bytes together, none of them as long
// as most.
func realFiles(size, most int64) (files []string, err error) {
	var total int64
	for _, root := range []string{"/usr/lib", "/usr/bin", "/usr/share", "/usr/local/go", "/usr/include"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || total >= size {
				return nil
			}
			if fi, err := d.Info(); err == nil && fi.Size() < most {
				files = append(files, path)
				total += fi.Size()
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("walk %s for the corpus: %w", root, err)
		}
	}
	return files, nil
}

// copyInto links or copies file below root under its own path.
func copyInto(root, file string) (int64, error) {
	to := filepath.Join(root, file)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return 0, err
	}
	in, err := os.Open(file)
	if err != nil {
		return 0, nil // an unreadable file is not part of the corpus
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(out, in)
	if err != nil {
		out.Close()
		return 0, err
	}
	return n, out.Close()
}

// pack writes the NAR of tree to a file.
func (l *lab) pack(ctx context.Context, tree string, i int) (corpusNAR, error) {
	c := corpusNAR{name: fmt.Sprintf("corpus-%d", i), file: filepath.Join(l.dir, fmt.Sprintf("corpus-%d.nar", i))}
	f, err := os.Create(c.file)
	if err != nil {
		return c, err
	}
	defer f.Close()
	h := sha256.New()
	if err := nar.Dump(ctx, io.MultiWriter(f, h), tree); err != nil {
		return c, fmt.Errorf("dump corpus tree %d: %w", i, err)
	}
	c.finish(h.Sum(nil))
	c.size, err = f.Seek(0, io.SeekCurrent)
	return c, err
}

// finish derives a hash part from the NAR hash, as a store would.
func (c *corpusNAR) finish(sum []byte) {
	const digits = "0123456789abcdfghijklmnpqrsvwxyz"
	c.narHash = fmt.Sprintf("%x", sum)
	var b strings.Builder
	for i := range 32 {
		b.WriteByte(digits[sum[i]&31])
	}
	c.hashPart = b.String()
}

// synthetic describes a NAR of one file that is made as it is read: as
// compressible as a typical program and unlike every other seed.
type synthetic struct {
	corpusNAR
	seed uint64
	file int64 // plain bytes of the one file
}

func newSynthetic(seed uint64, size int64) (*synthetic, error) {
	s := &synthetic{seed: seed, file: size &^ 7}
	s.name = fmt.Sprintf("synthetic-%d", seed)
	h := sha256.New()
	n, err := io.Copy(h, s.reader())
	if err != nil {
		return nil, err
	}
	s.size = n
	s.finish(h.Sum(nil))
	return s, nil
}

// reader streams the NAR.
func (s *synthetic) reader() io.Reader {
	str := func(v string) []byte {
		b := binary.LittleEndian.AppendUint64(nil, uint64(len(v)))
		b = append(b, v...)
		return append(b, make([]byte, (8-len(v)%8)%8)...)
	}
	var head []byte
	for _, v := range []string{"nix-archive-1", "(", "type", "regular", "contents"} {
		head = append(head, str(v)...)
	}
	head = binary.LittleEndian.AppendUint64(head, uint64(s.file))
	body := io.LimitReader(&noise{rng: rand.New(rand.NewPCG(s.seed, 7))}, s.file)
	return io.MultiReader(strings.NewReader(string(head)), body, strings.NewReader(string(str(")"))))
}

// noise is an endless stream of which a third of each page is random and the
// rest repeats what came shortly before.
type noise struct {
	rng  *rand.Rand
	page [4096]byte
	left []byte
}

func (n *noise) Read(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		if len(n.left) == 0 {
			for i := 0; i < len(n.page)/3; i += 8 {
				binary.LittleEndian.PutUint64(n.page[i:], n.rng.Uint64())
			}
			copy(n.page[len(n.page)/3:], n.page[:len(n.page)/3])
			copy(n.page[2*(len(n.page)/3):], n.page[:len(n.page)/3])
			n.left = n.page[:]
		}
		k := copy(p[done:], n.left)
		n.left = n.left[k:]
		done += k
	}
	return done, nil
}
