package client

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/nix"
)

// What a server tells about a deletion.
type (
	DeleteReport = wire.DeleteReport
	DeletedPath  = wire.DeletedPath
)

// DeleteOptions says how to delete.
type DeleteOptions struct {
	Closure bool // also what the paths refer to, as far as nothing that stays refers to it
	DryRun  bool // say what would go, and leave it
	Now     bool // do not wait until the URLs that clients remember are stale
}

// DeletePaths removes paths from a cache, all or none, and says when their bytes will be
// gone. Only celler answers this.
func (c *Client) DeletePaths(ctx context.Context, cache string, hashParts []nix.HashPart, o DeleteOptions) (DeleteReport, error) {
	body := wire.DeleteRequest{Paths: make([]string, 0, len(hashParts)), Closure: o.Closure, DryRun: o.DryRun, Now: o.Now}
	for _, hashPart := range hashParts {
		body.Paths = append(body.Paths, hashPart.String())
	}
	payload, err := encode(body)
	if err != nil {
		return DeleteReport{}, err
	}
	var answer DeleteReport
	err = c.retrying(ctx, &budget{}, c.noticed(), func(ctx context.Context, n int) error {
		err := c.attempt(ctx, http.MethodPost, "_api/v1/caches/"+url.PathEscape(cache)+"/delete-paths", payload, &answer)
		status, ok := errors.AsType[*StatusError](err)
		if ok && n > 1 && !o.DryRun && status.Name == NoSuchObject {
			return final(errDeletedAlready)
		}
		return err
	})
	return answer, err
}

// errDeletedAlready is a deletion whose answer was lost, and whose repetition found
// nothing.
var errDeletedAlready = errors.New("the answer was lost, and asked again the server says that a path is not there: it is most likely deleted")
