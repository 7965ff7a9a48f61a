package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

type settings struct {
	dir      string
	large    bool
	exact    bool
	variants bool
	verify   bool
	peers    bool
	prepare  bool
	stores   bool
	memory   int64
	write    string
}

// section names the part of a document that these settings fill.
func (s settings) section() string {
	switch {
	case s.memory > 0:
		return "memory"
	case s.large:
		return "large"
	}
	return "small"
}

func main() {
	var s settings
	flag.StringVar(&s.dir, "dir", ".cache/bench-storage", "directory of the corpus")
	flag.BoolVar(&s.large, "large", false, "the corpus of 1.5 GB a generation instead of 200 MB")
	flag.BoolVar(&s.exact, "exact", false, "compress whole NARs with xz, not 12 MiB from the middle of large ones, and generation b too instead of taking it to be like a")
	flag.BoolVar(&s.variants, "variants", false, "also measure what was not chosen")
	flag.BoolVar(&s.verify, "verify", false, "decode everything that is served and compare")
	flag.BoolVar(&s.peers, "peers", true, "also compress with zstd and xz, which takes much longer than all the rest the first time")
	flag.BoolVar(&s.stores, "stores", true, "also store, and do not only compress")
	flag.BoolVar(&s.prepare, "prepare", false, "only make the corpus")
	flag.Int64Var(&s.memory, "memory", 0, "do nothing but write and read NARs of so many bytes together, and print the most memory used")
	flag.StringVar(&s.write, "write", "", "Markdown file whose part between the markers large, small or memory is replaced by what is printed")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var printed bytes.Buffer
	err := run(ctx, s, io.MultiWriter(os.Stdout, &printed))
	if err == nil && s.write != "" {
		err = replaceSection(s.write, s.section(), printed.Bytes())
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "benchstorage: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s settings, out io.Writer) error {
	if s.memory > 0 {
		return memory(ctx, s, out)
	}
	sources := smallCorpus()
	if s.large {
		sources = largeCorpus()
	}
	if err := corpus(ctx, s.dir, sources); err != nil {
		return err
	}
	if s.prepare {
		return nil
	}
	t := table{out: out}
	for i, g := range generations {
		for _, src := range sources {
			info, err := os.Stat(narPath(s.dir, byte(g), src))
			if err != nil {
				return err
			}
			t.plain[i] += info.Size()
		}
	}
	t.header(len(sources))
	for _, v := range variants(s.variants) {
		if !s.stores {
			break
		}
		r, err := measureStore(ctx, s, sources, v)
		if err != nil {
			return fmt.Errorf("%s: %w", v.label, err)
		}
		t.row(r)
	}
	if !s.peers {
		return nil
	}
	for _, p := range compressors(s.exact) {
		r, err := measurePeer(ctx, s, sources, p)
		if err != nil {
			return err
		}
		t.row(r)
	}
	t.limits()
	return nil
}

func measurePeer(ctx context.Context, s settings, sources []source, p peer) (result, error) {
	r := result{label: p.label, peer: p.command[0]}
	for i, g := range generations {
		for _, src := range sources {
			if g == 'b' && p.likeA {
				g = 'a'
			}
			size, cpu, err := p.measure(ctx, narPath(s.dir, byte(g), src))
			if err != nil {
				return r, err
			}
			r.gen[i].stored += size
			r.gen[i].wire += size
			r.gen[i].ingest += cpu
		}
	}
	return r, nil
}

// cpuTime returns the CPU time this process has used.
func cpuTime() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("getrusage: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}
