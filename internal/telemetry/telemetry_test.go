package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLogger(t *testing.T) {
	var out bytes.Buffer
	log, err := NewLogger(&out, "warn", "json")
	if err != nil {
		t.Fatal(err)
	}
	log.Info("too quiet to be heard")
	log.Warn("heard", "seq", 7)
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatalf("%v in %q", err, out.String())
	}
	if line["msg"] != "heard" || line["seq"] != 7.0 {
		t.Errorf("got %v", line)
	}
	if _, err := NewLogger(&out, "loud", "text"); err == nil {
		t.Error("level loud was accepted")
	}
	if _, err := NewLogger(&out, "info", "xml"); err == nil {
		t.Error("format xml was accepted")
	}
}

func TestMetricsHandler(t *testing.T) {
	set := NewMetrics()
	set.NewCounter("celler_test_things_total").Add(3)
	w := httptest.NewRecorder()
	MetricsHandler(set).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	for _, want := range []string{"celler_test_things_total 3\n", "process_resident_memory_bytes ", "go_goroutines "} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %q in the answer", want)
		}
	}
}

func TestTracing(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	kept := &keeping{InMemoryExporter: spans}
	tr, err := exportTo(t.Context(), kept, "v1")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	log, err := NewLogger(&out, "info", "text")
	if err != nil {
		t.Fatal(err)
	}
	h := tr.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		log.With(slog.Int("a", 1)).InfoContext(r.Context(), "inside")
		tr.Record(r.Context(), "blob.get", time.Now(), time.Second, errors.New("lost"))
	}))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/x", nil))
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(kept.seen) != 2 {
		t.Fatalf("got %d spans, want the request and the call of the bucket", len(kept.seen))
	}
	call, request := kept.seen[0], kept.seen[1]
	if call.Name != "blob.get" || call.Parent.SpanID() != request.SpanContext.SpanID() || call.Status.Description != "lost" {
		t.Errorf("the call of the bucket is %q under %v: %v", call.Name, call.Parent.SpanID(), call.Status)
	}
	if got := call.EndTime.Sub(call.StartTime); got != time.Second {
		t.Errorf("the call of the bucket took %v, want 1s", got)
	}
	if want := "trace_id=" + request.SpanContext.TraceID().String(); !strings.Contains(out.String(), want) {
		t.Errorf("no %s in the log line %q", want, out.String())
	}
}

func TestNoTracing(t *testing.T) {
	tr, err := NewTracing(t.Context(), "", "v1")
	if err != nil {
		t.Fatal(err)
	}
	if tr.Enabled() {
		t.Error("traces are exported to nowhere")
	}
	tr.Record(t.Context(), "x", time.Now(), 0, nil)
	if err := tr.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// keeping remembers spans beyond the shutdown, at which the exporter forgets them.
type keeping struct {
	*tracetest.InMemoryExporter
	seen tracetest.SpanStubs
}

func (k *keeping) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	k.seen = append(k.seen, tracetest.SpanStubsFromReadOnlySpans(spans)...)
	return nil
}
