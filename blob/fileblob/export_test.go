package fileblob

// SetStep installs a function that is called before each system call that
// changes the directory.
func (b *Bucket) SetStep(step func(name string) error) { b.step = step }
