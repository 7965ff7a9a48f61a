package node

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/VictoriaMetrics/metrics"
	"go.opentelemetry.io/otel/attribute"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/internal/telemetry"
)

// bucketMetrics count and time what is asked of one bucket:
//
//	celler_blob_requests_total{bucket,op,result}
//	celler_blob_request_seconds{bucket,op,result}
//	celler_blob_request_bytes_total{bucket,op}
//
// Bucket is log, data or all; op is the method; result is one of resultOf's words.
type bucketMetrics struct {
	set   *metrics.Set
	role  string
	calls sync.Map // callKey → *callMetrics
	bytes sync.Map // op → *metrics.Counter
}

type callKey struct{ op, result string }

type callMetrics struct {
	total   *metrics.Counter
	seconds *metrics.PrometheusHistogram
}

// observed wraps b so that its calls are counted and appear in traces.
func observed(b blob.Bucket, role string, set *metrics.Set, tracing *telemetry.Tracing) blob.Bucket {
	m := &bucketMetrics{set: set, role: role}
	return blob.Observe(b, func(ctx context.Context, call blob.Call) {
		result := resultOf(call.Err)
		m.count(call, result)
		if !tracing.Enabled() {
			return
		}
		var failure error
		if isFailure(result) {
			failure = call.Err
		}
		tracing.Record(ctx, "blob."+call.Op, call.Start, call.Dur, failure,
			attribute.String("object", string(call.Key)), attribute.Int64("bytes", call.Bytes), attribute.String("result", result))
	})
}

func (m *bucketMetrics) count(call blob.Call, result string) {
	key := callKey{call.Op, result}
	v, ok := m.calls.Load(key)
	if !ok {
		labels := fmt.Sprintf("{bucket=%q,op=%q,result=%q}", m.role, call.Op, result)
		v, _ = m.calls.LoadOrStore(key, &callMetrics{
			total:   m.set.GetOrCreateCounter("celler_blob_requests_total" + labels),
			seconds: m.set.GetOrCreatePrometheusHistogram("celler_blob_request_seconds" + labels),
		})
	}
	c := v.(*callMetrics)
	c.total.Inc()
	c.seconds.Update(call.Dur.Seconds())
	b, ok := m.bytes.Load(call.Op)
	if !ok {
		b, _ = m.bytes.LoadOrStore(call.Op, m.set.GetOrCreateCounter(fmt.Sprintf("celler_blob_request_bytes_total{bucket=%q,op=%q}", m.role, call.Op)))
	}
	b.(*metrics.Counter).AddInt64(call.Bytes)
}

// resultOf says in one word how a call ended.
func resultOf(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, blob.ErrNotExist):
		return "not_exist"
	case errors.Is(err, blob.ErrExist):
		return "exist"
	case errors.Is(err, blob.ErrChanged):
		return "changed"
	case errors.Is(err, blob.ErrUnchanged):
		return "unchanged"
	case errors.Is(err, context.Canceled):
		return "canceled"
	}
	switch blob.KindOf(err) {
	case blob.KindThrottled:
		return "throttled"
	case blob.KindUnreachable:
		return "unreachable"
	case blob.KindDenied:
		return "denied"
	case blob.KindNoBucket:
		return "no_bucket"
	case blob.KindFull:
		return "full"
	case blob.KindReadOnly:
		return "read_only"
	case blob.KindCorrupt:
		return "corrupt"
	case blob.KindUnsupported, blob.KindOther:
	}
	return "error"
}

// isFailure tells outcomes that callers expect from those they do not.
func isFailure(result string) bool {
	switch result {
	case "ok", "not_exist", "exist", "changed", "unchanged", "canceled":
		return false
	}
	return true
}
