package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Bytes is a size: a plain number of bytes, or one with a unit, as in "8MiB" or "10 GB".
type Bytes int64

// UnmarshalText reads a size.
func (b *Bytes) UnmarshalText(text []byte) error {
	n, err := ParseBytes(string(text))
	*b = n
	return err
}

// ParseBytes reads a size. Units with an i count in 1024, those without in 1000.
func ParseBytes(s string) (Bytes, error) {
	digits := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
	scale := map[string]float64{
		"": 1, "b": 1,
		"k": 1e3, "kb": 1e3, "m": 1e6, "mb": 1e6, "g": 1e9, "gb": 1e9, "t": 1e12, "tb": 1e12,
		"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
	}
	factor, known := scale[strings.ToLower(strings.TrimSpace(s[len(digits):]))]
	v, err := strconv.ParseFloat(strings.ReplaceAll(digits, "_", ""), 64)
	if err != nil || !known || v < 0 || math.IsInf(v, 0) || v*factor >= 1<<62 {
		return 0, fmt.Errorf("size %q: expected a number with a unit, such as 8MiB", s)
	}
	return Bytes(math.Round(v * factor)), nil
}

// String writes the size in the largest unit that divides it.
func (b Bytes) String() string {
	for _, u := range []struct {
		size Bytes
		name string
	}{{1 << 40, "TiB"}, {1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if b >= u.size && b%u.size == 0 {
			return strconv.FormatInt(int64(b/u.size), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// Span is a length of time, written as Go does ("1h30m") or as Attic does ("12 hours",
// "2 years").
type Span time.Duration

// UnmarshalText reads a span.
func (s *Span) UnmarshalText(text []byte) error {
	d, err := ParseSpan(string(text))
	*s = d
	return err
}

// String writes the span as Go does.
func (s Span) String() string { return time.Duration(s).String() }

// ParseSpan reads a span: numbers, each with a unit, one after the other. A month is
// 30.44 days and a year 365.25, as humantime has them. "0" needs no unit.
func ParseSpan(text string) (Span, error) {
	fail := func() (Span, error) {
		return 0, fmt.Errorf("span %q: expected numbers with units, such as 30s, 12 hours or 2 years", text)
	}
	rest := strings.TrimSpace(text)
	if rest == "0" {
		return 0, nil
	}
	if rest == "" {
		return fail()
	}
	total := 0.0
	for rest != "" {
		n := len(rest) - len(strings.TrimLeft(rest, "0123456789."))
		v, err := strconv.ParseFloat(rest[:n], 64)
		if err != nil {
			return fail()
		}
		rest = strings.TrimLeft(rest[n:], " ")
		n = len(rest) - len(strings.TrimLeft(rest, "abcdefghijklmnopqrstuvwxyzMµ"))
		unit, ok := spanUnit(rest[:n])
		if !ok {
			return fail()
		}
		total += v * float64(unit)
		rest = strings.TrimLeft(rest[n:], " ")
	}
	if total >= math.MaxInt64 {
		return 0, fmt.Errorf("span %q: longer than 292 years", text)
	}
	return Span(math.Round(total)), nil
}

func spanUnit(name string) (time.Duration, bool) {
	const day = 24 * time.Hour
	units := map[string]time.Duration{
		"nsec": time.Nanosecond, "ns": time.Nanosecond,
		"usec": time.Microsecond, "us": time.Microsecond, "µs": time.Microsecond,
		"msec": time.Millisecond, "ms": time.Millisecond,
		"second": time.Second, "sec": time.Second, "s": time.Second,
		"minute": time.Minute, "min": time.Minute, "m": time.Minute,
		"hour": time.Hour, "hr": time.Hour, "h": time.Hour,
		"day": day, "d": day, "week": 7 * day, "w": 7 * day,
		"month": 2630016 * time.Second, "M": 2630016 * time.Second,
		"year": 31557600 * time.Second, "y": 31557600 * time.Second,
	}
	if u, ok := units[name]; ok {
		return u, true
	}
	u, ok := units[strings.TrimSuffix(name, "s")]
	return u, ok && len(name) > 2
}
