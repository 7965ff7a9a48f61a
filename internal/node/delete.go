package node

import (
	"context"
	"errors"

	"github.com/celler/celler/gc"
	"github.com/celler/celler/httpapi"
)

// deleter lets the HTTP interface delete paths with the node's collector.
type deleter struct {
	c    *gc.Collector
	soon func() // has a round begin, if this node collects
}

// Delete implements httpapi.Deleter.
func (d deleter) Delete(ctx context.Context, r httpapi.DeleteRequest) (httpapi.DeleteReport, error) {
	rep, err := d.c.Delete(ctx, gc.DeleteRequest{Cache: r.Cache, Paths: r.Paths, Closure: r.Closure, Now: r.Now, DryRun: r.DryRun})
	if pinned, ok := errors.AsType[*gc.PinnedError](err); ok {
		err = &httpapi.PinnedError{StorePath: pinned.StorePath, Pin: pinned.Pin, Root: pinned.Root}
	}
	if err != nil {
		return httpapi.DeleteReport{}, err
	}
	out := httpapi.DeleteReport{Weighed: rep.Weighed, FreedBytes: rep.Freed, Former: rep.Former, GoneBy: rep.GoneBy, Referrers: rep.Referrers, Elsewhere: rep.Elsewhere}
	out.ClosureUnknown, out.Waiting = rep.ClosureUnknown, rep.Waiting
	for _, p := range rep.Paths {
		out.Paths = append(out.Paths, httpapi.DeletedPath{StorePath: p.StorePath, NarBytes: p.NarBytes, FreedBytes: p.Freed})
	}
	if r.Now && !r.DryRun {
		d.soon()
	}
	return out, nil
}
