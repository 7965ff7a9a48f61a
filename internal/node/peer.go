package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/celler/celler/httpapi"
	"github.com/celler/celler/wal"
)

const (
	// peerSecret is the name of the secret by which servers of one bucket know each other.
	peerSecret      = "peer"
	peerSecretBytes = 32
	// peerBeat is how often a server says that it lives when it has nothing else to say.
	peerBeat = 20 * time.Second
	// peerAlive is how long a server counts as alive after it was heard. Three beats.
	peerAlive = time.Minute
	// peerMemory is how long one that is silent is remembered, if it ever spoke. It is
	// found again by what it writes, or by what it says.
	peerMemory = 10 * time.Minute
	// maxPeers bounds how many there are. Whoever may write to the bucket names them.
	maxPeers = 64
	// maxEarly is how many of the addresses that the log showed while the node started
	// are tried. Most of them may be of servers long gone.
	maxEarly = 16
	// peerTimeout bounds one hint. One that comes later is worth nothing.
	peerTimeout = 2 * time.Second
	// maxPeerForwards bounds how many forwarded requests are in memory at once.
	maxPeerForwards = 64
)

// peers is this server's acquaintance with the others of its bucket. They find each
// other by what their segments say, and once one knows another it says so; nothing is
// configured but each one's own address. Nothing that is true depends on it.
type peers struct {
	self    string // our address, with a slash at the end
	now     func() time.Time
	log     *slog.Logger
	client  *http.Client
	hinted  *metrics.Counter
	failed  *metrics.Counter
	slots   chan struct{}    // one for each Forward in memory
	arrived func(seq uint64) // a hint has come; set before the first one can
	accept  func(ctx context.Context, message []byte) (wal.Seq, error)

	mu    sync.Mutex // guards the fields below
	key   []byte     // nil until the bucket was asked
	seq   uint64     // the newest slot of ours
	known map[string]*peer
	early []string                            // addresses met before run, the latest last
	spawn func(run func(ctx context.Context)) // nil unless run runs
}

// errNoPeerKey is what post returns before there is a secret to sign with.
var errNoPeerKey = errors.New("the secret that servers share is not known yet")

// peer is another server.
type peer struct {
	address string
	heard   time.Time     // when it last spoke to us, zero for never
	met     time.Time     // when we first heard of it, or last heard it or of it
	news    chan struct{} // holds one token: there is something to say
	gone    chan struct{} // closed when it is forgotten
}

func newPeers(self string, now func() time.Time, logger *slog.Logger, set *metrics.Set) *peers {
	p := &peers{
		self: self, now: now, log: logger,
		hinted: set.GetOrCreateCounter(`celler_peer_hints_total{result="ok"}`),
		failed: set.GetOrCreateCounter(`celler_peer_hints_total{result="failed"}`),
		slots:  make(chan struct{}, maxPeerForwards),
		known:  make(map[string]*peer),
		client: &http.Client{
			// Our own transport, for a proxy has no business between servers.
			Transport: &http.Transport{MaxIdleConnsPerHost: 16, IdleConnTimeout: 3 * peerBeat, ForceAttemptHTTP2: true},
			// What is signed is for the address that was asked, and for no other.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	set.GetOrCreateGauge("celler_peers", func() float64 { return float64(p.count()) })
	return p
}

// walOptions adds to o what the log needs of the peers.
func (p *peers) walOptions(o *wal.Options) {
	if p == nil {
		return
	}
	o.Address = p.self
	o.OnWon = func(seq wal.Seq) { p.won(uint64(seq)) }
	o.OnApply = func(seg *wal.Segment) { p.met(seg.Address(), false) }
	o.Hinted = p.allAlive
	o.Forward = p.forward
}

// won tells everybody that there is a new slot.
func (p *peers) won(seq uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seq = max(p.seq, seq)
	for _, other := range p.known {
		other.tell()
	}
}

func (other *peer) tell() {
	select {
	case other.news <- struct{}{}:
	default: // it is about to be told
	}
}

// met notes a server that spoke to us (heard), or that somebody's segment tells of.
func (p *peers) met(address string, heard bool) {
	if address == "" || address == p.self || !strings.HasPrefix(address, "http://") && !strings.HasPrefix(address, "https://") {
		return
	}
	now := p.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.spawn == nil {
		p.early = append(slices.DeleteFunc(p.early, func(a string) bool { return a == address }), address)
		p.early = p.early[max(0, len(p.early)-maxEarly):]
		return
	}
	other := p.known[address]
	if other == nil {
		if len(p.known) >= maxPeers {
			return
		}
		other = &peer{address: address, news: make(chan struct{}, 1), gone: make(chan struct{})}
		p.known[address] = other
		p.spawn(func(ctx context.Context) { p.converse(ctx, other) })
		p.log.Info("another server of this bucket", "remote_addr", address)
	}
	other.met = now
	if heard {
		other.heard = now
	}
}

// forget ends the conversation with a server.
func (p *peers) forget(other *peer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known[other.address] == other {
		delete(p.known, other.address)
		close(other.gone)
	}
}

func (p *peers) count() (n int) {
	now := p.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, other := range p.known {
		if now.Sub(other.heard) <= peerAlive {
			n++
		}
	}
	return n
}

// allAlive reports whether there are others and all of them speak to us, so that what
// they commit need not be looked for.
func (p *peers) allAlive() bool {
	p.mu.Lock()
	n := len(p.known)
	p.mu.Unlock()
	return n > 0 && p.count() == n
}

// run speaks with the others until ctx ends, and then takes leave.
func (p *peers) run(ctx context.Context, introduce func(context.Context)) {
	var wg sync.WaitGroup
	defer p.client.CloseIdleConnections()
	defer wg.Wait()
	p.mu.Lock()
	p.spawn = func(run func(context.Context)) { wg.Go(func() { run(ctx) }) }
	early := p.early
	p.early = nil
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.spawn = nil
		p.mu.Unlock()
	}()
	introduce(ctx)
	for _, address := range early {
		p.met(address, false)
	}
	<-ctx.Done()
}

// converse tells one server what is new, and that we live, until it is forgotten.
func (p *peers) converse(ctx context.Context, other *peer) {
	beat := time.NewTimer(0)
	defer beat.Stop()
	pause := time.Second
	for {
		select {
		case <-ctx.Done():
			p.say(context.WithoutCancel(ctx), other, true)
			return
		case <-other.gone:
			return
		case <-other.news:
		case <-beat.C:
		}
		if p.say(ctx, other, false) {
			beat.Reset(peerBeat)
			pause = time.Second
			continue
		}
		if p.silent(other) {
			p.forget(other)
			return
		}
		// Nobody there. What is new can wait until there is.
		if !p.rest(ctx, other, pause) {
			return
		}
		pause = min(2*pause, peerBeat)
		beat.Reset(0)
	}
}

// rest waits for a while, and reports whether the conversation goes on.
func (p *peers) rest(ctx context.Context, other *peer, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-other.gone:
		return false
	case <-timer.C:
		return true
	}
}

func (p *peers) silent(other *peer) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	memory := peerMemory
	if other.heard.IsZero() {
		memory = peerAlive
	}
	return p.now().Sub(other.met) > memory
}

// say sends one hint.
func (p *peers) say(ctx context.Context, other *peer, bye bool) bool {
	p.mu.Lock()
	hint := httpapi.PeerHint{Seq: p.seq, From: p.self, Bye: bye}
	p.mu.Unlock()
	body, err := json.Marshal(hint)
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, peerTimeout)
	defer cancel()
	_, status, err := p.post(ctx, other.address, httpapi.PeerHintPath, body)
	if err != nil || status != http.StatusNoContent {
		p.failed.Inc()
		p.log.Debug("another server did not take a hint", "remote_addr", other.address, "status", status, "err", err)
		return false
	}
	p.hinted.Inc()
	return true
}

// post sends a signed request and returns the answer.
func (p *peers) post(ctx context.Context, address, path string, body []byte) ([]byte, int, error) {
	key := p.Key()
	if key == nil {
		return nil, 0, errNoPeerKey
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(address, "/")+path, bytes.NewReader(body))
	if err != nil {
		return nil, 0, err
	}
	req.GetBody = nil // sent once, or not at all
	req.Header.Set(httpapi.PeerHeader, httpapi.SignPeer(key, path, body))
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	return answer, resp.StatusCode, err
}

// Key is part of httpapi.Peers.
func (p *peers) Key() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.key
}

// Hint is part of httpapi.Peers.
func (p *peers) Hint(h httpapi.PeerHint) {
	if h.Bye {
		p.mu.Lock()
		other := p.known[h.From]
		p.mu.Unlock()
		if other != nil {
			p.forget(other)
		}
	} else {
		p.met(h.From, true)
	}
	p.arrived(h.Seq)
}

// Admit is part of httpapi.Peers.
func (p *peers) Admit() (done func(), ok bool) {
	select {
	case p.slots <- struct{}{}:
		return func() { <-p.slots }, true
	default:
		return nil, false
	}
}

// Forward is part of httpapi.Peers.
func (p *peers) Forward(ctx context.Context, body []byte) (uint64, error) {
	seq, err := p.accept(ctx, body)
	if errors.Is(err, wal.ErrRefused) {
		if !errors.Is(err, wal.ErrTurn) {
			p.log.Debug("operations of another server are refused", "err", err)
		}
		return 0, httpapi.ErrForwardRefused
	}
	return uint64(seq), err
}

// forward asks another server to commit what the log has to commit.
func (p *peers) forward(ctx context.Context, address string, message []byte) (wal.Seq, error) {
	answer, status, err := p.post(ctx, address, httpapi.PeerForwardPath, message)
	switch {
	case errors.Is(err, errNoPeerKey):
		return 0, fmt.Errorf("%w: %w", wal.ErrRefused, err)
	case err != nil:
		return 0, err
	case status == http.StatusConflict, status == http.StatusNotFound:
		return 0, wal.ErrRefused
	case status != http.StatusOK:
		return 0, fmt.Errorf("forward to %s: status %d", address, status)
	}
	seq, err := strconv.ParseUint(string(answer), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("forward to %s: %w", address, err)
	}
	return wal.Seq(seq), nil
}
