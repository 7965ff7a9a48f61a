package httpapi_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/celler/celler/nix/nixtest"
)

// BenchmarkNarInfo is a hit and a miss without the network, token included.
func BenchmarkNarInfo(b *testing.B) {
	n := mkNode(b, nil, func(o *nodeOptions) { o.http.Logger = nil })
	n.mkCache("c", false)
	p := mkPath(b, "p", 1, 1000)
	n.push("c", p)
	h := n.srv.Config.Handler
	header := "bearer " + n.token("c: pull")
	for name, part := range map[string]string{"hit": p.Info.StorePath.HashPart().String(), "miss": "00bgd045z0d4icpbc2yyz4gx48ak44la"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r := httptest.NewRequest("GET", "/c/"+part+".narinfo", nil)
				r.Header.Set("Authorization", header)
				h.ServeHTTP(httptest.NewRecorder(), r)
			}
		})
	}
}

// BenchmarkUpload pushes NARs of 64 MiB of which none, or all, is known.
func BenchmarkUpload(b *testing.B) {
	const size = 64 << 20
	text := []byte(strings.Repeat("Some text that is not random, but not all the same either. ", 1+size/59))[:size]
	for i := 0; i < len(text); i += 97 {
		text[i] = byte(i * 31 >> 7)
	}
	for _, known := range []bool{false, true} {
		b.Run(fmt.Sprint("known=", known), func(b *testing.B) {
			n := mkNode(b, nil, func(o *nodeOptions) { o.http.Logger = nil })
			n.mkCache("c", false)
			token := n.token("c: push")
			b.SetBytes(size)
			i := 0
			for b.Loop() {
				b.StopTimer()
				if !known {
					for k := 0; k < len(text); k += 4096 {
						text[k] = byte(i)
						text[k+1]++
					}
				}
				p := nixtest.MkPath(b, fmt.Sprint("p", i), nixtest.File{Contents: text})
				i++
				b.StartTimer()
				n.upload(token, infoOf("c", p), p.NAR).want(b, 200, "")
			}
		})
	}
}

// BenchmarkDownload pulls one NAR over one connection, from the bucket and as a resident file.
func BenchmarkDownload(b *testing.B) {
	for _, resident := range []bool{false, true} {
		b.Run(fmt.Sprint("resident=", resident), func(b *testing.B) {
			n := mkNode(b, nil, func(o *nodeOptions) {
				o.http.Logger = nil
				if resident {
					o.chunks.Dir = b.TempDir()
				}
			})
			n.mkCache("c", true)
			p := nixtest.MkPath(b, "p", nixtest.File{Contents: noise(64 << 20)})
			n.push("c", p)
			url := n.srv.URL + "/c/" + n.narInfo("c", p.Info.StorePath.HashPart(), "").URL
			b.SetBytes(64 << 20)
			for b.Loop() {
				resp, err := http.Get(url) //nolint:noctx // a benchmark
				must(b, err)
				_, err = io.Copy(io.Discard, resp.Body)
				must(b, err)
				resp.Body.Close()
			}
			http.DefaultClient.CloseIdleConnections()
		})
	}
}

// BenchmarkMillion is get-missing-paths for a million hash parts.
func BenchmarkMillion(b *testing.B) {
	n := mkNode(b, nil, func(o *nodeOptions) { o.http.Logger = nil })
	n.mkCache("c", false)
	body := mkHashes("c", 1_000_000)
	token := n.token("c: push")
	b.ReportAllocs()
	for b.Loop() {
		n.call("POST", "/_api/v1/get-missing-paths", token, body, "Content-Type", "application/json").want(b, 200, "")
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.HeapSys>>20), "MB-heap")
}
