package sim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/httpapi"
	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/auth"
	"github.com/celler/celler/nix/nar"
)

const (
	// simStale is for how long at most a node answers without having looked for what others
	// have written. Real ones look every second.
	simStale = time.Minute
	// otherCache is that of a tenant who is not to see what is in simCache.
	otherCache = "b"
)

// nar is the NAR of a path. Clients of the delta protocol have real ones.
func (c *collecting) nar(name string) []byte {
	if c.Deltas == 0 {
		return simNar(name)
	}
	content := simNar(name)
	var b bytes.Buffer
	w := nar.NewWriter(&b)
	_ = w.Regular("", false, int64(len(content))) // errors are kept until Close
	_, _ = w.Write(content)
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// proofKey makes the proofs of the bucket's chunks; zero where nobody needs them.
func (c *collecting) proofKey() (key chunk.ProofKey) {
	if c.Deltas > 0 {
		key = sha256.Sum256([]byte("proofs"))
	}
	return key
}

// handler is what answers the HTTP requests that a node gets.
func (c *collecting) handler(s *service) http.Handler {
	return httpapi.New(s.cat, s.chunks, c.verifier, httpapi.Options{
		Now: c.w.time, Rand: c.w.Env(s.n.name, s.n.seed*1000+s.n.boots+500, 0).Rand, ReceiptKey: []byte("a secret of the simulated servers"),
		Logger: slog.New(slog.NewTextHandler(complaints{c}, &slog.HandlerOptions{Level: slog.LevelError})), Mutants: c.HTTP,
	})
}

// complaints are what a server logs if it has an error of its own.
type complaints struct{ c *collecting }

func (w complaints) Write(p []byte) (int, error) {
	w.c.violate("a server complains: %.400s", p)
	return len(p), nil
}

// token is a token for one cache.
func (c *collecting) token(subject, cache string) string {
	perm, err := auth.ParsePermission("pull", "push", "pin")
	if err != nil {
		panic(err)
	}
	t, err := c.verifier.Mint(auth.Claims{Subject: subject, Rules: []auth.Rule{{Pattern: auth.Pattern(cache), Permission: perm}}})
	if err != nil {
		panic(err)
	}
	return t
}

func mkVerifier() *auth.Verifier {
	key, err := auth.HS256([]byte("a secret that signs tokens"))
	if err != nil {
		panic(err)
	}
	return auth.New(key, auth.Options{})
}

// caller makes HTTP requests, each to a node of its choice, over connections that lose
// requests and answers.
type caller struct {
	c       *collecting
	name    string
	token   string
	rng     *rand.Rand
	node    *node   // the one that it talks to; nil: any
	loss    float64 // share of requests to which each of the misfortunes happens
	careful bool    // it sends the highest position that it was told of
	seq     uint64  // which is this
}

// answer is an answer that has arrived.
type answer struct {
	status int
	header http.Header
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(p)
}

// misfortune is what becomes of a request.
type misfortune int

const (
	arrives     misfortune = iota
	requestGone            // nobody hears of it
	answerGone             // it is performed, and its sender does not learn of it
	bodyCut                // the connection breaks while it is sent
	impatience             // its sender goes away, and it may be performed all the same
)

// call makes one request. nil: no answer came.
func (k *caller) call(method, path, contentType string, body []byte) *answer {
	c := k.c
	c.w.Pause(k.name, method)
	fate := arrives
	if f := k.rng.Float64(); f < 4*k.loss {
		fate = requestGone + misfortune(f/k.loss)
	}
	n := k.node
	if n == nil {
		n = c.nodes[k.rng.IntN(len(c.nodes))]
	}
	q := &request{caller: k, method: method, path: path, contentType: contentType, body: body, cut: -1, rng: rand.New(rand.NewPCG(k.rng.Uint64(), 1))}
	q.slow = k.loss > 0 && q.rng.IntN(10) == 0
	if fate == bodyCut {
		q.cut = k.rng.IntN(len(body) + 1)
	}
	if fate == requestGone {
		return k.nothing()
	}
	patience := -1
	if fate == impatience {
		patience = k.rng.IntN(40)
	}
	if k.careful && k.seq > 0 {
		q.minSeq = strconv.FormatUint(k.seq, 10)
	}
	a := k.await(n, q, patience)
	if fate != arrives || a == nil {
		return k.nothing()
	}
	c.counted(func(r *DeltaResult) { r.Asked++ })
	seq, err := strconv.ParseUint(a.header.Get(wire.HeaderSeq), 10, 64)
	if err == nil {
		k.seq = max(k.seq, seq)
	}
	if err != nil && method == http.MethodPost && !strings.Contains(path, "/join?") && (a.status == http.StatusOK || a.status == http.StatusConflict) {
		c.violate("%s: %s is answered %d without a position: %.300s", k.name, path, a.status, a.body.Bytes())
	}
	if method == http.MethodPost && bytes.Contains(a.body.Bytes(), []byte(wire.ErrorIncompleteNar)) {
		c.violate("%s: %s is answered as if it was a download: %.300s", k.name, path, a.body.Bytes())
	}
	return a
}

// nothing notes that no answer came.
func (k *caller) nothing() *answer {
	k.c.counted(func(r *DeltaResult) { r.Lost++ })
	return nil
}

// await has a request performed and waits for the answer for so many steps, or until there
// is one.
func (k *caller) await(n *node, q *request, patience int) (got *answer) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan *answer, 1)
	go func() {
		var a *answer
		k.c.on(n, func(s *service) { a = k.c.perform(ctx, s, q) })
		done <- a
	}()
	for ; patience > 0; patience-- {
		k.c.w.Pause(k.name, "waits")
		if len(done) > 0 {
			break
		}
	}
	if patience == 0 {
		return nil
	}
	got = <-done
	if got == nil {
		k.c.w.Pause(k.name, "wait for a node")
	}
	return got
}

// request is one on its way.
type request struct {
	caller                    *caller
	method, path, contentType string
	minSeq                    string
	body                      []byte
	cut                       int  // where the connection breaks; -1: nowhere
	slow                      bool // it is going to take days
	rng                       *rand.Rand
}

// linger is called where a request may take its time: between two of its bytes, when it
// has been looked up which chunks are known, and when packs have been uploaded.
func (q *request) linger(ctx context.Context) {
	c, name := q.caller.c, q.caller.name
	for range 1 + q.rng.IntN(2) {
		c.w.Pause(name, "lingers")
	}
	if q.slow && q.rng.IntN(2) == 0 {
		q.slow = false
		c.sleep(ctx, name, time.Duration(q.rng.IntN(4*24))*time.Hour)
	}
}

// perform lets a node answer a request. nil: the connection broke, or it is too far behind.
func (c *collecting) perform(ctx context.Context, s *service, q *request) (a *answer) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)() // a crash ends it
	name := q.caller.name
	if now := c.w.time().UnixNano(); now-s.polled.Load() > int64(simStale) {
		_, err := s.cat.CatchUp(ctx)
		if c.next(name); err != nil {
			return nil
		}
		s.polled.Store(now)
	}
	ctx = context.WithValue(context.WithValue(ctx, turns{}, name), lingering{}, func() { q.linger(ctx) })
	body := &slowBody{src: q.body, cut: q.cut, pause: func() { q.linger(ctx) }}
	if q.rng.IntN(4) == 0 && len(q.body) > 0 {
		body.stop = q.rng.IntN(len(q.body))
	}
	r, err := http.NewRequestWithContext(ctx, q.method, "http://celler.test"+q.path, body)
	if err != nil {
		c.violate("%s: %v", name, err)
		return nil
	}
	r.ContentLength = int64(len(q.body))
	r.Header.Set("Authorization", "Bearer "+q.caller.token)
	if q.contentType != "" {
		r.Header.Set("Content-Type", q.contentType)
	}
	if q.minSeq != "" {
		r.Header.Set(wire.HeaderMinSeq, q.minSeq)
	}
	a = &answer{header: http.Header{}}
	defer func() {
		if broken := recover(); broken == http.ErrAbortHandler {
			a = nil
		} else if broken != nil {
			panic(broken)
		}
		c.next(name)
	}()
	s.handler.ServeHTTP(a, r)
	c.note("%s: %s %s at %s: %d", name, q.method, q.path, s.n.name, a.status)
	if q.cut >= 0 {
		return nil
	}
	return a
}

// slowBody is a body that arrives in two parts, or only so far.
type slowBody struct {
	src   []byte
	at    int
	stop  int // where it takes its time; -1: it has
	cut   int // where it ends too early; -1: nowhere
	pause func()
}

// Read implements io.Reader.
func (b *slowBody) Read(p []byte) (int, error) {
	if b.stop >= 0 && b.at >= b.stop {
		b.stop = -1
		b.pause()
	}
	if b.cut >= 0 && b.at >= b.cut {
		return 0, io.ErrUnexpectedEOF
	}
	if b.at == len(b.src) {
		return 0, io.EOF
	}
	ends := []int{len(b.src)}
	if b.stop >= 0 {
		ends = append(ends, b.stop)
	}
	if b.cut >= 0 {
		ends = append(ends, b.cut)
	}
	n := copy(p, b.src[b.at:slices.Min(ends)])
	b.at += n
	return n, nil
}

// Close implements io.Closer.
func (b *slowBody) Close() error { return nil }

// retrying repeats a request until there is an answer that is not one to be repeated, or
// returns nil when it has waited for long enough.
func (k *caller) retrying(ctx context.Context, call func() *answer) *answer {
	for try := range 12 {
		a := call()
		if a != nil && a.status < 500 && a.status != http.StatusRequestTimeout && a.status != http.StatusTooManyRequests {
			return a
		}
		k.c.sleep(ctx, k.name, time.Duration(k.rng.IntN(1+20<<try))*time.Second)
	}
	return nil
}
