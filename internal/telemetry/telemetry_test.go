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
	ctx, request := tr.Provider().Tracer("test").Start(t.Context(), "request")
	log.With(slog.Int("a", 1)).InfoContext(ctx, "inside")
	log.InfoContext(ctx, "said already", "trace_id", "mine")
	tr.Record(ctx, "blob.get", time.Now(), time.Second, errors.New("lost"))
	request.End()
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(kept.seen) != 2 {
		t.Fatalf("got %d spans, want the request and the call of the bucket", len(kept.seen))
	}
	call := kept.seen[0]
	if call.Name != "blob.get" || call.Parent.SpanID() != request.SpanContext().SpanID() || call.Status.Description != "lost" {
		t.Errorf("the call of the bucket is %q under %v: %v", call.Name, call.Parent.SpanID(), call.Status)
	}
	if got := call.EndTime.Sub(call.StartTime); got != time.Second {
		t.Errorf("the call of the bucket took %v, want 1s", got)
	}
	if want := "trace_id=" + request.SpanContext().TraceID().String(); strings.Count(out.String(), want) != 1 || !strings.Contains(out.String(), "trace_id=mine\n") {
		t.Errorf("want %s in the first line and not in the second: %q", want, out.String())
	}
}

// What OTEL_EXPORTER_OTLP_ENDPOINT names receives the spans.
func TestExport(t *testing.T) {
	paths := make(chan string, 10)
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		paths <- r.Method + " " + r.URL.Path
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	tr, err := NewTracing(t.Context(), collector.URL, "v1")
	if err != nil {
		t.Fatal(err)
	}
	tr.Record(t.Context(), "blob.get", time.Now(), time.Second, nil)
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	collector.Close()
	close(paths)
	if got := <-paths; got != "POST /v1/traces" {
		t.Errorf("the collector was asked %q, want POST /v1/traces", got)
	}
}

func TestNoTracing(t *testing.T) {
	tr, err := NewTracing(t.Context(), "", "v1")
	if err != nil {
		t.Fatal(err)
	}
	if tr.Enabled() || tr.Provider() != nil {
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
