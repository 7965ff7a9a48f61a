package fileblob

import "os"

// Write writes a file's content, and returns how much of it went past the page cache.
func Write(f *os.File, body []byte) (direct int, err error) { return write(f, body) }

// SetStep installs a function that is called before each system call that
// changes the directory.
func (b *Bucket) SetStep(step func(name string) error) { b.step = step }
