package chunkstore

import (
	"fmt"
	"runtime"

	"github.com/klauspost/compress/zstd"

	"github.com/celler/celler/blob/pack"
)

// frameWindow is the zstd window of every frame we write, and so the most a
// client must keep to decode one. Frames hold no more plain bytes than this.
const frameWindow = 1 << 20

// servedEncoder is a frozen way to make the stretches of a served NAR that no
// stored frame provides. Recipes name it by its number, and the lengths of the
// stretches in them are only true for exactly these settings in exactly this
// version of the library: TestGoldenEncoders fails when an upgrade changes the
// bytes. Then the old library has to stay (vendored under the old number) or the
// recipes that use it have to be rewritten.
type servedEncoder struct {
	level   zstd.EncoderLevel
	stretch int // plain bytes of one stretch at most, unless one chunk is longer
}

// currentEncoder is the number given to new recipes. See docs/adr/0009.
const currentEncoder uint8 = 1

func servedEncoders(version uint8) (servedEncoder, bool) {
	switch version {
	case 1:
		return servedEncoder{level: zstd.SpeedFastest, stretch: 512 << 10}, true
	case 2:
		return servedEncoder{level: zstd.SpeedDefault, stretch: 512 << 10}, true
	}
	return servedEncoder{}, false
}

// codec compresses and decompresses on at most GOMAXPROCS goroutines at a time
// each way: the encoders and decoders are the bound, callers wait for one.
type codec struct {
	frames *zstd.Encoder
	served [3]*zstd.Encoder // by version
	dec    *zstd.Decoder
}

func newCodec() (*codec, error) {
	n := runtime.GOMAXPROCS(0)
	c := &codec{}
	var err error
	if c.frames, err = newEncoder(zstd.SpeedDefault, n); err != nil {
		return nil, err
	}
	for v := range c.served {
		if e, ok := servedEncoders(uint8(v)); ok {
			if c.served[v], err = newEncoder(e.level, n); err != nil {
				return nil, err
			}
		}
	}
	c.dec, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(n), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(pack.MaxFramePlain), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, fmt.Errorf("make zstd decoder: %w", err)
	}
	return c, nil
}

// newEncoder leaves out the content checksum: frames have a CRC-32C in their
// pack, chunks and NARs a SHA-256.
func newEncoder(level zstd.EncoderLevel, n int) (*zstd.Encoder, error) {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(n),
		zstd.WithEncoderCRC(false), zstd.WithWindowSize(frameWindow), zstd.WithLowerEncoderMem(true), zstd.WithZeroFrames(true))
	if err != nil {
		return nil, fmt.Errorf("make zstd encoder: %w", err)
	}
	return e, nil
}

// close releases the goroutines and buffers of the decoder; the encoders have none.
func (c *codec) close() {
	c.dec.Close()
}

// decode returns the plain bytes of a frame, which must be exactly plain many,
// in the memory of buf if that is large enough.
func (c *codec) decode(frame, buf []byte, plain int) ([]byte, error) {
	// The decoder wants some room to spare.
	if cap(buf) < plain+64 {
		buf = make([]byte, 0, plain+64)
	}
	out, err := c.dec.DecodeAll(frame, buf[:0:plain+64])
	if err != nil {
		return nil, err
	}
	if len(out) != plain {
		return nil, fmt.Errorf("%d plain bytes, want %d", len(out), plain)
	}
	return buf[:len(out)], nil // with all its room, by which the pool knows it
}
