package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/nix"
)

// closurePaths is how many paths go into one question about closures: proxies take 327,680
// bytes as a rule.
const closurePaths = 16384

// closures is the answer to a question about closures.
type closures struct {
	missing wire.Bitmap
	walked  bool
	paths   int    // that are there, if walked
	absent  int    // that those refer to, if walked
	sum     []byte // wire.AbsentSum of them, if there are any
}

// askClosures asks which of the hash parts a cache lacks, and what it has of the closures of
// the others.
func (c *Client) askClosures(ctx context.Context, cache string, hashParts []nix.HashPart) (a closures, err error) {
	body := wire.AppendHashParts(nil, hashParts)
	query := url.Values{wire.DeltaVersionParam: {fmt.Sprint(wire.DeltaVersion)}}
	var text []byte
	err = c.retrying(ctx, &budget{}, c.noticed(), func(ctx context.Context, _ int) (err error) {
		text, err = c.binary(ctx, deltaPath(cache, "paths", query), wire.DeltaContentType, body)
		return err
	})
	if err != nil {
		return a, err
	}
	var answer wire.PathsResult
	if err := json.Unmarshal(text, &answer); err != nil {
		return a, fmt.Errorf("ask cache %q about closures: decode answer %.60q: %w", cache, text, err)
	}
	if err := answer.Missing.Check(len(hashParts)); err != nil {
		return a, fmt.Errorf("ask cache %q about closures: %w", cache, err)
	}
	a.missing = answer.Missing
	if found := answer.Closure; found != nil {
		if found.Absent < 0 || found.Absent > 0 && len(found.AbsentSum) != wire.AbsentSumBytes {
			return a, fmt.Errorf("ask cache %q about closures: %d paths are said to be absent, with a sum of %d bytes", cache, found.Absent, len(found.AbsentSum))
		}
		a.walked, a.paths, a.absent, a.sum = true, found.Paths, found.Absent, found.AbsentSum
	}
	return a, nil
}
