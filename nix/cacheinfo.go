package nix

import (
	"fmt"
	"strconv"
	"strings"
)

const (
	// DefaultPriority is what Nix assumes of a cache that states none; a lower
	// number is asked first, and cache.nixos.org states 40.
	DefaultPriority = 50
	// maxCacheInfoBytes bounds a nix-cache-info; real ones have four lines.
	maxCacheInfoBytes = 64 << 10
)

// CacheInfo is the text of nix-cache-info.
type CacheInfo struct {
	StoreDir      StoreDir // empty = not stated
	WantMassQuery bool     // whether clients should ask for whole closures
	Priority      int      // lower is asked first
	Extra         []Field  // keys we do not know, in the order given
}

// ParseCacheInfo reads a nix-cache-info as tolerantly as Nix does: lines without
// a colon mean nothing, spaces around values do not count, the last of two
// equal keys wins. What it is not tolerant of is a store dir that is none and a
// priority that is no number.
func ParseCacheInfo(text []byte) (CacheInfo, error) {
	c := CacheInfo{Priority: DefaultPriority}
	if len(text) > maxCacheInfoBytes {
		return CacheInfo{}, fmt.Errorf("nix-cache-info: %d bytes long, the limit is %d", len(text), maxCacheInfoBytes)
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		key, value, found := strings.Cut(line, ":")
		if !found {
			continue
		}
		value = strings.TrimSpace(value)
		var err error
		switch key {
		case "StoreDir":
			c.StoreDir, err = ParseStoreDir(value)
		case "WantMassQuery":
			c.WantMassQuery = value == "1"
		case "Priority":
			c.Priority, err = strconv.Atoi(value)
			if err != nil {
				err = fmt.Errorf("priority %s: not a number", quote(value))
			}
		default:
			c.Extra = append(c.Extra, Field{Key: key, Value: value})
		}
		if err != nil {
			return CacheInfo{}, fmt.Errorf("nix-cache-info: %w", err)
		}
	}
	return c, nil
}

// AppendText appends the text. It fails, appending nothing, if the store dir is
// set and not valid or an extra field cannot stand on a line.
func (c CacheInfo) AppendText(dst []byte) ([]byte, error) {
	if c.StoreDir != "" {
		if err := c.StoreDir.Valid(); err != nil {
			return dst, fmt.Errorf("nix-cache-info: %w", err)
		}
	}
	for _, f := range c.Extra {
		if f.Key == "" || strings.ContainsAny(f.Key, ":\r\n") || strings.ContainsAny(f.Value, "\r\n") {
			return dst, fmt.Errorf("nix-cache-info: extra field %s cannot stand on a line", quote(f.Key))
		}
	}
	dst = append(dst, "WantMassQuery: "...)
	if c.WantMassQuery {
		dst = append(dst, '1')
	} else {
		dst = append(dst, '0')
	}
	dst = append(dst, '\n')
	if c.StoreDir != "" {
		dst = appendLine(dst, "StoreDir: ", string(c.StoreDir))
		dst = append(dst, '\n')
	}
	dst = append(dst, "Priority: "...)
	dst = strconv.AppendInt(dst, int64(c.Priority), 10)
	dst = append(dst, '\n')
	for _, f := range c.Extra {
		dst = append(dst, f.Key...)
		dst = appendLine(dst, ": ", f.Value)
		dst = append(dst, '\n')
	}
	return dst, nil
}
