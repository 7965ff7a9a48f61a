package s3blob

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // see torn
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/celler/celler/blob"
)

// errBroken says that a body ended before its length. It stands for
// io.ErrUnexpectedEOF, which on a blob.Bucket means something else: that the
// object is shorter than the range.
var errBroken = errors.New("connection broke")

// bodyAttempts is how often Get starts again when a body breaks off, which the
// SDK's retries do not cover.
const bodyAttempts = 3

// Get implements blob.Bucket.
func (b *Bucket) Get(ctx context.Context, key blob.Key) ([]byte, blob.Tag, error) {
	return b.get(ctx, "get", key, "")
}

// GetIf implements blob.Bucket.
func (b *Bucket) GetIf(ctx context.Context, key blob.Key, old blob.Tag) ([]byte, blob.Tag, error) {
	return b.get(ctx, "get_if", key, old)
}

func (b *Bucket) get(ctx context.Context, op string, key blob.Key, old blob.Tag) ([]byte, blob.Tag, error) {
	if err := b.enter(ctx, op, key); err != nil {
		return nil, "", err
	}
	in := &s3.GetObjectInput{Bucket: &b.o.Bucket, Key: b.object(key)}
	if old != "" {
		in.IfNoneMatch = aws.String(string(old))
	}
	var before []byte // what came with tagBefore, although that is not its hash
	var tagBefore blob.Tag
	for attempt := 1; ; attempt++ {
		body, tag, err := b.getOnce(ctx, in)
		if err == nil && b.torn(body, tag) {
			if before != nil && tag == tagBefore && bytes.Equal(body, before) {
				b.otherTags.Add(1) // it does so always: tags are something else here
				return body, tag, nil
			}
			before, tagBefore, err = body, tag, errTorn
		}
		switch {
		case err == nil:
			return body, tag, nil
		case absent(err):
			return nil, "", outcome(op, key, blob.ErrNotExist)
		case hasStatus(err, http.StatusNotModified):
			return nil, "", outcome(op, key, blob.ErrUnchanged)
		case !errors.Is(err, errBroken) && !errors.Is(err, errTorn) || attempt == bodyAttempts || ctx.Err() != nil:
			return nil, "", b.fail(op, key, err)
		}
	}
}

// errTorn reports an answer whose entity tag is that of other bytes.
var errTorn = errors.New("the answer has the bytes of one version and the tag of another")

// sureOfTags is how many objects must have tags that are not their MD5 before nobody looks
// any more.
const sureOfTags = 3

// torn reports whether an answer may have the bytes of one version of an object and the tag
// of another: a server that keeps the two apart, as versitygw does, mixes them when the object
// is replaced while it is read, and a swap by that tag would undo what another writer did.
// Where entity tags are MD5 sums, as they are for objects that were put in one piece without
// encryption by a key of a KMS, that shows.
func (b *Bucket) torn(body []byte, tag blob.Tag) bool {
	text := strings.Trim(string(tag), `"`)
	if len(text) != 2*md5.Size || b.otherTags.Load() >= sureOfTags {
		return false
	}
	want, err := hex.DecodeString(text)
	if err != nil {
		return false
	}
	return md5.Sum(body) != [md5.Size]byte(want) //nolint:gosec // it is S3's choice, and guards against accidents
}

func (b *Bucket) getOnce(ctx context.Context, in *s3.GetObjectInput) ([]byte, blob.Tag, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	out, err := b.client.GetObject(ctx, in)
	if err != nil {
		return nil, "", err
	}
	defer out.Body.Close()
	r := &stream{ctx: ctx, stop: stop, body: out.Body, patience: b.o.Timeout}
	body, err := readWhole(r, out.ContentLength)
	if err != nil {
		return nil, "", err
	}
	return body, tagOf(out.ETag), nil
}

// readWhole reads a body of the announced size, if one was announced.
func readWhole(r io.Reader, announced *int64) ([]byte, error) {
	if announced == nil {
		body, err := io.ReadAll(io.LimitReader(r, blob.MaxGetBytes+1))
		if err == nil && len(body) > blob.MaxGetBytes {
			err = tooBig(int64(len(body)))
		}
		return body, err
	}
	size := *announced
	if size > blob.MaxGetBytes {
		return nil, tooBig(size)
	}
	body := make([]byte, size)
	if n, err := io.ReadFull(r, body); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w after %d of %d bytes", errBroken, n, size)
		}
		return nil, err
	}
	// Reading to the end verifies the checksum, if there is one, and frees the connection.
	n, err := io.Copy(io.Discard, io.LimitReader(r, 1))
	if n > 0 {
		err = fmt.Errorf("%w: body is longer than the %d bytes announced", errBroken, size)
	}
	return body, err
}

func tooBig(size int64) error {
	return fmt.Errorf("object has %d bytes or more, at most %d are read at once", size, blob.MaxGetBytes)
}

func tagOf(etag *string) blob.Tag { return blob.Tag(aws.ToString(etag)) }

// GetRange implements blob.Bucket.
func (b *Bucket) GetRange(ctx context.Context, key blob.Key, off, n int64) (io.ReadCloser, error) {
	const op = "get_range"
	if err := b.enter(ctx, op, key); err != nil {
		return nil, err
	}
	if err := blob.ValidRange(off, n); err != nil {
		return nil, b.fail(op, key, err)
	}
	ctx, stop := context.WithCancelCause(ctx)
	out, err := b.client.GetObject(ctx, &s3.GetObjectInput{
		Bucket: &b.o.Bucket,
		Key:    b.object(key),
		Range:  aws.String(fmt.Sprintf("bytes=%d-%d", off, off+n-1)),
	})
	switch {
	case absent(err):
		stop(nil)
		return nil, outcome(op, key, blob.ErrNotExist)
	case hasStatus(err, http.StatusRequestedRangeNotSatisfiable):
		// Nothing of the range exists: to the caller, an object that is too short.
		stop(nil)
		return &ranged{b: b, key: key}, nil
	case err != nil:
		stop(nil)
		return nil, b.fail(op, key, err)
	}
	got, err := rangeLength(out, off)
	if err != nil {
		stop(nil)
		return nil, b.fail(op, key, errors.Join(err, out.Body.Close()))
	}
	s := &stream{ctx: ctx, stop: stop, body: out.Body, patience: b.o.Timeout}
	return &ranged{b: b, key: key, s: s, left: min(got, n), whole: got >= n}, nil
}

// rangeLength returns how many bytes from off the answer holds.
func rangeLength(out *s3.GetObjectOutput, off int64) (int64, error) {
	if out.ContentRange == nil {
		if off != 0 || out.ContentLength == nil {
			return 0, &statusError{code: "NotImplemented", message: "the server ignores Range", status: http.StatusOK}
		}
		return aws.ToInt64(out.ContentLength), nil
	}
	var from, to int64
	spec, _, _ := strings.Cut(strings.TrimPrefix(*out.ContentRange, "bytes "), "/")
	first, last, _ := strings.Cut(spec, "-")
	from, err1 := strconv.ParseInt(first, 10, 64)
	to, err2 := strconv.ParseInt(last, 10, 64)
	if err1 != nil || err2 != nil || from != off || to < from {
		return 0, fmt.Errorf("asked for a range at %d, the answer holds %q", off, *out.ContentRange)
	}
	return to - from + 1, nil
}

// ranged reads left bytes from s. Then, if the object had the whole range, there
// is io.EOF, and else io.ErrUnexpectedEOF.
type ranged struct {
	b     *Bucket
	key   blob.Key
	s     *stream // nil if there is nothing to read
	left  int64
	whole bool
}

func (r *ranged) Read(p []byte) (int, error) {
	if r.left == 0 {
		if r.whole {
			return 0, io.EOF
		}
		return 0, io.ErrUnexpectedEOF
	}
	n, err := r.s.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	if errors.Is(err, io.EOF) {
		if err = nil; r.left > 0 {
			err = fmt.Errorf("%w with %d bytes to come", errBroken, r.left)
		}
	}
	if err != nil {
		err = r.b.fail("get_range", r.key, err)
	}
	return n, err
}

func (r *ranged) Close() error {
	if r.s == nil {
		return nil
	}
	return r.s.Close()
}

// stream is an answer's body that gives up if nothing arrives for too long.
type stream struct {
	ctx      context.Context //nolint:containedctx // the reader is the rest of the call that had this ctx
	stop     context.CancelCauseFunc
	body     io.ReadCloser
	patience time.Duration
}

func (s *stream) Read(p []byte) (int, error) {
	timer := time.AfterFunc(s.patience, func() {
		s.stop(fmt.Errorf("%w: nothing arrived for %v", errBroken, s.patience))
	})
	n, err := s.body.Read(p)
	timer.Stop()
	switch cause := context.Cause(s.ctx); {
	case err == nil:
		// What is buffered should not outlive a cancelled call.
		return n, cause
	case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return n, err
	case cause != nil:
		return n, cause
	}
	return n, fmt.Errorf("%w: %v", errBroken, err) //nolint:errorlint // must not match io.ErrUnexpectedEOF
}

func (s *stream) Close() error {
	s.stop(nil)
	return s.body.Close()
}

// listPage is how many objects S3 lists at once.
const listPage = 1000

// List implements blob.Bucket.
func (b *Bucket) List(ctx context.Context, prefix, after blob.Key) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		for _, k := range []blob.Key{prefix, after} {
			if err := k.ValidPrefix(); err != nil {
				yield(blob.Info{}, b.fail("list", k, err))
				return
			}
		}
		last := after
		in := &s3.ListObjectsV2Input{Bucket: &b.o.Bucket, Prefix: b.object(prefix), MaxKeys: aws.Int32(listPage)}
		if after != "" {
			in.StartAfter = b.object(after)
		}
		for {
			out, err := b.listPage(ctx, in)
			if err != nil {
				yield(blob.Info{}, b.fail("list", prefix, err))
				return
			}
			for _, o := range out.Contents {
				key := blob.Key(strings.TrimPrefix(aws.ToString(o.Key), b.prefix))
				if key.Valid() != nil {
					continue // not ours: markers of directories, strangers' objects
				}
				if key <= last {
					yield(blob.Info{}, b.fail("list", prefix, fmt.Errorf("%s was listed after %s: the server does not sort, or ignores start-after", key, last)))
					return
				}
				last = key
				info := blob.Info{Key: key, Size: aws.ToInt64(o.Size), Tag: tagOf(o.ETag), ModTime: aws.ToTime(o.LastModified)}
				if !yield(info, nil) {
					return
				}
			}
			if !aws.ToBool(out.IsTruncated) {
				return
			}
			in.StartAfter, in.ContinuationToken = nil, out.NextContinuationToken
		}
	}
}

func (b *Bucket) listPage(ctx context.Context, in *s3.ListObjectsV2Input) (*s3.ListObjectsV2Output, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ctx, cancel := b.deadline(ctx, b.o.MaxAttempts, 0)
	defer cancel()
	return b.client.ListObjectsV2(ctx, in)
}
