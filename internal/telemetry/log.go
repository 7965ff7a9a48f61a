package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"go.opentelemetry.io/otel/trace"
)

// NewLogger returns a logger that writes to w. Level is debug, info, warn or error;
// format is text or json. A line logged under a span carries its trace_id.
func NewLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	var least slog.Level
	if err := least.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q: expected debug, info, warn or error", level)
	}
	o := &slog.HandlerOptions{Level: least}
	switch format {
	case "text":
		return slog.New(traceHandler{slog.NewTextHandler(w, o)}), nil
	case "json":
		return slog.New(traceHandler{slog.NewJSONHandler(w, o)}), nil
	}
	return nil, fmt.Errorf("log format %q: expected text or json", format)
}

// traceHandler adds the trace that a line belongs to, so that logs and traces can be
// laid side by side.
type traceHandler struct{ slog.Handler }

func (h traceHandler) Handle(ctx context.Context, r slog.Record) error {
	if span := trace.SpanContextFromContext(ctx); span.HasTraceID() && !has(r, traceKey) {
		r.AddAttrs(slog.String(traceKey, span.TraceID().String()))
	}
	return h.Handler.Handle(ctx, r)
}

// traceKey is the attribute under which the trace stands.
const traceKey = "trace_id"

func has(r slog.Record, key string) bool {
	found := false
	r.Attrs(func(a slog.Attr) bool {
		found = a.Key == key
		return !found
	})
	return found
}

func (h traceHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return traceHandler{h.Handler.WithAttrs(attrs)}
}

func (h traceHandler) WithGroup(name string) slog.Handler {
	return traceHandler{h.Handler.WithGroup(name)}
}
