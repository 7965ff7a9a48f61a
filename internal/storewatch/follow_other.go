//go:build !linux

package storewatch

import (
	"io/fs"
	"time"
)

// follow says that there is nothing to listen to: kqueue tells that a directory has
// changed, not what, and a scan answers that as well.
func follow(string) (*follower, error) { return nil, errNoEvents }

func changeTime(fs.FileInfo) (time.Time, bool) { return time.Time{}, false }
