package pack

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/chunk"
)

// guess is how much of a pack ReadFooter asks for first. The footer of a pack of
// 16 MiB with chunks of 16 KiB is some 80 KiB.
const guess = 128 << 10

// ReadFooter reads the footer of the object called id, which has size bytes, from bucket.
func ReadFooter(ctx context.Context, bucket blob.Bucket, id ID, size int64) (Footer, error) {
	n := min(size, guess)
	for {
		if n <= 0 {
			return DecodeFooter(id, nil, size)
		}
		tail, err := readTail(ctx, bucket, Key(id), size-n, n)
		if err != nil {
			return Footer{}, fmt.Errorf("read footer of %s: %w", Key(id), err)
		}
		f, err := DecodeFooter(id, tail, size)
		var short *ShortError
		if asShort(err, &short) && short.Need > n {
			n = short.Need
			continue
		}
		return f, err
	}
}

func readTail(ctx context.Context, bucket blob.Bucket, key blob.Key, off, n int64) ([]byte, error) {
	r, err := bucket.GetRange(ctx, key, off, n)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	tail := make([]byte, n)
	if _, err := io.ReadFull(r, tail); err != nil {
		return nil, err
	}
	return tail, nil
}

func asShort(err error, short **ShortError) bool {
	s, ok := err.(*ShortError) //nolint:errorlint // DecodeFooter returns it bare
	*short = s
	return ok
}

// ReadFooterOf reads the footer of the object that holds a pack whose layout is
// known, in one request, and checks that it agrees with the layout.
func ReadFooterOf(ctx context.Context, bucket blob.Bucket, l *chunk.Layout) (Footer, error) {
	key := Key(l.Where())
	if len(l.Frames) == 0 {
		return Footer{}, fmt.Errorf("read footer of %s: the layout of pack %v has no frames", key, l.ID)
	}
	at := l.FooterOffset()
	if n := l.Bytes - at; n < int64(TrailerBytes) || n > MaxFooterBytes+int64(TrailerBytes) {
		return Footer{}, fmt.Errorf("read footer of %s: the layout of pack %v leaves %d bytes for it", key, l.ID, n)
	}
	tail, err := readTail(ctx, bucket, key, at, l.Bytes-at)
	if err != nil {
		return Footer{}, fmt.Errorf("read footer of %s: %w", key, err)
	}
	f, err := DecodeFooter(l.Where(), tail, l.Bytes)
	var short *ShortError
	if asShort(err, &short) {
		return Footer{}, &CorruptError{
			Key: key, Offset: l.Bytes - int64(TrailerBytes), What: "footer length",
			Expected: fmt.Sprint(l.Bytes - at - int64(TrailerBytes)), Found: fmt.Sprint(short.Need - int64(TrailerBytes)),
		}
	}
	if err != nil {
		return Footer{}, err
	}
	return f, f.Agrees(l)
}

// Agrees returns nil if the footer says of a pack what its layout says, and else a
// *CorruptError.
func (f *Footer) Agrees(l *chunk.Layout) error {
	e := &CorruptError{
		Key: Key(f.ID), Offset: f.Offset(), What: fmt.Sprintf("footer, about pack %v", l.ID),
		Expected: fmt.Sprintf("the %d frames and %d chunks of the index", len(l.Frames), len(l.Sizes)),
	}
	p := f.Section(l.ID)
	if p == nil {
		e.Found = "nothing"
		return e
	}
	has := f.NewPack(p).Layout
	if !slices.Equal(has.Frames, l.Frames) || !slices.Equal(has.Sizes, l.Sizes) || has.Where() != l.Where() {
		e.Found = fmt.Sprintf("other ones (%d frames, %d chunks)", len(has.Frames), len(has.Sizes))
		return e
	}
	return nil
}
