package s3blob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/celler/celler/blob"
)

// once makes a request that decides something: sent a single time, and large
// bodies only after the server has asked for them.
func once(o *s3.Options) {
	o.RetryMaxAttempts = 1
	o.Retryer = aws.NopRetryer{}
	o.ContinueHeaderThresholdBytes = continueThreshold
}

// Create implements blob.Bucket.
func (b *Bucket) Create(ctx context.Context, key blob.Key, body []byte) (blob.Tag, error) {
	if err := b.enter(ctx, "create", key); err != nil {
		return "", err
	}
	in := b.putInput(key, body)
	in.IfNoneMatch = aws.String("*")
	ctx, cancel := b.deadline(ctx, 1, len(body))
	defer cancel()
	out, err := b.client.PutObject(ctx, in, once)
	switch {
	case err == nil:
		return tagOf(out.ETag), nil
	case hasStatus(err, http.StatusPreconditionFailed):
		return "", outcome("create", key, blob.ErrExist)
	}
	return "", b.fail("create", key, err)
}

// Swap implements blob.Bucket.
func (b *Bucket) Swap(ctx context.Context, key blob.Key, old blob.Tag, body []byte) (blob.Tag, error) {
	if err := b.enter(ctx, "swap", key); err != nil {
		return "", err
	}
	if old == "" {
		// An empty If-Match would be no condition at all.
		return "", outcome("swap", key, blob.ErrChanged)
	}
	in := b.putInput(key, body)
	in.IfMatch = aws.String(string(old))
	ctx, cancel := b.deadline(ctx, 1, len(body))
	defer cancel()
	out, err := b.client.PutObject(ctx, in, once)
	switch {
	case err == nil:
		return tagOf(out.ETag), nil
	case hasStatus(err, http.StatusPreconditionFailed), absent(err):
		return "", outcome("swap", key, blob.ErrChanged)
	}
	return "", b.fail("swap", key, err)
}

// Put implements blob.Bucket.
func (b *Bucket) Put(ctx context.Context, key blob.Key, body []byte) (blob.Tag, error) {
	if err := b.enter(ctx, "put", key); err != nil {
		return "", err
	}
	ctx, cancel := b.deadline(ctx, b.o.MaxAttempts, len(body))
	defer cancel()
	out, err := b.client.PutObject(ctx, b.putInput(key, body))
	if err != nil {
		return "", b.fail("put", key, err)
	}
	return tagOf(out.ETag), nil
}

func (b *Bucket) putInput(key blob.Key, body []byte) *s3.PutObjectInput {
	return &s3.PutObjectInput{
		Bucket:        &b.o.Bucket,
		Key:           b.object(key),
		Body:          bytes.NewReader(body),
		ContentLength: aws.Int64(int64(len(body))),
	}
}

const (
	deleteBatch = 1000 // what S3 takes in one request
	deleteLanes = 8    // single deletes under way at once, where there are no batches
)

// Delete implements blob.Bucket.
func (b *Bucket) Delete(ctx context.Context, keys ...blob.Key) error {
	if len(keys) == 0 {
		return nil
	}
	if err := b.enter(ctx, "delete", keys...); err != nil {
		return err
	}
	for batch := range slices.Chunk(keys, deleteBatch) {
		if len(batch) == 1 || b.noBatch.Load() {
			if err := b.deleteEach(ctx, batch); err != nil {
				return err
			}
			continue
		}
		err := b.deleteBatch(ctx, batch)
		if err != nil && refusesBatches(err) {
			b.noBatch.Store(true)
			err = b.deleteEach(ctx, batch)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// refusesBatches reports that the server has no use for DeleteObjects as such:
// not implemented, or with another idea of how it is to be signed or summed.
func refusesBatches(err error) bool {
	e := refusal(err)
	if e == nil {
		return false
	}
	switch e.status {
	case http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusLengthRequired, http.StatusNotImplemented:
		return true
	}
	return false
}

func (b *Bucket) deleteBatch(ctx context.Context, keys []blob.Key) error {
	ids := make([]types.ObjectIdentifier, len(keys))
	for i, key := range keys {
		ids[i] = types.ObjectIdentifier{Key: b.object(key)}
	}
	ctx, cancel := b.deadline(ctx, b.o.MaxAttempts, 0)
	defer cancel()
	out, err := b.client.DeleteObjects(ctx, &s3.DeleteObjectsInput{
		Bucket: &b.o.Bucket,
		Delete: &types.Delete{Objects: ids, Quiet: aws.Bool(true)},
	})
	if err != nil {
		return b.fail("delete", keys[0], err)
	}
	for _, e := range out.Errors {
		code := aws.ToString(e.Code)
		if code == "NoSuchKey" {
			continue
		}
		err := &statusError{
			code:    code,
			message: fmt.Sprintf("%s (1 of %d errors among %d objects)", aws.ToString(e.Message), len(out.Errors), len(keys)),
			status:  http.StatusOK,
		}
		key := blob.Key(aws.ToString(e.Key)[min(len(b.prefix), len(aws.ToString(e.Key))):])
		return b.fail("delete", key, err)
	}
	return nil
}

func (b *Bucket) deleteEach(ctx context.Context, keys []blob.Key) error {
	queue := make(chan blob.Key)
	errs := make([]error, deleteLanes)
	var wg sync.WaitGroup
	for lane := range min(deleteLanes, len(keys)) {
		wg.Go(func() {
			for key := range queue {
				if errs[lane] == nil {
					errs[lane] = b.deleteOne(ctx, key)
				}
			}
		})
	}
	for _, key := range keys {
		queue <- key
	}
	close(queue)
	wg.Wait()
	return errors.Join(errs...)
}

func (b *Bucket) deleteOne(ctx context.Context, key blob.Key) error {
	ctx, cancel := b.deadline(ctx, b.o.MaxAttempts, 0)
	defer cancel()
	_, err := b.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &b.o.Bucket, Key: b.object(key)})
	if err != nil && !absent(err) {
		return b.fail("delete", key, err)
	}
	return nil
}
