package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/blob/fileblob"
)

// synthetic is a stream that compresses to about a third and never repeats.
type synthetic struct {
	random *rand.ChaCha8
	left   int64
}

func (s *synthetic) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), s.left)]
	s.random.Read(p)
	for i := range p { // a third of the bits carry something
		p[i] &= 0x07
	}
	s.left -= int64(len(p))
	return len(p), nil
}

// memory writes large NARs at once and reads them at once, half of the readers
// stopping early, and prints the most memory the process ever had.
func memory(ctx context.Context, s settings, out io.Writer) error {
	dir := filepath.Join(s.dir, "memory")
	defer os.RemoveAll(dir)
	bucket, err := fileblob.Open(dir, fileblob.Options{})
	if err != nil {
		return err
	}
	meta := newDirectory()
	store, err := chunkstore.New(bucket, meta, chunkstore.Options{})
	if err != nil {
		return err
	}
	defer store.Close()
	const writers = 8
	recipes := make([]chunk.Recipe, writers)
	errs := make([]error, writers)
	before, err := peak()
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	for i := range recipes {
		wg.Go(func() {
			res, err := store.Write(ctx, &synthetic{rand.NewChaCha8([32]byte{byte(i)}), s.memory / writers})
			if err == nil {
				err = meta.publish(ctx, res)
			}
			recipes[i], errs[i] = res.Recipe, err
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	debug.FreeOSMemory()
	written, err := peak()
	if err != nil {
		return err
	}
	if err := readAll(ctx, store, recipes); err != nil {
		return err
	}
	read, err := peak()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Peak resident memory of the process: %s at the start, %s after %d NARs of %s MB were written at once (budget 64 MiB), %s after each was read by 4 clients, 2 of which stand still (budget 96 MiB). The index in memory of this program has %s of rows.\n",
		before, written, writers, mb(s.memory/writers), read, mb(meta.bytes))
	return nil
}

func readAll(ctx context.Context, store *chunkstore.Store, recipes []chunk.Recipe) error {
	var wg sync.WaitGroup
	errs := make([]error, 2*len(recipes))
	for i := range errs {
		r := &recipes[i%len(recipes)]
		still, err := store.Open(ctx, r)
		if err != nil {
			return err
		}
		defer still.Close()
		if _, err := io.ReadFull(still, make([]byte, 100_000)); err != nil {
			return err
		}
		wg.Go(func() {
			rd, err := store.Open(ctx, r)
			if err == nil {
				_, err = io.Copy(io.Discard, rd)
				rd.Close()
			}
			errs[i] = err
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// peak returns the most memory this process has had, as Linux tells.
func peak() (string, error) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			return strings.TrimSpace(v), nil
		}
	}
	return "", fmt.Errorf("no VmHWM in /proc/self/status")
}
