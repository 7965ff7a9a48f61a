//go:build !linux

package fileblob

import "os"

// write writes body to f, by the page cache.
func write(f *os.File, body []byte) (direct int, err error) {
	_, err = f.Write(body)
	return 0, err
}
