package httpapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/celler/celler/internal/compression"
)

// decoderBytes is what all requests together may need to undo the compression of what they
// are sent: some thirty NARs in the default of xz, or the two greediest there are.
const decoderBytes = 2 * compression.MaxMemory

// textCodec compresses the short texts that are kept in rows.
type textCodec struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

// newTextCodec starts nothing: both only work on whole texts.
func newTextCodec() textCodec {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithWindowSize(1<<20))
	if err != nil {
		panic(fmt.Sprintf("make an encoder: %v", err)) // its options are constants
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxTextBytes))
	if err != nil {
		panic(fmt.Sprintf("make a decoder: %v", err))
	}
	return textCodec{enc, dec}
}

// maxTextBytes bounds what a row can unfold to.
const maxTextBytes = 64 << 20

// EncodeAll appends the compressed text.
func (c textCodec) EncodeAll(text, dst []byte) []byte { return c.enc.EncodeAll(text, dst) }

// DecodeAll appends the text.
func (c textCodec) DecodeAll(packed, dst []byte) ([]byte, error) { return c.dec.DecodeAll(packed, dst) }

// decompress undoes the compression of what a client sends. The caller calls stop, which gives
// the memory back. While others have the memory and are slow it waits, for as long as any
// peer may be silent, and then asks its own to come again.
func (x *exchange) decompress(f compression.Format, src io.Reader) (r *compression.Reader, stop func(), err error) {
	held := int64(0)
	r, err = compression.NewReader(f, src, func(n int64) error {
		soon, cancel := context.WithTimeout(x.r.Context(), x.s.opts.StallTimeout)
		defer cancel()
		switch err := x.s.decoders.Acquire(soon, n); {
		case err != nil && x.r.Context().Err() == nil:
			return errBusy.because(err)
		case err != nil:
			return err
		}
		held = n
		return nil
	})
	if err != nil {
		x.s.decoders.Release(held)
		return nil, nil, compressedError(err)
	}
	return r, func() {
		r.Close()
		x.s.decoders.Release(held)
	}, nil
}

// compressedError gives an error of a decoder its status.
func compressedError(err error) error {
	if errors.Is(err, compression.ErrMemory) {
		return tooLarge("The compressed data ask for a window of more than %d bytes, or of more than they first said.", int64(compression.MaxMemory))
	}
	if e, ok := errors.AsType[*compression.CorruptError](err); ok {
		return requestError("%v", e)
	}
	return bodyError(err)
}

// plainBody is the body without its Content-Encoding. Plain Nix compresses texts if it is
// told to.
func (x *exchange) plainBody() (r io.Reader, stop func(), err error) {
	name := strings.ToLower(strings.TrimSpace(x.r.Header.Get("Content-Encoding")))
	switch name {
	case "", "identity":
		return x.body, func() {}, nil
	case "x-gzip":
		name = "gzip"
	}
	f, ok := compression.Parse(name)
	if !ok || f == compression.None {
		return nil, nil, extractorError(415, "Content-Encoding %.40q is not supported", name)
	}
	dec, stop, err := x.decompress(f, x.body)
	if err != nil {
		return nil, nil, err
	}
	return errorReader{dec}, stop, nil
}

// errorReader gives the errors of a decoder their status.
type errorReader struct{ r io.Reader }

func (e errorReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // readers return EOF itself
		err = compressedError(err)
	}
	return n, err
}

// readText reads a whole body of at most limit plain bytes.
func (x *exchange) readText(what string, limit int64) ([]byte, error) {
	r, stop, err := x.plainBody()
	if err != nil {
		return nil, err
	}
	defer stop()
	var b bytes.Buffer
	n, err := io.Copy(&b, io.LimitReader(r, limit+1))
	switch {
	case err != nil:
		return nil, bodyError(err)
	case n > limit:
		return nil, tooLarge("The %s has more than %d bytes.", what, limit)
	}
	return b.Bytes(), nil
}
