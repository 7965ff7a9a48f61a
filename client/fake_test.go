package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/nixstore"
	"github.com/celler/celler/nix"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeStore is a local store made of byte strings; the client does not care that they
// are no NARs.
type fakeStore struct {
	infos   []nixstore.PathInfo // references first
	content map[nix.StorePath][]byte
	dump    func(io.Writer, nix.StorePath) error // replaces content

	mu    sync.Mutex
	roots []nix.StorePath
	dumps int

	infoCalls, infoPaths int // of PathInfos
}

// add makes a path that refers to the earlier paths refs.
func (s *fakeStore) add(content string, refs ...nix.StorePath) nix.StorePath {
	p := mkPath(fmt.Sprintf("p%d", len(s.infos)))
	s.addPath(p, []byte(content), refs...)
	return p
}

func (s *fakeStore) addPath(p nix.StorePath, content []byte, refs ...nix.StorePath) {
	if s.content == nil {
		s.content = map[nix.StorePath][]byte{}
	}
	s.content[p] = content
	s.infos = append(s.infos, nixstore.PathInfo{
		StorePath: p, NarHash: nix.SHA256Hash(sha256.Sum256(content)), NarSize: int64(len(content)), References: refs,
	})
}

func mkPath(name string) nix.StorePath {
	var hashPart nix.HashPart
	sum := sha256.Sum256([]byte(name))
	copy(hashPart[:], sum[:])
	p, err := nix.ParseStorePath("/nix/store/" + hashPart.String() + "-" + name)
	if err != nil {
		panic(err)
	}
	return p
}

func (s *fakeStore) Resolve(name string) (nix.StorePath, error) { return nix.ParseStorePath(name) }

func (s *fakeStore) Closure(context.Context, []nix.StorePath) ([]nixstore.PathInfo, error) {
	return s.infos, nil
}

func (s *fakeStore) PathInfos(_ context.Context, paths []nix.StorePath) (infos []nixstore.PathInfo, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.infoCalls++
	for _, p := range paths {
		s.infoPaths++
		at := slices.IndexFunc(s.infos, func(info nixstore.PathInfo) bool { return info.StorePath == p })
		if at < 0 {
			return nil, errors.New("no such path")
		}
		infos = append(infos, s.infos[at])
	}
	return infos, nil
}

func (s *fakeStore) AddTempRoot(_ context.Context, paths ...nix.StorePath) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roots = append(s.roots, paths...)
	return nil
}

func (s *fakeStore) Dump(_ context.Context, w io.Writer, p nix.StorePath) error {
	s.mu.Lock()
	s.dumps++
	s.mu.Unlock()
	if s.dump != nil {
		return s.dump(w, p)
	}
	_, err := io.Copy(w, bytes.NewReader(s.content[p]))
	return err
}

// last is the root that stands for the whole store.
func (s *fakeStore) last() string { return s.infos[len(s.infos)-1].StorePath.String() }

// fakeServer is a cache that checks what it is sent. Its script decides about each
// upload before the body is read: nil = take it.
type fakeServer struct {
	t      *testing.T
	script func(n int, w http.ResponseWriter, r *http.Request, info wire.UploadInfo) bool // true = handled
	config wire.CacheConfig

	mu      sync.Mutex
	have    map[string]bool        // by base name
	order   []string               // in which uploads ended, and pins were set: "pin <name> <path's name> upload|later"
	gone    func(name string) bool // pins whose path vanishes before it is pinned; nil = none
	early   []string               // uploads that began before their references were there
	uploads int
	asked   int // get-missing-paths
	running int
	most    int
}

func newFakeServer(t *testing.T) *fakeServer {
	return &fakeServer{
		t: t, have: map[string]bool{},
		config: wire.CacheConfig{StoreDir: ptr("/nix/store"), UpstreamCacheKeyNames: &[]string{"cache.nixos.org-1"}},
	}
}

func ptr[T any](v T) *T { return &v }

func (f *fakeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, "/_api/v1/cache-config/"):
		_ = json.NewEncoder(w).Encode(f.config)
	case r.URL.Path == "/_api/v1/get-missing-paths":
		f.missing(w, r)
	case r.Method == http.MethodPut && r.URL.Path == "/_api/v1/upload-path":
		f.upload(w, r)
	case r.Method == http.MethodPut && strings.HasPrefix(r.URL.Path, "/_api/v1/caches/ci/pins/"):
		f.setPin(w, r, strings.TrimPrefix(r.URL.Path, "/_api/v1/caches/ci/pins/"))
	default:
		refuse(w, http.StatusNotFound, wire.ErrorNotFound, "The URL you requested was not found.")
	}
}

func refuse(w http.ResponseWriter, status int, name, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(wire.Error{Code: status, Name: name, Message: message})
}

func (f *fakeServer) missing(w http.ResponseWriter, r *http.Request) {
	var ask wire.MissingPathsRequest
	_ = json.NewDecoder(r.Body).Decode(&ask)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	answer := wire.MissingPathsResponse{MissingPaths: []string{}}
	for _, hashPart := range ask.StorePathHashes {
		if !slices.ContainsFunc(keysOf(f.have), func(base string) bool { return strings.HasPrefix(base, hashPart) }) {
			answer.MissingPaths = append(answer.MissingPaths, hashPart)
		}
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func keysOf(m map[string]bool) (keys []string) {
	for k, v := range m {
		if v {
			keys = append(keys, k)
		}
	}
	return keys
}

func (f *fakeServer) upload(w http.ResponseWriter, r *http.Request) {
	info, body, err := readUpload(r)
	if err != nil {
		refuse(w, http.StatusBadRequest, wire.ErrorRequest, err.Error())
		return
	}
	f.mu.Lock()
	f.uploads++
	n := f.uploads
	f.running++
	f.most = max(f.most, f.running)
	for _, ref := range info.References {
		if known, ok := f.have[ref]; ok && !known && !strings.HasSuffix(info.StorePath, ref) {
			f.early = append(f.early, info.StorePath)
		}
	}
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.running--
		f.mu.Unlock()
	}()
	if f.script != nil && f.script(n, w, r, info) {
		return
	}
	sum := sha256.New()
	size, err := io.Copy(sum, body)
	if err != nil {
		refuse(w, http.StatusBadRequest, wire.ErrorRequest, err.Error())
		return
	}
	if got := fmt.Sprintf("sha256:%x", sum.Sum(nil)); got != info.NarHash || size != info.NarSize {
		refuse(w, http.StatusBadRequest, wire.ErrorRequest, fmt.Sprintf("expected %s of %d bytes, received %s of %d", info.NarHash, info.NarSize, got, size))
		return
	}
	f.took(info)
	result := wire.UploadResult{Kind: wire.KindUploaded, FileSize: &size, FracDeduplicated: ptr(0.25)}
	if info.Pin != nil {
		result.Pin = f.pin(info.Pin.Name, info.StorePath, "upload")
	}
	_ = json.NewEncoder(w).Encode(result)
}

// setPin answers PUT pins, which a push only uses for paths that are there.
func (f *fakeServer) setPin(w http.ResponseWriter, r *http.Request, name string) {
	var req wire.PinRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil || !req.Present {
		refuse(w, http.StatusBadRequest, wire.ErrorRequest, "a pin of a push must insist on its path")
		return
	}
	f.mu.Lock()
	base := strings.TrimPrefix(req.StorePath, "/nix/store/")
	if f.gone != nil && f.gone(name) {
		f.have[base] = false
	}
	there := f.have[base]
	f.mu.Unlock()
	if !there {
		refuse(w, http.StatusNotFound, wire.ErrorNoSuchObject, "The requested object does not exist.")
		return
	}
	_ = json.NewEncoder(w).Encode(f.pin(name, req.StorePath, "later"))
}

func (f *fakeServer) pin(name, storePath, how string) *wire.Pin {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, path, _ := strings.Cut(storePath, "-")
	f.order = append(f.order, "pin "+name+" "+path+" "+how)
	pin := &wire.Pin{Name: name, Revision: 1}
	pin.StorePath = storePath
	return pin
}

// count is how many uploads have begun; some may still be running.
func (f *fakeServer) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.uploads
}

func (f *fakeServer) took(info wire.UploadInfo) {
	f.mu.Lock()
	defer f.mu.Unlock()
	base := strings.TrimPrefix(info.StorePath, "/nix/store/")
	f.have[base] = true
	f.order = append(f.order, base)
}

// expect makes the server notice uploads that begin before their references are there.
func (f *fakeServer) expect(infos []nixstore.PathInfo) {
	for _, info := range infos {
		f.have[info.StorePath.Base()] = false
	}
}

// readUpload takes the info from either place, and wants both families to agree.
func readUpload(r *http.Request) (wire.UploadInfo, io.Reader, error) {
	var info wire.UploadInfo
	text := r.Header.Get(wire.HeaderAtticNarInfo)
	if text != r.Header.Get(wire.HeaderCellerNarInfo) {
		return info, nil, errors.New("the two families of headers differ")
	}
	if text == "" {
		size, err := strconv.Atoi(r.Header.Get(wire.HeaderAtticNarInfoPreamble))
		if err != nil || r.Header.Get(wire.HeaderCellerNarInfoPreamble) != r.Header.Get(wire.HeaderAtticNarInfoPreamble) {
			return info, nil, errors.New("no upload info")
		}
		buf := make([]byte, size)
		if _, err := io.ReadFull(r.Body, buf); err != nil {
			return info, nil, err
		}
		text = string(buf)
	}
	return info, r.Body, json.Unmarshal([]byte(text), &info)
}

// mustServe returns a client of h over real connections.
func mustServe(t *testing.T, h http.Handler, options ...Option) *Client {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	c, err := New(server.URL, append([]Option{WithToken("secret"), WithRetry(Retry{First: time.Millisecond, Max: 5 * time.Millisecond})}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// inProcess is a transport without a network, for tests under a virtual clock.
type inProcess struct{ h http.Handler }

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		r.Body = http.NoBody
	}
	defer r.Body.Close()
	w := httptest.NewRecorder()
	done := make(chan error, 1)
	go func() {
		defer func() {
			if recover() != nil { // http.ErrAbortHandler: the connection is cut
				done <- io.ErrUnexpectedEOF
			}
			close(done)
		}()
		p.h.ServeHTTP(w, r)
	}()
	select {
	case err := <-done:
		if err != nil {
			return nil, err
		}
		return w.Result(), nil
	case <-r.Context().Done():
		r.Body.Close()
		<-done
		return nil, r.Context().Err()
	}
}

func mustInProcess(t *testing.T, h http.Handler, options ...Option) *Client {
	t.Helper()
	c, err := New("http://cache.test", append([]Option{WithHTTPClient(&http.Client{Transport: inProcess{h}})}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// recorder collects outcomes by path.
type recorder struct {
	mu       sync.Mutex
	outcomes map[string]Outcome // by name
	retries  int
	waits    []time.Duration
	sent     int64
	plan     Plan
	notes    []string
	pinned   []string
}

func (r *recorder) events() Events {
	r.outcomes = map[string]Outcome{}
	lock := func(f func()) { r.mu.Lock(); defer r.mu.Unlock(); f() }
	return Events{
		Plan: func(p Plan) { r.plan = p },
		Sent: func(_ int, n int64) { lock(func() { r.sent += n }) },
		Retry: func(_ int, _ nix.StorePath, _ int, wait time.Duration, _ error) {
			lock(func() { r.retries++; r.waits = append(r.waits, wait) })
		},
		Done: func(_ int, o Outcome) { lock(func() { r.outcomes[o.Path.Name()] = o }) },
		Pinned: func(p Pin) {
			lock(func() { r.pinned = append(r.pinned, p.Name) })
		},
		Note: func(text string) { lock(func() { r.notes = append(r.notes, text) }) },
	}
}

func (r *recorder) kinds() map[string]Kind {
	kinds := map[string]Kind{}
	for name, o := range r.outcomes {
		kinds[name] = o.Kind
	}
	return kinds
}
