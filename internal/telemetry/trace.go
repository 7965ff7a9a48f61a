package telemetry

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// tracerName is the instrumentation scope of every span that is made here.
const tracerName = "github.com/celler/celler"

// Tracing makes spans at the seams between packages.
type Tracing struct {
	provider trace.TracerProvider
	tracer   trace.Tracer
	close    func(context.Context) error // nil: nothing is exported
}

// NewTracing returns a Tracing that exports over OTLP/HTTP if endpoint is set, and one
// that does nothing if it is not. Endpoint, headers and the rest are what the
// exporter finds in the variables OTEL_….
func NewTracing(ctx context.Context, endpoint, version string) (*Tracing, error) {
	if endpoint == "" {
		return newTracing(noop.NewTracerProvider(), nil), nil
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("export traces to %s: %w", endpoint, err)
	}
	return exportTo(ctx, exporter, version)
}

// exportTo batches spans for exporter.
func exportTo(ctx context.Context, exporter sdktrace.SpanExporter, version string) (*Tracing, error) {
	res, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", "celler"), attribute.String("service.version", version)),
		resource.WithFromEnv()) // OTEL_SERVICE_NAME wins
	if err != nil {
		return nil, fmt.Errorf("describe this process to the tracer: %w", err)
	}
	p := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(res))
	return newTracing(p, p.Shutdown), nil
}

func newTracing(p trace.TracerProvider, shut func(context.Context) error) *Tracing {
	return &Tracing{provider: p, tracer: p.Tracer(tracerName), close: shut}
}

// Enabled says whether anybody will see a span.
func (t *Tracing) Enabled() bool { return t.close != nil }

// Provider is what makes the spans, for packages that make their own; nil if nobody
// will see them.
func (t *Tracing) Provider() trace.TracerProvider {
	if !t.Enabled() {
		return nil
	}
	return t.provider
}

// Record makes a span of something that has just ended.
func (t *Tracing) Record(ctx context.Context, name string, start time.Time, took time.Duration, err error, attrs ...attribute.KeyValue) {
	if !t.Enabled() {
		return
	}
	_, span := t.tracer.Start(ctx, name, trace.WithTimestamp(start), trace.WithAttributes(attrs...))
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	span.End(trace.WithTimestamp(start.Add(took)))
}

// Close sends what has not been sent yet.
func (t *Tracing) Close(ctx context.Context) error {
	if t.close == nil {
		return nil
	}
	if err := t.close(ctx); err != nil {
		return fmt.Errorf("send the last traces: %w", err)
	}
	return nil
}
