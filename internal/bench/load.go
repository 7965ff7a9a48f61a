package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// call makes one API request with the server's token.
func (s *server) call(ctx context.Context, method, path string, body io.Reader, header map[string]string) error {
	req, err := http.NewRequestWithContext(ctx, method, s.endpoint+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+s.token)
	for k, v := range header {
		req.Header.Set(k, v)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(res.Body, 4096))
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s: %s", method, path, res.Status, text)
	}
	return nil
}

func (s *server) createCache(ctx context.Context, name string) error {
	return s.createCacheAt(ctx, name, "/nix/store")
}

func (s *server) createCacheAt(ctx context.Context, name, storeDir string) error {
	body := `{"keypair":"Generate","is_public":true,"store_dir":"` + storeDir + `","priority":41,"upstream_cache_key_names":[]}`
	return s.call(ctx, http.MethodPost, "/_api/v1/cache-config/"+name, strings.NewReader(body), map[string]string{"Content-Type": "application/json"})
}

// push uploads one NAR by the upload call every client speaks.
func (s *server) push(ctx context.Context, cache string, c corpusNAR, body io.Reader) error {
	info, err := json.Marshal(map[string]any{
		"cache": cache, "store_path_hash": c.hashPart, "store_path": c.storePath(), "references": []string{},
		"system": nil, "deriver": nil, "sigs": []string{}, "ca": nil, "nar_hash": "sha256:" + c.narHash, "nar_size": c.size,
	})
	if err != nil {
		return err
	}
	return s.call(ctx, http.MethodPut, "/_api/v1/upload-path", body, map[string]string{"X-Celler-Nar-Info": string(info)})
}

// get fetches one URL and returns its body.
func get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(res.Body); err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("get %s: %s: %.200s", url, res.Status, b.Bytes())
	}
	return b.Bytes(), nil
}

// narinfo fetches the narinfo of c and returns it with the URL of its NAR.
func narinfo(ctx context.Context, cacheURL string, c corpusNAR) (text []byte, narURL string, err error) {
	text, err = get(ctx, cacheURL+"/"+c.hashPart+".narinfo")
	if err != nil {
		return nil, "", err
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "URL: "); ok {
			return text, cacheURL + "/" + strings.TrimSpace(v), nil
		}
	}
	return nil, "", fmt.Errorf("narinfo of %s has no URL:\n%s", c.storePath(), text)
}

// pullAll fetches every URL once over the given number of connections and
// returns the wire bytes and the wall time.
func pullAll(ctx context.Context, urls []string, conns int) (int64, time.Duration, error) {
	var total atomic.Int64
	work := make(chan string, len(urls))
	for _, u := range urls {
		work <- u
	}
	close(work)
	errs := make([]error, conns)
	var wg sync.WaitGroup
	begin := time.Now()
	for i := range conns {
		wg.Go(func() {
			buf := make([]byte, 256<<10)
			for u := range work {
				n, err := drain(ctx, u, buf)
				total.Add(n)
				if err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return 0, 0, err
		}
	}
	return total.Load(), time.Since(begin), nil
}

func drain(ctx context.Context, url string, buf []byte) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("get %s: %s", url, res.Status)
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{res.Body}, buf)
	if err == nil && res.ContentLength >= 0 && n != res.ContentLength {
		err = fmt.Errorf("get %s: %d bytes of %d", url, n, res.ContentLength)
	}
	return n, err
}

// hammer sends GET requests for the paths over keep-alive connections with as
// little client work as possible, and returns the rate and latencies in seconds.
func hammer(ctx context.Context, endpoint string, paths []string, conns int, span time.Duration) (rate float64, latency []float64, err error) {
	addr := strings.TrimPrefix(endpoint, "http://")
	var mu sync.Mutex
	var wg sync.WaitGroup
	begin := time.Now()
	until := begin.Add(span)
	for i := range conns {
		wg.Go(func() {
			lat, e := hammerOne(ctx, addr, paths, i, until)
			mu.Lock()
			defer mu.Unlock()
			latency = append(latency, lat...)
			if e != nil {
				err = e
			}
		})
	}
	wg.Wait()
	if err != nil {
		return 0, nil, err
	}
	slices.Sort(latency)
	return float64(len(latency)) / time.Since(begin).Seconds(), latency, nil
}

func hammerOne(ctx context.Context, addr string, paths []string, at int, until time.Time) (lat []float64, err error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	r := bufio.NewReaderSize(c, 16<<10)
	for i := at; time.Now().Before(until); i++ {
		begin := time.Now()
		if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", paths[i%len(paths)], addr); err != nil {
			return nil, err
		}
		if err := readResponse(r); err != nil {
			return nil, fmt.Errorf("get %s: %w", paths[i%len(paths)], err)
		}
		lat = append(lat, time.Since(begin).Seconds())
	}
	return lat, nil
}

// readResponse consumes one response that has a Content-Length.
func readResponse(r *bufio.Reader) error {
	length := -1
	for first := true; ; first = false {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if first && !bytes.Contains(line, []byte(" 200 ")) {
			return fmt.Errorf("answered %s", bytes.TrimSpace(line))
		}
		if len(line) > 16 && strings.EqualFold(string(line[:15]), "content-length:") {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(line[15:]))); err != nil {
				return err
			}
		}
		if len(line) <= 2 {
			break
		}
	}
	if length < 0 {
		return fmt.Errorf("answered without Content-Length")
	}
	_, err := r.Discard(length)
	return err
}
