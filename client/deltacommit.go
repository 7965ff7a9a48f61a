package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/nix"
)

// commit starts a commit of all paths that may be, if none is under way.
func (d *delta) commit(ctx context.Context, wg *sync.WaitGroup) {
	if d.committing {
		return
	}
	var parcels []*parcel
	for _, pc := range d.parcels {
		if len(parcels) >= d.commitPaths {
			break
		}
		if pc.state != parcelComplete {
			continue
		}
		ok := true
		for _, ref := range pc.refs {
			ok = ok && (ref.state == parcelDone || ref.state == parcelCommitting)
		}
		if ok {
			pc.state = parcelCommitting
			parcels = append(parcels, pc)
		}
	}
	if len(parcels) == 0 {
		return
	}
	d.committing = true
	req := wire.CommitRequest{Paths: make([]wire.CommitPath, len(parcels))}
	for i, pc := range parcels {
		req.Paths[i] = d.commitPath(pc)
	}
	wg.Go(func() {
		d.logs(ctx, parcels)
		done := commitDone{parcels: parcels}
		done.result, done.err = d.doCommit(ctx, parcels[0], &req)
		if done.err == nil {
			done.pins, done.err = d.pins(ctx, parcels[:done.result.Committed])
		}
		d.post(ctx, done)
	})
}

// logs sends the logs of paths before they are committed: who is interrupted afterwards, and
// begins again, would find the paths there and not send them. When that takes too long the rest is
// left to the end of the push.
func (d *delta) logs(ctx context.Context, parcels []*parcel) {
	if d.p.log.late || d.p.log.store == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, logsOfCommit)
	defer cancel()
	paths := make([]nix.StorePath, len(parcels))
	for i, pc := range parcels {
		paths[i] = pc.path.storePath
	}
	d.p.sendLogs(ctx, paths, false)
	d.p.log.late = ctx.Err() != nil
}

func (d *delta) commitPath(pc *parcel) wire.CommitPath {
	info := d.p.uploadInfo(&pc.path)
	return wire.CommitPath{
		StorePath: info.StorePath, NarHash: pc.path.narHash.String(), NarSize: info.NarSize, References: info.References,
		Deriver: deref(info.Deriver), CA: deref(info.CA), Sigs: info.Sigs, Pin: info.Pin, Receipts: pc.now.receipts,
	}
}

// doCommit makes the requests of one commit.
func (d *delta) doCommit(ctx context.Context, first *parcel, req *wire.CommitRequest) (wire.CommitResult, error) {
	var answer wire.CommitResult
	for i := range req.Paths {
		for len(req.Paths[i].Receipts) > int(d.mostReceipts.Load()) {
			joined, err := d.join(ctx, first, req.Paths[i].Receipts)
			if err != nil {
				return answer, err
			}
			req.Paths[i].Receipts = joined
		}
	}
	payload, err := encode(req)
	if err != nil {
		return answer, err
	}
	err = d.p.c.retrying(ctx, &d.p.budget, d.retried(first), func(ctx context.Context, _ int) error {
		answer = wire.CommitResult{}
		return d.p.c.attempt(ctx, http.MethodPost, deltaPath(d.p.o.Cache, "commit", d.version()), payload, &answer)
	})
	if err == nil && (answer.Committed < 1 || answer.Committed > len(req.Paths) || len(answer.Paths) != answer.Committed) {
		err = fmt.Errorf("push to cache %q: the server says that it committed %d paths of %d, and tells of %d", d.p.o.Cache, answer.Committed, len(req.Paths), len(answer.Paths))
	}
	return answer, err
}

func (d *delta) version() url.Values {
	return url.Values{wire.DeltaVersionParam: {fmt.Sprint(d.info.Version)}}
}

// join makes fewer receipts of many.
func (d *delta) join(ctx context.Context, first *parcel, receipts [][]byte) ([][]byte, error) {
	var out [][]byte
	for len(receipts) > 0 {
		n := min(len(receipts), int(d.joinReceipts.Load()))
		if n == 1 {
			out, receipts = append(out, receipts[0]), receipts[1:]
			continue
		}
		payload, err := encode(wire.JoinRequest{Receipts: receipts[:n]})
		if err != nil {
			return nil, err
		}
		var answer wire.JoinResult
		err = d.p.c.retrying(ctx, &d.p.budget, d.retried(first), func(ctx context.Context, _ int) error {
			return d.p.c.attempt(ctx, http.MethodPost, deltaPath(d.p.o.Cache, "join", d.version()), payload, &answer)
		})
		if tooLarge(err) && n > 2 {
			d.joinReceipts.Store(int64(max(n/2, 2)))
			continue
		}
		if err != nil {
			return nil, err
		}
		out, receipts = append(out, answer.Receipt), receipts[n:]
	}
	return out, nil
}

// pins asks for the pins that a commit has set.
func (d *delta) pins(ctx context.Context, parcels []*parcel) (map[*parcel]*Pin, error) {
	pins := map[*parcel]*Pin{}
	for _, pc := range parcels {
		if pc.path.pin == "" {
			continue
		}
		pin, err := d.p.c.AddPin(ctx, d.p.o.Cache, pc.path.pin, PinRequest{StorePath: pc.path.storePath.String(), Policy: d.p.o.PinPolicy, Present: true})
		if err != nil {
			return nil, fmt.Errorf("pin %s: %w", pc.path.pin, err)
		}
		pins[pc] = &pin
	}
	return pins, nil
}

// committed takes note of what became of a commit.
func (d *delta) committed(ctx context.Context, ev *commitDone) error {
	d.committing = false
	if ev.err != nil {
		return d.notCommitted(ctx, ev)
	}
	d.commitPaths = min(2*d.commitPaths, d.mostPaths)
	for i, pc := range ev.parcels {
		if i >= ev.result.Committed {
			pc.state = parcelComplete // the next commit has it
			continue
		}
		res := &ev.result.Paths[i]
		o := Outcome{Kind: Pushed, FileSize: res.FileSize, Deduplicated: share(pc.now), Counted: true, New: pc.now.fresh, Compressed: pc.now.packed}
		if res.Kind == wire.CommitPresent || pc.now.fresh == 0 {
			o.Kind = Deduplicated
		}
		for _, base := range res.AbsentReferences {
			d.absent[base] = true
		}
		o.Pin = ev.pins[pc]
		d.end(pc, o, parcelDone)
	}
	return nil
}

// notCommitted decides what to do about a commit that was refused.
func (d *delta) notCommitted(ctx context.Context, ev *commitDone) error {
	for _, pc := range ev.parcels {
		pc.state = parcelComplete
	}
	if ctx.Err() != nil {
		return ev.err
	}
	status, _ := errors.AsType[*StatusError](ev.err)
	if status != nil && status.Name == wire.ErrorChunksMissing {
		var object wire.CommitError
		if json.Unmarshal(status.object, &object) == nil && len(object.Missing) > 0 {
			begun := false
			for _, m := range object.Missing {
				if m.Path >= 0 && m.Path < len(ev.parcels) && ev.parcels[m.Path].state == parcelComplete {
					d.gone(ctx, ev.parcels[m.Path])
					begun = true
				}
			}
			if begun {
				return nil
			}
		}
	}
	if status != nil && status.Name == wire.ErrorAbsentReferences && d.p.looked != nil {
		return fmt.Errorf("%w: %w", errWithdrawn, ev.err)
	}
	if len(ev.parcels) > 1 && (tooLarge(ev.err) || status != nil && status.Final() && !status.hopeless()) {
		d.commitPaths = max(1, len(ev.parcels)/2) // which of them is it?
		if tooLarge(ev.err) {
			d.mostPaths = d.commitPaths
		}
		return nil
	}
	if tooLarge(ev.err) && len(ev.parcels[0].now.receipts) > 1 && d.mostReceipts.Swap(1) > 1 {
		return nil
	}
	for _, pc := range ev.parcels {
		d.fail(pc, ev.err)
	}
	return ev.err
}
