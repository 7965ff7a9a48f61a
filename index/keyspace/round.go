package keyspace

import (
	"fmt"
	"time"
)

// MaxRoundBytes bounds what a collection says of itself.
const MaxRoundBytes = 64 << 10

// Round is the last round of collection that ended. There is one row.
type Round struct {
	Ended   time.Time // by the clock of the bucket
	Summary []byte    // for people and for the next round: JSON of package gc
}

// AppendRoundKey appends the key of the only row there is.
func AppendRoundKey(dst []byte) []byte { return append(dst, RoundPrefix) }

// AppendRound appends the value of r.
func AppendRound(dst []byte, r *Round) []byte {
	return append(appendTime(append(dst, rowVersion), r.Ended), r.Summary...)
}

// DecodeRound decodes the row. Summary aliases the value.
func DecodeRound(key, value []byte) (Round, error) {
	if len(key) != 1 || key[0] != RoundPrefix {
		return Round{}, keyError("round", key)
	}
	d := decoder[[]byte]{what: "round", src: value}
	d.version()
	r := Round{Ended: d.time()}
	if d.err != nil {
		return Round{}, d.err
	}
	if r.Summary = d.src; len(r.Summary) > MaxRoundBytes {
		return Round{}, fmt.Errorf("decode round row: %d bytes of summary, want at most %d", len(r.Summary), MaxRoundBytes)
	}
	return r, nil
}
