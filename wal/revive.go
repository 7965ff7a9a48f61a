package wal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/celler/celler/blob"
)

// What a repair of ROOT and FORMAT needs. A Log never calls any of this.

// NewRoot returns a Root of store that this program can read and write, with a fresh
// nonce. Rev, snapshot, floor and epoch are left to whoever knows what the bucket has
// seen already.
func NewRoot(store StoreID, rand io.Reader) (Root, error) {
	root := Root{Version: rootVersion, Store: store, MinReader: foundedVersion, MinWriter: protocolVersion, Features: []string{featureZstd}}
	var err error
	root.Nonce, err = nonce(rand)
	return root, err
}

// CheckReader reports why this program must not read what the log holds: a later
// celler is needed.
func (r *Root) CheckReader() error { return r.readable() }

// EncodeFormat returns the object that represents f.
func EncodeFormat(f Format) ([]byte, error) {
	f.Version = formatVersion
	if err := f.check(); err != nil {
		return nil, fmt.Errorf("encode FORMAT: %w", err)
	}
	body, err := json.Marshal(f)
	if err != nil {
		return nil, fmt.Errorf("encode FORMAT: %w", err)
	}
	return append(seal(body), '\n'), nil
}

// MissingSlotsError reports slots that must exist and do not.
type MissingSlotsError struct {
	Seq    Seq    // the first that is missing
	Detail string // how that is known
}

func (e *MissingSlotsError) Error() string {
	return fmt.Sprintf("slot %d of the log is missing: %s", uint64(e.Seq), e.Detail)
}

// wholeAttempts is how often CheckWhole catches up because a listing knows of more: a
// busy log may be ahead of every catch-up, but not of its listing as well.
const wholeAttempts = 4

// CheckWhole returns a *MissingSlotsError if the bucket shows that slots are missing
// behind the last applied one: ROOT or a listing knows of later ones, or the slot of
// ROOT's snapshot, which must be kept, is not there. A replica that began with such a
// bucket would take the gap for the tail and write into it.
//
// What a listing does not show proves nothing. A bucket that does not let itself be
// listed is taken to be whole as far as ROOT says.
func (l *Log) CheckWhole(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		root, err := ReadRoot(ctx, l.bucket)
		if err != nil {
			return err
		}
		if err := checkKept(ctx, l.bucket, root); err != nil {
			return err
		}
		at := l.Seq()
		last, how := root.TailHint, "ROOT has seen it filled"
		for info, err := range l.bucket.List(ctx, "log/", at.Key()) {
			if blob.KindOf(err) == blob.KindDenied {
				break
			}
			if err != nil {
				return fmt.Errorf("look for slots after %v: %w", at, err)
			}
			if seq, err := ParseSeq(strings.TrimPrefix(string(info.Key), "log/")); err == nil {
				last, how = max(last, seq), fmt.Sprintf("slot %d is there", uint64(seq))
				break
			}
		}
		if last <= at {
			return nil
		}
		now, err := l.CatchUp(ctx)
		switch {
		case err != nil:
			return err
		case now >= last:
			return nil
		case now == at || attempt == wholeAttempts:
			return &MissingSlotsError{Seq: now + 1, Detail: how}
		}
	}
}

// checkKept looks for the slot of ROOT's snapshot.
func checkKept(ctx context.Context, bucket blob.Bucket, root Root) error {
	at := root.Snapshot.Seq
	if at == 0 || at < root.Floor {
		return nil
	}
	there, err := hasSlot(ctx, bucket, at)
	if there || err != nil {
		return err
	}
	now, err := ReadRoot(ctx, bucket)
	if err != nil || now.Floor > at {
		return err // truncated meanwhile
	}
	return &MissingSlotsError{Seq: at, Detail: fmt.Sprintf("ROOT says that the log is kept from slot %d on", uint64(now.Floor))}
}

// LostError reports that ROOT is not there. errors.Is(err, blob.ErrNotExist).
type LostError struct{ Key blob.Key }

func (e *LostError) Error() string { return fmt.Sprintf("%s does not exist", e.Key) }

// Unwrap makes it one of the errors of a bucket.
func (e *LostError) Unwrap() error { return blob.ErrNotExist }

// IsDamage reports whether err says that something which must be in the bucket is not
// there, or is not what was written: what a repair, and not another attempt, may cure.
func IsDamage(err error) bool {
	var missing *MissingSlotsError
	var corrupt *CorruptError
	var lost *LostError
	return errors.As(err, &missing) || errors.As(err, &corrupt) || errors.As(err, &lost) || errors.Is(err, ErrRolledBack)
}
