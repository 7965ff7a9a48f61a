package httpapi_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/celler/celler/httpapi"
)

// fakePeers notes what it is told.
type fakePeers struct {
	key []byte

	mu        sync.Mutex // guards the fields below
	hints     []httpapi.PeerHint
	forwarded []string
	refuse    error
	full      bool
}

func (p *fakePeers) Key() []byte { return p.key }

func (p *fakePeers) Hint(h httpapi.PeerHint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hints = append(p.hints, h)
}

func (p *fakePeers) Admit() (func(), bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return func() {}, !p.full
}

func (p *fakePeers) Forward(_ context.Context, body []byte) (uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forwarded = append(p.forwarded, string(body))
	return 42, p.refuse
}

func (n *node) postPeer(path, header, body string) (int, string) {
	n.t.Helper()
	req, err := http.NewRequestWithContext(n.t.Context(), http.MethodPost, n.srv.URL+path, strings.NewReader(body))
	must(n.t, err)
	req.Header.Set(httpapi.PeerHeader, header)
	resp, err := n.client.Do(req)
	must(n.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(n.t, err)
	return resp.StatusCode, string(text)
}

func TestPeersMustSign(t *testing.T) {
	key, other := []byte("shared"), []byte("guessed")
	p := &fakePeers{key: key}
	n := mkNode(t, nil, func(o *nodeOptions) { o.http.Peers = p })
	hint := `{"seq":7,"from":"http://a/"}`
	refused := func(why, path, header, body string) {
		t.Helper()
		if status, _ := n.postPeer(path, header, body); status != http.StatusNotFound {
			t.Errorf("%s: status %d, want 404", why, status)
		}
	}
	refused("nothing is signed", httpapi.PeerHintPath, "", hint)
	refused("another key", httpapi.PeerHintPath, httpapi.SignPeer(other, httpapi.PeerHintPath, []byte(hint)), hint)
	refused("for another path", httpapi.PeerHintPath, httpapi.SignPeer(key, httpapi.PeerForwardPath, []byte(hint)), hint)
	refused("another body", httpapi.PeerHintPath, httpapi.SignPeer(key, httpapi.PeerHintPath, []byte(hint)), strings.Replace(hint, "7", "8", 1))
	refused("no hexadecimal", httpapi.PeerHintPath, "x.y", hint)
	refused("forward with another key", httpapi.PeerForwardPath, httpapi.SignPeer(other, httpapi.PeerForwardPath, []byte("op")), "op")
	if len(p.hints)+len(p.forwarded) != 0 {
		t.Errorf("got through: %v %v", p.hints, p.forwarded)
	}
	if status, _ := n.postPeer(httpapi.PeerHintPath, httpapi.SignPeer(key, httpapi.PeerHintPath, []byte(hint)), hint); status != http.StatusNoContent {
		t.Errorf("a signed hint: status %d, want 204", status)
	}
	if diff := cmp.Diff([]httpapi.PeerHint{{Seq: 7, From: "http://a/"}}, p.hints); diff != "" {
		t.Error(diff)
	}
	long := strings.Repeat("x", 3<<10)
	if status, _ := n.postPeer(httpapi.PeerHintPath, httpapi.SignPeer(key, httpapi.PeerHintPath, []byte(long)), long); status != http.StatusBadRequest {
		t.Errorf("a hint of 3 KiB: status %d, want 400", status)
	}
}

func TestPeerForward(t *testing.T) {
	key := []byte("shared")
	p := &fakePeers{key: key}
	n := mkNode(t, nil, func(o *nodeOptions) { o.http.Peers = p })
	body := strings.Repeat("op", 50)
	post := func() (int, string) {
		return n.postPeer(httpapi.PeerForwardPath, httpapi.SignPeer(key, httpapi.PeerForwardPath, []byte(body)), body)
	}
	if status, text := post(); status != http.StatusOK || text != "42" {
		t.Errorf("status %d %q, want 200 and the slot", status, text)
	}
	p.refuse = httpapi.ErrForwardRefused
	if status, _ := post(); status != http.StatusConflict {
		t.Errorf("refused: status %d, want 409", status)
	}
	p.refuse = errors.New("who knows")
	if status, _ := post(); status == http.StatusConflict || status == http.StatusOK {
		t.Errorf("unknown: status %d, which says too much", status)
	}
	p.refuse, p.full = nil, true
	if status, _ := post(); status != http.StatusConflict {
		t.Errorf("no room: status %d, want 409", status)
	}
	// What asks for a turn waits for nothing, and is heard all the same.
	body = strings.Repeat("t", 54)
	before := len(p.forwarded)
	if status, _ := post(); status != http.StatusOK || len(p.forwarded) != before+1 {
		t.Errorf("no room for what has no operations: status %d, want 200", status)
	}
}

// Without peers, and before the secret is known, there is nothing to be found.
func TestNoPeers(t *testing.T) {
	for _, p := range []httpapi.Peers{nil, &fakePeers{}} {
		n := mkNode(t, nil, func(o *nodeOptions) { o.http.Peers = p })
		for _, path := range []string{httpapi.PeerHintPath, httpapi.PeerForwardPath} {
			if status, _ := n.postPeer(path, httpapi.SignPeer(nil, path, []byte("{}")), "{}"); status != http.StatusNotFound {
				t.Errorf("%s: status %d, want 404", path, status)
			}
		}
	}
}
