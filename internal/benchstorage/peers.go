package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// peer compresses whole NARs with a program.
type peer struct {
	label   string
	command []string
	sample  int64 // compress at most so many bytes of a NAR and scale up; 0 = all
	likeA   bool  // take generation b to be like a: it is, but for the hashes
}

func compressors(exact bool) []peer {
	sample := int64(12 << 20)
	if exact {
		sample = 0
	}
	return []peer{
		{label: "zstd -3, whole NARs", command: []string{"zstd", "-3", "-q", "-c"}},
		{label: "xz -6, whole NARs", command: []string{"xz", "-6", "-T1", "-q", "-c"}, sample: sample, likeA: !exact},
	}
}

// measure returns the compressed size of a NAR and the time its compression took.
// The result is kept beside the NAR: it never changes, and xz is slow.
func (p peer) measure(ctx context.Context, path string) (size int64, cpu time.Duration, err error) {
	kept := fmt.Sprintf("%s.%s-%d", path, p.command[0], p.sample)
	if b, err := os.ReadFile(kept); err == nil {
		if _, err := fmt.Sscan(string(b), &size, &cpu); err == nil {
			return size, cpu, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return 0, 0, err
	}
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	var in io.Reader = bufio.NewReaderSize(f, 1<<20)
	scale := 1.0
	if p.sample > 0 && info.Size() > p.sample {
		in = io.NewSectionReader(f, (info.Size()-p.sample)/2, p.sample)
		scale = float64(info.Size()) / float64(p.sample)
	}
	cmd := exec.CommandContext(ctx, "nice", append([]string{"-n", "19"}, p.command...)...)
	cmd.Stdin = in
	var out counter
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		return 0, 0, fmt.Errorf("%s of %s: %w", strings.Join(p.command, " "), filepath.Base(path), err)
	}
	size = int64(float64(out) * scale)
	cpu = time.Duration(float64(cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime()) * scale)
	return size, cpu, os.WriteFile(kept, fmt.Appendf(nil, "%d %d\n", size, cpu), 0o644)
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
