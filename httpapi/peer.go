package httpapi

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// What servers of one bucket say to each other. They share a secret, kept in the
// bucket, and sign with it what they say; it never travels. Whoever cannot sign is told
// that there is no such page, before its body is read.

const (
	// PeerHintPath takes a PeerHint.
	PeerHintPath = "/_peer/hint"
	// PeerForwardPath takes operations that the peer asks us to commit for it.
	PeerForwardPath = "/_peer/forward"
	// PeerHeader carries what SignPeer returns.
	PeerHeader = "Celler-Peer"

	maxHintBytes = 2 << 10
	// MaxForwardBytes bounds the operations in one request.
	MaxForwardBytes = 4 << 20
	// maxTurnBytes is what a request for a turn takes. It has no operations, and is answered
	// at once: those that wait for a commit must not keep it out.
	maxTurnBytes = 64
)

// PeerHint is what a server says when it has committed something, and from time to
// time so that others know that it lives.
type PeerHint struct {
	Seq  uint64 `json:"seq"`           // its last slot
	From string `json:"from"`          // where it can be reached
	Bye  bool   `json:"bye,omitempty"` // it is about to stop
}

// ErrForwardRefused is what Peers.Forward returns if nothing happened, and nothing
// will: the peer has to commit its operations itself.
var ErrForwardRefused = errors.New("the operations are refused")

// Peers is the node's end of the conversation between servers.
type Peers interface {
	// Key is the secret, or nil while there is no conversation.
	Key() []byte
	// Hint takes what a peer says. It must not block.
	Hint(PeerHint)
	// Forward commits operations for a peer and returns their slot.
	Forward(ctx context.Context, body []byte) (seq uint64, err error)
	// Admit reports whether there is room for one more Forward, and takes it until
	// done is called.
	Admit() (done func(), ok bool)
}

// SignPeer returns the header that proves to a server that body was meant for path, by
// somebody who knows key: the hash of the body, a dot, and a MAC over both.
//
// A copy of it can be sent again. That does no harm: a hint makes the server look at
// the bucket, what is forwarded has a number that is good for one time only, and a request
// for a turn names a slot.
func SignPeer(key []byte, path string, body []byte) string {
	sum := sha256.Sum256(body)
	text := hex.EncodeToString(sum[:])
	return text + "." + hex.EncodeToString(peerMAC(key, path, text))
}

func peerMAC(key []byte, path, sum string) []byte {
	mac := hmac.New(sha256.New, key)
	_, _ = io.WriteString(mac, "celler peer 1\n"+path+"\n"+sum) // a hash takes everything
	return mac.Sum(nil)
}

// peerSigned checks, without looking at the body, that a peer sent the request and
// that its body is not too long.
func (x *exchange) peerSigned(limit int64) error {
	peers := x.s.opts.Peers
	if peers == nil {
		return errNotFound
	}
	key := peers.Key()
	sum, mac, _ := strings.Cut(x.r.Header.Get(PeerHeader), ".")
	given, err := hex.DecodeString(mac)
	if len(key) == 0 || err != nil || !hmac.Equal(given, peerMAC(key, x.r.URL.Path, sum)) {
		return errNotFound
	}
	if x.r.ContentLength < 0 || x.r.ContentLength > limit {
		return requestError("the body of a request between servers has at most %d bytes", limit)
	}
	return nil
}

// peerBody reads the body of a request that peerSigned has passed.
func (x *exchange) peerBody() ([]byte, error) {
	body := make([]byte, x.r.ContentLength)
	if _, err := io.ReadFull(x.r.Body, body); err != nil {
		return nil, err
	}
	sum, _, _ := strings.Cut(x.r.Header.Get(PeerHeader), ".")
	if have := sha256.Sum256(body); hex.EncodeToString(have[:]) != sum {
		return nil, errNotFound
	}
	return body, nil
}

// peerHint answers POST /_peer/hint.
func (s *server) peerHint(x *exchange) error {
	if err := x.peerSigned(maxHintBytes); err != nil {
		return err
	}
	body, err := x.peerBody()
	if err != nil {
		return err
	}
	var h PeerHint
	if err := json.Unmarshal(body, &h); err != nil {
		return requestError("a hint is a JSON object with seq and from")
	}
	s.opts.Peers.Hint(h)
	x.WriteHeader(http.StatusNoContent)
	return nil
}

// peerForward answers POST /_peer/forward: 200 with the slot, 409 if the operations
// are refused, and anything else if nobody knows.
func (s *server) peerForward(x *exchange) error {
	if err := x.peerSigned(MaxForwardBytes); err != nil {
		return err
	}
	if x.r.ContentLength > maxTurnBytes {
		done, ok := s.opts.Peers.Admit()
		if !ok {
			x.WriteHeader(http.StatusConflict)
			return nil
		}
		defer done()
	}
	body, err := x.peerBody()
	if err != nil {
		return err
	}
	seq, err := s.opts.Peers.Forward(x.r.Context(), body)
	switch {
	case errors.Is(err, ErrForwardRefused):
		x.WriteHeader(http.StatusConflict)
		return nil
	case err != nil:
		return err
	}
	x.send("text/plain; charset=utf-8", strconv.AppendUint(nil, seq, 10))
	return nil
}

func (s *server) peerRoutes() {
	s.route(PeerHintPath, methods{http.MethodPost: (*server).peerHint})
	s.route(PeerForwardPath, methods{http.MethodPost: (*server).peerForward})
}
