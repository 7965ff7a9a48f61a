//go:build !linux

package fileblob

import "os"

// write writes body to f.
func write(f *os.File, body []byte) error {
	_, err := f.Write(body)
	return err
}
