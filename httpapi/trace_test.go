package httpapi_test

import (
	"bytes"
	"context"
	"strings"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

// With a tracer there is one span a request, named by the route, and its id is in the log;
// answers are the same as without.
func TestTraces(t *testing.T) {
	exporter := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
	t.Cleanup(func() { must(t, provider.Shutdown(context.WithoutCancel(t.Context()))) })
	n := mkNode(t, nil, func(o *nodeOptions) {
		o.http.TracerProvider = provider
		o.chunks.Dir = t.TempDir()
	})
	url, whole := servedNar(t, n, "c")
	if r := n.call("GET", url, "", nil, "Range", "bytes=10-1000").want(t, 206, ""); !bytes.Equal(r.body, whole[10:1001]) {
		t.Error("a range is not what it should be")
	}
	n.call("GET", "/c/short.narinfo", "", nil).want(t, 404, "")
	names := map[string]bool{}
	for _, s := range exporter.GetSpans() {
		names[s.Name] = true
	}
	for _, want := range []string{"PUT /_api/v1/upload-path", "GET /{cache}/nar/{file}", "GET /{cache}/{file}"} {
		if !names[want] {
			t.Errorf("no span is named %q, but %v are", want, names)
		}
	}
	if !strings.Contains(n.logs.String(), `"trace_id":"`) {
		t.Error("the log has no trace_id")
	}
}
