package node

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"io"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/httpapi"
	"github.com/celler/celler/internal/config"
)

const (
	// deltaSecret names the row from which the keys of the delta protocol are made. It
	// must live as long as the bucket: proofs of chunks are kept.
	deltaSecret      = "delta"
	deltaSecretBytes = 32
)

// deltaKeys are the keys of the delta protocol.
type deltaKeys struct {
	proof   chunk.ProofKey // known to everybody who may push
	receipt []byte         // known to servers alone; nil: the protocol is not spoken
}

// openDelta gets the keys, or goes without: a server that cannot write at the moment
// still answers readers.
func (n *Node) openDelta(ctx context.Context) error {
	if n.past != nil {
		return nil
	}
	secret, _, err := n.cat.Secret(ctx, deltaSecret, func() ([]byte, error) {
		key := make([]byte, deltaSecretBytes)
		_, err := rand.Read(key)
		return key, err
	})
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		n.o.Logger.Warn("pushes by chunks are not offered: the secret for them could not be read or made", "err", err)
		return nil
	}
	n.delta.proof = chunk.ProofKey(derive(secret, "celler proofs"))
	if n.cfg.Signing.Kind == config.HS256 {
		// All servers have this key and the bucket has not, so that nobody who may
		// only read the bucket can make receipts.
		secret = derive([]byte(n.cfg.Signing.Text), string(secret))
	}
	n.delta.receipt = derive(secret, "celler receipts")
	return nil
}

func derive(key []byte, use string) []byte {
	h := hmac.New(sha256.New, key)
	_, _ = io.WriteString(h, use) // a hash takes everything
	return h.Sum(nil)
}

// deltaOptions is what the HTTP interface gets.
func (n *Node) deltaOptions(o *httpapi.Options) {
	o.ReceiptKey = n.delta.receipt
	o.RefuseAbsentReferences = n.cfg.AbsentReferences == "refuse"
}
