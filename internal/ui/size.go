package ui

import (
	"fmt"
	"time"
)

// Size writes a number of bytes for a person: "0 B", "1.5 KiB", "218 MiB".
func Size(n int64) string {
	if n < 0 {
		return "-" + Size(-n)
	}
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	units := []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	v := float64(n) / 1024
	i := 0
	for v >= 1023.95 && i < len(units)-1 {
		v /= 1024
		i++
	}
	if v < 99.95 {
		return fmt.Sprintf("%.1f %s", v, units[i])
	}
	return fmt.Sprintf("%.0f %s", v, units[i])
}

// Rate writes bytes per second; a span too short to divide by gives "".
func Rate(n int64, d time.Duration) string {
	if d < time.Millisecond {
		return ""
	}
	return Size(int64(float64(n)/d.Seconds())) + "/s"
}

// Duration writes a span with as many digits as a person wants: "230ms", "4.1s", "3m12s".
func Duration(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", d.Seconds())
	default:
		return d.Round(time.Second).String()
	}
}

// Plural writes a count with its noun: "1 path", "3 paths".
func Plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
