package node

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/celler/celler/httpapi"
	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/wal"
)

// openPeers makes the acquaintance, if the node is to have any.
func (n *Node) openPeers() {
	if n.cfg.Advertise == "" || n.past != nil {
		return
	}
	n.peers = newPeers(n.cfg.Advertise, n.o.Now, n.o.Logger, n.o.Metrics)
	n.peers.arrived = func(seq uint64) { n.log.Hint(wal.Seq(seq)) }
	n.peers.accept = func(ctx context.Context, message []byte) (wal.Seq, error) {
		return n.log.Accept(ctx, message, n.cat.Revive)
	}
}

// introduce gets the secret that the servers of a bucket share and makes this one
// known, as soon as the bucket lets it.
func (n *Node) introduce(ctx context.Context) {
	for pause := time.Second; ; pause = min(2*pause, time.Minute) {
		err := n.introduceOnce(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		n.o.Logger.Warn("other servers could not be told of this one", "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

func (n *Node) introduceOnce(ctx context.Context) error {
	secret, _, err := n.cat.Secret(ctx, peerSecret, func() ([]byte, error) {
		key := make([]byte, peerSecretBytes)
		_, err := rand.Read(key)
		return key, err
	})
	if err != nil {
		return fmt.Errorf("get the secret that servers share: %w", err)
	}
	if n.cfg.Signing.Kind == config.HS256 {
		// All servers have this key and the bucket has not, so that nobody who may
		// only read the bucket can speak for a server.
		mac := hmac.New(sha256.New, []byte(n.cfg.Signing.Text))
		_, _ = mac.Write(secret) // a hash takes everything
		secret = mac.Sum(nil)
	}
	n.peers.mu.Lock()
	n.peers.key = secret
	n.peers.mu.Unlock()
	return n.log.Announce(ctx)
}

// peerOptions is what the HTTP interface gets; a nil pointer is not a nil interface.
func (n *Node) peerOptions(o *httpapi.Options) {
	if n.peers == nil {
		return
	}
	o.Peers = n.peers
	if u, err := url.Parse(n.cfg.Advertise); err == nil && len(o.AllowedHosts) > 0 {
		o.AllowedHosts = append(slices.Clone(o.AllowedHosts), u.Host)
	}
}
