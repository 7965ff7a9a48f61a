package httpapi_test

import (
	"testing"
	"time"

	"github.com/celler/celler/httpapi/wire"
)

func future() time.Time { return time.Now().Add(time.Hour) }

func TestDeltaPush(t *testing.T) {
	n := mkNode(t, nil, withDelta)
	n.mkCache("ci", false)
	d := n.deltaClient("ci", n.root())
	var config wire.CacheConfig
	n.call("GET", "/_api/v1/cache-config/ci", n.root(), nil).want(t, 200, "").json(t, &config)
	if config.Celler == nil || len(config.Celler.Delta) != 1 || config.Celler.Delta[0] != 1 {
		t.Errorf("capabilities %+v announce no delta protocol", config.Celler)
	}

	small, large := mkPath(t, "small", 1, 500), mkPath(t, "large", 2, 3<<20)
	if sent := d.push(small); sent > len(small.NAR)+400 {
		t.Errorf("%d bytes were sent for a NAR of %d", sent, len(small.NAR))
	}
	n.wantNar("ci", small)
	d.segment = 256 << 10
	d.push(large)
	n.wantNar("ci", large)
	if sent := d.push(large); sent > len(large.NAR)/200 {
		t.Errorf("%d bytes were sent for a NAR of %d bytes that is there", sent, len(large.NAR))
	}
	n.mkCache("other", false)
	other := n.deltaClient("other", n.root())
	if sent := other.push(large); sent > len(large.NAR)/200 {
		t.Errorf("%d bytes were sent to another cache", sent)
	}
	n.wantNar("other", large)
}
