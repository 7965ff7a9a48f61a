package nar

// Contents returns how many bytes of the contents of a file come next. They may be
// passed over with Skip, by somebody who has the NAR somewhere and does not want to read
// all of it.
func (v *Verifier) Contents() int64 {
	if v.err != nil || v.stage != stageContents {
		return 0
	}
	return v.left
}

// Skip does as if n bytes of contents were written, at most as many as Contents says.
func (v *Verifier) Skip(n int64) {
	if n < 0 || n > v.Contents() {
		panic("nar: skipped more than the contents of a file")
	}
	if n == 0 {
		return
	}
	v.off += n
	if v.left -= n; v.left == 0 {
		v.p.contentsDone()
		v.afterString()
	}
}
