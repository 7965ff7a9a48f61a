package blob

import (
	"fmt"
	"strings"
)

// MaxKeyBytes bounds a key. S3 allows 1024 bytes; half of that is left for the
// prefix an operator may put in front of all keys.
const MaxKeyBytes = 512

// MaxSegmentBytes bounds what stands between two slashes of a key: file names
// end at 255 bytes, and temporary names are longer than the key they become.
const MaxSegmentBytes = 200

// Key names an object. Keys are ordered by their bytes.
type Key string

// KeyError reports a key that Valid refuses.
type KeyError struct {
	Key    Key
	Reason string
}

func (e *KeyError) Error() string {
	return fmt.Sprintf("key %q is not valid: %s", string(e.Key), e.Reason)
}

// Valid returns nil if k may name an object: one or more segments joined by
// '/', each made of ASCII letters, digits and any of . _ - = @ and none of them
// "." or "..". The error is a *KeyError.
//
// The alphabet is what needs no escaping in a URL path, in a shell, or in a file
// name on any system. What is outside it (',' above all) is free for the names a
// driver needs for itself.
func (k Key) Valid() error {
	switch {
	case k == "":
		return &KeyError{k, "empty"}
	case len(k) > MaxKeyBytes:
		return &KeyError{k[:MaxKeyBytes], fmt.Sprintf("longer than %d bytes", MaxKeyBytes)}
	}
	for segment := range strings.SplitSeq(string(k), "/") {
		switch {
		case segment == "":
			return &KeyError{k, "empty segment (leading, trailing or double slash)"}
		case segment == "." || segment == "..":
			return &KeyError{k, fmt.Sprintf("segment %q", segment)}
		case len(segment) > MaxSegmentBytes:
			return &KeyError{k, fmt.Sprintf("segment longer than %d bytes", MaxSegmentBytes)}
		}
	}
	return k.validBytes()
}

// ValidPrefix returns nil if k may be given to List as prefix or after: the
// empty key, or the beginning of a valid key. A trailing slash is allowed.
func (k Key) ValidPrefix() error {
	switch {
	case len(k) > MaxKeyBytes:
		return &KeyError{k[:MaxKeyBytes], fmt.Sprintf("longer than %d bytes", MaxKeyBytes)}
	case strings.HasPrefix(string(k), "/"):
		return &KeyError{k, "leading slash"}
	case strings.Contains(string(k), "//"):
		return &KeyError{k, "empty segment"}
	}
	return k.validBytes()
}

func (k Key) validBytes() error {
	for i := range len(k) {
		switch c := k[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("/._-=@", c) >= 0:
		default:
			return &KeyError{k, fmt.Sprintf("byte %q at offset %d", c, i)}
		}
	}
	return nil
}
