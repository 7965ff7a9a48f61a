package node

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/memblob"
	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/wal"
)

// unwritable is a bucket whose disk is full, or mounted to be read.
type unwritable struct {
	blob.Bucket
	kind blob.Kind
}

func (b unwritable) Create(_ context.Context, key blob.Key, _ []byte) (blob.Tag, error) {
	return "", &blob.Error{Op: "create", Key: key, Kind: b.kind, Err: context.DeadlineExceeded}
}

// TestStartOnBucketThatTakesNoWrites: what a bucket holds is served although its disk is
// full. A machine that restarts must not take the cache away on top of that.
func TestStartOnBucketThatTakesNoWrites(t *testing.T) {
	founded := memblob.New()
	if _, err := wal.Found(t.Context(), founded, wal.Format{Profile: "fast2016-16k"}); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		bucket blob.Bucket
		ok     bool
	}{
		{"full", unwritable{founded, blob.KindFull}, true},
		{"read-only", unwritable{founded, blob.KindReadOnly}, true},
		{"denied", unwritable{founded, blob.KindDenied}, false},
		{"full and empty", unwritable{memblob.New(), blob.KindFull}, false},
		{"writable", founded, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var logs bytes.Buffer
			err := probeStart(t.Context(), tt.bucket, "b", time.Now, slog.New(slog.NewTextHandler(&logs, nil)))
			if (err == nil) != tt.ok {
				t.Errorf("got %v", err)
			}
			if told := strings.Contains(logs.String(), "takes no writes"); told != (tt.ok && tt.name != "writable") {
				t.Errorf("log %q", logs.String())
			}
		})
	}
}

// racy is a bucket that keeps its promises as long as one writer comes after the other.
type racy struct{ blob.Bucket }

func (b racy) Create(ctx context.Context, key blob.Key, body []byte) (blob.Tag, error) {
	if strings.Contains(string(key), "create-race") {
		return b.Put(ctx, key, body)
	}
	return b.Bucket.Create(ctx, key, body)
}

// denied is a bucket in which the races of the full probe may not be run.
type denied struct{ blob.Bucket }

func (b denied) Create(ctx context.Context, key blob.Key, body []byte) (blob.Tag, error) {
	if strings.Contains(string(key), "create-race") {
		return "", &blob.Error{Op: "create", Key: key, Kind: blob.KindDenied, Err: errors.New("403")}
	}
	return b.Bucket.Create(ctx, key, body)
}

// TestFoundingProbesInFull: the requests of every start do not find a server on which two
// concurrent creates win, and a bucket that is founded on it has lost its log later on.
func TestFoundingProbesInFull(t *testing.T) {
	founded := memblob.New()
	if _, err := wal.Found(t.Context(), founded, wal.Format{Profile: "fast2016-16k"}); err != nil {
		t.Fatal(err)
	}
	foreign := memblob.New()
	if _, err := foreign.Put(t.Context(), "holiday.jpg", []byte("sea")); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, bucket string
		b            blob.Bucket
		ok           bool
	}{
		{"racy", "s3://b?region=x", racy{memblob.New()}, false},
		{"sound", "s3://b?region=x", memblob.New(), true},
		{"sound, by a clock that is wrong", "s3://b?region=x", memblob.New(), true},
		{"racy and founded", "s3://b?region=x", racy{founded}, true},
		{"racy directory", "/srv/b", racy{memblob.New()}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := probeShort(t.Context(), tt.b, tt.bucket, time.Now); err != nil {
				t.Fatal(err)
			}
			now := time.Now
			if strings.Contains(tt.name, "clock") {
				now = func() time.Time { return time.Now().Add(-27 * time.Hour) }
			}
			n := &Node{cfg: config.Config{Buckets: config.Buckets{LogBucket: tt.bucket}}, o: Options{Now: now}, logBucket: tt.b}
			err := n.openFormat(t.Context())
			if tt.ok {
				if err != nil {
					t.Errorf("got %v", err)
				}
				return
			}
			if broken, is := errors.AsType[*BrokenPromiseError](err); !is || !broken.Full || !strings.Contains(broken.Error(), "create") {
				t.Errorf("got %v, want a BrokenPromiseError of the full probe", err)
			}
		})
	}
	if _, is := errors.AsType[*ProbeError](probeFounding(t.Context(), denied{memblob.New()}, "s3://b", time.Now)); !is {
		t.Error("a probe that could not be finished counts as passed")
	}
	if _, is := errors.AsType[*ForeignBucketError](probeFounding(t.Context(), foreign, "s3://b", time.Now)); !is {
		t.Error("a bucket of somebody else is probed in full")
	}
}
