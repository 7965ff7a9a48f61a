package chunkstore

import (
	"fmt"

	"github.com/klauspost/compress/zstd"

	"github.com/celler/celler/blob/chunk"
)

// badFrameError says what is wrong with a frame that was sent.
type badFrameError struct{ problem string }

func (e *badFrameError) Error() string { return e.problem }

func badFrame(format string, args ...any) error {
	return &badFrameError{fmt.Sprintf(format, args...)}
}

// checkFrame says whether a frame, which will be stored as it is, keeps to the limits:
// everything that can be told without decoding it.
func (s *Store) checkFrame(names []chunk.Name, sizes []uint32, data []byte) error {
	profile := s.o.Profile
	if len(sizes) == 0 || len(names) != len(sizes) {
		return badFrame("a frame of %d chunks with %d names", len(sizes), len(names))
	}
	plain := uint64(0)
	for i, n := range sizes {
		if n == 0 || int64(n) > int64(profile.Max) || i < len(sizes)-1 && int(n) < profile.Min {
			return badFrame("chunk %d has %d bytes, want %d to %d, or fewer of the last in a frame", i, n, profile.Min, profile.Max)
		}
		plain += uint64(n)
	}
	if most := uint64(max(s.o.FrameBytes, profile.Max)); plain > most {
		return badFrame("its chunks have %d bytes together, want at most %d in a frame", plain, most)
	}
	// What does not compress is stored in blocks of 128 KiB with three bytes each.
	if most := plain + plain/1024 + 64; uint64(len(data)) > most {
		return badFrame("a frame of %d bytes for %d plain ones, want at most %d", len(data), plain, most)
	}
	var h zstd.Header
	if err := h.Decode(data); err != nil || h.Skippable {
		return badFrame("%d bytes that do not begin a zstd frame", len(data))
	}
	switch {
	case h.HasFCS && h.FrameContentSize != plain:
		return badFrame("the zstd frame states a content of %d bytes, its chunks have %d", h.FrameContentSize, plain)
	case h.DictionaryID != 0:
		return badFrame("the zstd frame wants dictionary %d, want none", h.DictionaryID)
	case !h.SingleSegment && h.WindowSize > frameWindow:
		return badFrame("the zstd frame has a window of %d bytes, want at most %d", h.WindowSize, frameWindow)
	}
	if n := frameLen(data, &h); n != len(data) {
		return badFrame("%d bytes that are not exactly one zstd frame", len(data))
	}
	return nil
}

// frameLen returns the length of the zstd frame that data begins with, or -1 if it is cut
// off. See RFC 8878, section 3.1.1.
func frameLen(data []byte, h *zstd.Header) int {
	at := h.HeaderSize
	for {
		if len(data)-at < 3 {
			return -1
		}
		block := uint32(data[at]) | uint32(data[at+1])<<8 | uint32(data[at+2])<<16
		last, kind, size := block&1 != 0, block>>1&3, int(block>>3)
		if kind == 1 { // one byte, repeated
			size = 1
		}
		if at += 3 + size; at > len(data) {
			return -1
		}
		if last {
			break
		}
	}
	if h.HasCheckSum {
		at += 4
	}
	return at
}

// openFrame returns the plain bytes of a frame that checkFrame has passed, in a buffer of
// the pool.
func (s *Store) openFrame(it *item) ([]byte, error) {
	plain := 0
	for _, n := range it.sizes {
		plain += int(n)
	}
	out, err := s.codec.decode(it.data, s.buffers.get(plain+64), plain)
	if err != nil {
		return nil, badFrame("a zstd frame of %d bytes, said to have %d plain ones: %v", len(it.data), plain, err)
	}
	return out, nil
}
