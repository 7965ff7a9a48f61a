package nixstore

import (
	"bytes"
	"io"
	"testing"

	"github.com/celler/celler/nix"
)

// canned is a daemon that says what it was told to, whatever it is asked.
type canned struct{ io.Reader }

func (canned) Write(b []byte) (int, error) { return len(b), nil }
func (canned) Close() error                { return nil }

// FuzzDaemon feeds the client whatever a daemon might say: it must come back,
// with infos only for paths of its own store.
func FuzzDaemon(f *testing.F) {
	paths, infos := mkInfos(f, 3)
	for _, minor := range []uint64{21, 26, 35, 38} {
		fake := &fakeDaemon{minor: minor, infos: infos, noise: true}
		f.Add(record(f, fake, func(s *Store) error {
			_, err := s.Closure(f.Context(), paths[2:])
			return err
		}))
		f.Add(appendError(appendUint64(appendUint64(nil, magicDaemon), 1<<8|minor), "x", minor))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := newConn(t.Context(), canned{bytes.NewReader(b)}, nil)
		if err != nil {
			return
		}
		s := &Store{o: Options{}.withDefaults(), c: c}
		closure, err := s.Closure(t.Context(), paths[2:])
		if err != nil {
			return
		}
		for _, info := range closure {
			for _, ref := range info.References {
				if ref.Dir() != nix.DefaultStoreDir {
					t.Errorf("reference %v", ref)
				}
			}
		}
	})
}
