package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// settings are the sizes of one run.
type settings struct {
	celler, versitygw, nginx, zstd string
	dir                            string
	keep                           bool
	corpusBytes                    int64 // plain bytes of real files
	narBytes                       int64 // of one corpus NAR
	largeBytes                     int64 // of one NAR of the memory scenario
	parallel                       int   // pushes and pulls at once in the memory scenario
	tiny                           int   // store paths of the small-path scenario
	indexPaths                     int64 // store paths of the made-up index
	quick                          bool
	contend                        time.Duration // how long replicas compete in the commit scenario
	rounds                         int           // repetitions of a timed step; the median is printed
}

func main() {
	var s settings
	quick := flag.Bool("quick", false, "small sizes, to see that everything runs; its figures mean nothing")
	write := flag.String("write", "", "Markdown `file` whose tables between the bench markers are replaced")
	only := flag.String("only", "", "comma-separated `scenarios` to run: start,bulk,narinfo,cold,tiny,memory,huge,index,collect,commit,idle,delta")
	flag.StringVar(&s.celler, "celler", "bin/celler", "celler binary")
	flag.StringVar(&s.versitygw, "versitygw", ".cache/bin/versitygw", "versitygw binary, the S3 server")
	flag.StringVar(&s.nginx, "nginx", "/usr/sbin/nginx", "nginx binary, the peer for reads")
	flag.StringVar(&s.zstd, "zstd", "/usr/bin/zstd", "zstd binary, the peer for compression")
	flag.StringVar(&s.dir, "dir", ".cache/bench", "scratch directory")
	flag.Int64Var(&s.indexPaths, "index", 10_000_000, "store `paths` of the made-up index, each of ten chunks")
	flag.BoolVar(&s.keep, "keep", false, "keep the scratch directory")
	flag.DurationVar(&s.contend, "contend", 30*time.Second, "how long replicas compete in each row of the commit scenario, and how long idle ones are watched")
	flag.Parse()
	s.corpusBytes, s.narBytes, s.largeBytes, s.parallel, s.tiny, s.rounds = 1<<30, 128<<20, 1_000_000_000, 16, 500, 5
	if *quick {
		s.corpusBytes, s.narBytes, s.largeBytes, s.parallel, s.tiny, s.rounds = 64<<20, 32<<20, 32<<20, 4, 50, 2
		s.indexPaths /= 100
		s.quick = true
		s.contend = 5 * time.Second
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, s, *only, *write, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

// scenario is one group of figures and its name for -only.
type scenario struct {
	name string
	run  func(context.Context, *lab) error
}

func run(ctx context.Context, s settings, only, write string, out io.Writer) (err error) {
	abs, err := filepath.Abs(s.dir)
	if err != nil {
		return err
	}
	s.dir = abs
	l := &lab{settings: s, out: out}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, l.close())
	}()
	for _, sc := range []scenario{
		{"start", startup},
		{"bulk", bulk},
		{"narinfo", narinfos},
		{"cold", cold},
		{"tiny", tiny},
		{"memory", memory},
		{"huge", huge},
		{"index", largeIndex},
		{"collect", collect},
		{"commit", commits},
		{"idle", idle},
		{"delta", delta},
	} {
		if only != "" && !strings.Contains(","+only+",", ","+sc.name+",") {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %s\n", sc.name)
		if err := sc.run(ctx, l); err != nil {
			return fmt.Errorf("scenario %s: %w", sc.name, err)
		}
		l.stopAll()
		if write != "" { // what was measured is kept, whatever comes
			if err := replaceTable(write, l.table(), true); err != nil {
				return err
			}
		}
	}
	table := l.table()
	fmt.Fprint(out, table)
	if write == "" {
		return nil
	}
	return replaceTable(write, table, only != "")
}
