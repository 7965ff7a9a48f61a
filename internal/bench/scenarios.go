package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// startup times exec to ready on an empty bucket.
func startup(ctx context.Context, l *lab) error {
	var ms []float64
	for i := range l.rounds {
		s, err := l.serve(ctx, filepath.Join(l.dir, fmt.Sprint("start-bucket", i)), filepath.Join(l.dir, fmt.Sprint("start-local", i)))
		if err != nil {
			return err
		}
		ms = append(ms, s.ready.Seconds()*1000)
		l.stopAll()
	}
	m := median(ms)
	l.add("start", "exec to ready, empty bucket", fmt.Sprintf("%.0f ms", m), "", "", target(m <= 300, "≤ 300 ms"))
	return nil
}

// bulk pushes the corpus to a local bucket and pulls it back, resident, beside
// the zstd command on the same bytes and nginx on the same files.
func bulk(ctx context.Context, l *lab) error {
	nars, err := l.corpus(ctx)
	if err != nil {
		return err
	}
	bucket := filepath.Join(l.dir, "bulk-bucket")
	s, err := l.serve(ctx, bucket, filepath.Join(l.dir, "bulk-local"))
	if err != nil {
		return err
	}
	if err := s.createCache(ctx, "bench"); err != nil {
		return err
	}
	var plain int64
	begin, cpu0 := time.Now(), must(s.cpuSeconds())
	for _, c := range nars {
		if err := s.pushFile(ctx, "bench", c); err != nil {
			return err
		}
		plain += c.size
	}
	wall, cpu := time.Since(begin).Seconds(), must(s.cpuSeconds())-cpu0
	mb := float64(plain) / 1e6
	zwall, zbytes, err := l.zstdAll(ctx, nars)
	if err != nil {
		return err
	}
	l.add("push", "new data, one connection, local bucket", mbps(mb/wall), mbps(mb/zwall)+" zstd -3 -T2", fmt.Sprintf("%.2f", zwall/wall), "")
	l.add("push", "server CPU per MB of NAR", fmt.Sprintf("%.2f ms", cpu*1000/mb), "", "", "")
	stored, err := dirBytes(bucket)
	if err != nil {
		return err
	}
	l.add("push", "stored bytes per plain byte", fmt.Sprintf("%.3f", float64(stored)/float64(plain)), fmt.Sprintf("%.3f zstd -3 per NAR", float64(zbytes)/float64(plain)), fmt.Sprintf("%.2f", float64(stored)/float64(zbytes)), "")
	if err := l.pushRequests(s, stored, plain); err != nil {
		return err
	}
	if err := l.resident(ctx, s, nars); err != nil {
		return err
	}
	peak, err := s.peakRSS()
	if err != nil {
		return err
	}
	l.add("push and pull", "peak resident memory of the server", fmt.Sprintf("%d MiB", peak>>20), "", "", "")
	return nil
}

// pushRequests prints what the push cost the bucket.
func (l *lab) pushRequests(s *server, stored, plain int64) error {
	req, err := s.bucketRequests()
	if err != nil {
		return err
	}
	gb := float64(plain) / 1e9
	l.add("push", "bucket requests per GB: put, create, get, list", fmt.Sprintf("%.1f, %.1f, %.1f, %.1f", req["put"]/gb, req["create"]/gb, reads(req)/gb, req["list"]/gb), "", "", "")
	perPut := float64(stored) / max(req["put"], 1) / (1 << 20)
	l.add("push", "compressed MiB per data PUT", fmt.Sprintf("%.1f", perPut), "", "", target(perPut >= 8, "≥ 8 MiB"))
	return nil
}

func (s *server) pushFile(ctx context.Context, cache string, c corpusNAR) error {
	f, err := os.Open(c.file)
	if err != nil {
		return err
	}
	defer f.Close()
	return s.push(ctx, cache, c, f)
}

func (l *lab) zstdAll(ctx context.Context, nars []corpusNAR) (wall float64, size int64, err error) {
	for _, c := range nars {
		out := filepath.Join(l.dir, "peer.zst")
		begin := time.Now()
		if text, err := exec.CommandContext(ctx, l.zstd, "-q", "-f", "-3", "-T2", c.file, "-o", out).CombinedOutput(); err != nil {
			return 0, 0, fmt.Errorf("zstd: %w: %s", err, text)
		}
		wall += time.Since(begin).Seconds()
		fi, err := os.Stat(out)
		if err != nil {
			return 0, 0, err
		}
		size += fi.Size()
	}
	return wall, size, nil
}

// resident pulls every NAR once to make it resident, lets nginx serve the same
// bytes, and times both in turn.
func (l *lab) resident(ctx context.Context, s *server, nars []corpusNAR) error {
	root := filepath.Join(l.dir, "nginx-files")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	var ours, theirs []string
	peer, err := l.nginxServe(root)
	if err != nil {
		return err
	}
	for i, c := range nars {
		_, u, err := narinfo(ctx, s.endpoint+"/bench", c)
		if err != nil {
			return err
		}
		body, err := get(ctx, u)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("%d.nar.zst", i)
		if err := os.WriteFile(filepath.Join(root, name), body, 0o644); err != nil {
			return err
		}
		ours, theirs = append(ours, u), append(theirs, peer+"/"+name)
	}
	for _, conns := range []int{1, 4, 16} {
		var a, b, r []float64
		for range l.rounds {
			n, d, err := pullAll(ctx, ours, conns)
			if err != nil {
				return err
			}
			m, e, err := pullAll(ctx, theirs, conns)
			if err != nil {
				return err
			}
			a, b = append(a, float64(n)/1e6/d.Seconds()), append(b, float64(m)/1e6/e.Seconds())
			r = append(r, a[len(a)-1]/b[len(b)-1])
		}
		ratio, verdict := median(r), ""
		if conns == 1 {
			verdict = target(ratio >= 0.7, "≥ 0.7")
		}
		l.add("pull", fmt.Sprintf("resident NARs, %d connections, wire bytes", conns), mbps(median(a)), mbps(median(b))+" nginx", fmt.Sprintf("%.2f", ratio), verdict)
	}
	return nil
}

// narinfos compares narinfo answers with nginx on the same files.
func narinfos(ctx context.Context, l *lab) error {
	s, err := l.serve(ctx, filepath.Join(l.dir, "narinfo-bucket"), filepath.Join(l.dir, "narinfo-local"))
	if err != nil {
		return err
	}
	if err := s.createCache(ctx, "bench"); err != nil {
		return err
	}
	root := filepath.Join(l.dir, "nginx-narinfo", "bench")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	peer, err := l.nginxServe(filepath.Dir(root))
	if err != nil {
		return err
	}
	var paths []string
	for i := range l.tiny {
		n, err := newSynthetic(uint64(i), 4096)
		if err != nil {
			return err
		}
		if err := s.push(ctx, "bench", n.corpusNAR, n.reader()); err != nil {
			return err
		}
		text, _, err := narinfo(ctx, s.endpoint+"/bench", n.corpusNAR)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(root, n.hashPart+".narinfo"), text, 0o644); err != nil {
			return err
		}
		paths = append(paths, "/bench/"+n.hashPart+".narinfo")
	}
	for _, conns := range []int{1, 16} {
		var a, b, p50, p99 []float64
		for range l.rounds {
			rate, lat, err := hammer(ctx, s.endpoint, paths, conns, 2*time.Second)
			if err != nil {
				return err
			}
			peerRate, _, err := hammer(ctx, peer, paths, conns, 2*time.Second)
			if err != nil {
				return err
			}
			a, b = append(a, rate), append(b, peerRate)
			p50, p99 = append(p50, lat[len(lat)/2]*1e6), append(p99, lat[len(lat)*99/100]*1e6)
		}
		l.add("narinfo", fmt.Sprintf("hits, %d connections", conns), fmt.Sprintf("%.0f/s, p50 %.0f µs, p99 %.0f µs", median(a), median(p50), median(p99)), fmt.Sprintf("%.0f/s nginx", median(b)), fmt.Sprintf("%.2f", median(a)/median(b)), "")
	}
	return nil
}

// cold pulls one large NAR that only a bucket with 50 ms to the first byte has.
func cold(ctx context.Context, l *lab) error {
	addr, env, err := l.s3()
	if err != nil {
		return err
	}
	w, err := l.serve(ctx, s3URL(addr), filepath.Join(l.dir, "cold-writer"), env...)
	if err != nil {
		return err
	}
	if err := w.createCache(ctx, "bench"); err != nil {
		return err
	}
	n, err := newSynthetic(1<<40, min(l.largeBytes, 1_000_000_000))
	if err != nil {
		return err
	}
	if err := w.push(ctx, "bench", n.corpusNAR, n.reader()); err != nil {
		return err
	}
	slow, stop, err := delayed(addr, 50*time.Millisecond)
	if err != nil {
		return err
	}
	defer stop()
	var rate []float64
	for i := range min(l.rounds, 3) {
		r, err := l.serve(ctx, s3URL(slow), filepath.Join(l.dir, fmt.Sprint("cold-reader", i)), env...)
		if err != nil {
			return err
		}
		_, u, err := narinfo(ctx, r.endpoint+"/bench", n.corpusNAR)
		if err != nil {
			return err
		}
		before, err := r.bucketRequests()
		if err != nil {
			return err
		}
		wire, d, err := pullAll(ctx, []string{u}, 1)
		if err != nil {
			return err
		}
		after, err := r.bucketRequests()
		if err != nil {
			return err
		}
		rate = append(rate, float64(n.size)/1e6/d.Seconds())
		if i == 0 {
			gets := reads(after) - reads(before)
			l.add("cold pull", "bucket GETs per GB of NAR", fmt.Sprintf("%.0f", gets*1e9/float64(n.size)), "", "", "")
			l.add("cold pull", "wire bytes per plain byte", fmt.Sprintf("%.3f", float64(wire)/float64(n.size)), "", "", "")
		}
	}
	m := median(rate)
	l.add("cold pull", "one NAR, bucket with 50 ms to the first byte, NAR bytes", mbps(m), "", "", target(m >= 100, "≥ 100 MB/s"))
	return nil
}

// delayed is a proxy in front of an S3 server that waits before each answer.
func delayed(addr string, wait time.Duration) (string, func(), error) {
	u := &url.URL{Scheme: "http", Host: addr}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(u); r.Out.Host = r.In.Host },
		ModifyResponse: func(*http.Response) error {
			time.Sleep(wait)
			return nil
		},
		Transport: &http.Transport{MaxIdleConnsPerHost: 128, DisableCompression: true},
	}
	listen, err := freeAddr()
	if err != nil {
		return "", nil, err
	}
	srv := &http.Server{Addr: listen, Handler: proxy, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.ListenAndServe() }()
	return listen, func() { _ = srv.Close(); <-done }, waitTCP(listen)
}

// must unwraps a figure read from /proc, which exists while the child runs.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
