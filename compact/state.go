package compact

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	"github.com/celler/celler/wal"
)

// WriteState writes a whole state, whose rows come in the order of their keys, as a
// snapshot of one run a shard, and returns how ROOT would name it. It does not swap
// ROOT: that is for whoever found out that there is no other way than to begin anew.
//
// head says of which store, after which slot, and under which compaction epoch, which
// must be claimed already or above all there were. The log's own rows are left out,
// but for those of its sessions.
func (c *Compactor) WriteState(ctx context.Context, head wal.Snapshot, rows iter.Seq2[wal.KV, error]) (wal.SnapshotRef, error) {
	w := &stateWriter{round: &round{Compactor: c, epoch: head.Epoch}, ctx: ctx, next: head}
	w.next.Runs, w.next.By = nil, c.o.By
	w.next.At = c.env.Now().UTC().Truncate(time.Millisecond)
	err := w.write(rows)
	if err != nil {
		return wal.SnapshotRef{}, fmt.Errorf("write a state as a snapshot: %w", err)
	}
	body, err := wal.AppendSnapshot(nil, &w.next)
	if err != nil {
		return wal.SnapshotRef{}, err
	}
	var b [4]byte
	if _, err := io.ReadFull(c.env.Rand, b[:]); err != nil {
		return wal.SnapshotRef{}, fmt.Errorf("draw the name of a snapshot: %w", err)
	}
	ref := wal.SnapshotRef{
		Seq: head.Seq, Digest: head.Digest, Epoch: head.Epoch,
		Key: wal.SnapshotKey(head.Seq, binary.BigEndian.Uint32(b[:])), SHA256: wal.DigestOf(body),
	}
	err = c.retry(ctx, func(ctx context.Context) error {
		_, err := c.bucket.Put(ctx, ref.Key, body)
		return err
	})
	if err != nil {
		return wal.SnapshotRef{}, fmt.Errorf("write snapshot: %w", err)
	}
	return ref, nil
}

// stateWriter deals rows out to the runs of their shards.
type stateWriter struct {
	round *round
	ctx   context.Context //nolint:containedctx // of the one call that made this
	next  wal.Snapshot
	run   *runWriter // of the last run of next; nil before the first
}

func (w *stateWriter) write(rows iter.Seq2[wal.KV, error]) error {
	defer func() {
		if w.run != nil {
			w.run.abort()
		}
	}()
	sessions := string(wal.SessionKey(wal.WriterID{})[:len("!session/")])
	for row, err := range rows {
		if err == nil {
			err = w.ctx.Err()
		}
		if err != nil {
			return err
		}
		if key := string(row.Key); strings.HasPrefix(key, "!") && !strings.HasPrefix(key, sessions) {
			continue
		}
		if err := w.add(row); err != nil {
			return err
		}
	}
	return w.end()
}

func (w *stateWriter) add(row wal.KV) error {
	shard := wal.ShardOf(row.Key)
	if w.run == nil || w.run.shard != shard {
		if err := w.end(); err != nil {
			return err
		}
		w.next.Runs = append(w.next.Runs, wal.Run{Shard: shard, First: 1, Last: w.next.Seq})
		w.run = newRunWriter(shard, nil, w.round.o.TableBytes, w.round.o.Mutants, w.emit)
	}
	return w.run.add(wal.Set, row.Key, row.Value)
}

// end closes the run that is being written.
func (w *stateWriter) end() error {
	if w.run == nil {
		return nil
	}
	return w.run.finish()
}

// emit uploads a finished table.
func (w *stateWriter) emit(b built) error {
	var err error
	if b.meta.Key, err = w.round.tableName(); err != nil {
		return err
	}
	if err := w.round.upload(w.ctx, b); err != nil {
		return err
	}
	run := &w.next.Runs[len(w.next.Runs)-1]
	run.Tables = append(run.Tables, b.meta)
	return nil
}
