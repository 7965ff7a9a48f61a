package node

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/celler/celler/blob"
	"github.com/celler/celler/blob/memblob"
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
