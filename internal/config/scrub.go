package config

import "time"

// Scrub says how servers read back what is in the bucket, to see whether it still is
// what was written.
type Scrub struct {
	BytesPerDay Bytes `toml:"bytes-per-day" default:"10GiB" env:"CELLER_SCRUB_BYTES_PER_DAY" placeholder:"SIZE" help:"How much of the bucket the servers together read back a day; 0 for nothing (${default})."`
	Interval    Span  `toml:"interval" default:"30 days" env:"CELLER_SCRUB_INTERVAL" placeholder:"SPAN" help:"How long an object is left alone after it was read back (${default})."`
}

// Check reports values that cannot be used.
func (s *Scrub) Check() error {
	if s.BytesPerDay < 0 {
		return &ValueError{"scrub.bytes-per-day", s.BytesPerDay.String(), "a size that is not negative"}
	}
	if s.BytesPerDay > 0 && time.Duration(s.Interval) < time.Hour {
		return &ValueError{"scrub.interval", s.Interval.String(), "at least 1h0m0s"}
	}
	return nil
}
