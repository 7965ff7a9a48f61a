package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/pelletier/go-toml/v2"
)

// FileError reports what is wrong in a configuration file, and where. It shows none of the
// file's lines: tokens and keys stand in them, and errors end up in logs.
type FileError struct {
	Path    string
	Line    int    // from 1; 0: unknown
	Column  int    // from 1
	Problem string // what is wrong there
}

func (e *FileError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %s", e.Path, e.Problem)
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.Path, e.Line, e.Column, e.Problem)
}

// newFileError takes the place from what the TOML decoder reports.
func newFileError(path string, err error) *FileError {
	out := &FileError{Path: path, Problem: err.Error()}
	var missing *toml.StrictMissingError
	var decode *toml.DecodeError
	switch {
	case errors.As(err, &missing) && len(missing.Errors) > 0:
		decode = &missing.Errors[0]
		out.Problem = fmt.Sprintf("unknown key %q", keyText(decode.Key()))
	case errors.As(err, &decode):
		out.Problem = trimPrefix(decode.Error(), "toml: ")
	}
	if decode != nil {
		out.Line, out.Column = decode.Position()
		if told := mistyped(out.Problem); told != "" {
			out.Problem = told
		}
	}
	return out
}

// mistyped says for people what the decoder says of Go's types when a value is of
// another kind than its key; "" for any other problem.
func mistyped(problem string) string {
	rest, ok := strings.CutPrefix(problem, "cannot decode TOML ")
	if !ok {
		return ""
	}
	found, rest, ok := strings.Cut(rest, " into ")
	if !ok {
		return ""
	}
	want := "a section"
	switch kind := rest[strings.LastIndexByte(rest, ' ')+1:]; {
	case strings.HasPrefix(kind, "[]"):
		want = `a list such as ["a", "b"]`
	case kind == "string", kind == "*string":
		want = "text in quotes"
	case kind == "bool", kind == "*bool":
		want = "true or false"
	case strings.HasPrefix(strings.TrimPrefix(strings.TrimPrefix(kind, "*"), "u"), "int"):
		want = "a number"
	}
	return "expected " + want + ", found " + found
}

func trimPrefix(s, prefix string) string {
	if len(s) > len(prefix) && s[:len(prefix)] == prefix {
		return s[len(prefix):]
	}
	return s
}

func keyText(key toml.Key) string {
	return strings.Join(key, ".")
}

// WriteFile replaces a file in one step: the body is written and synced beside it
// and renamed over it, so that a reader sees the old bytes or the new, and a crash
// leaves one of them. A file that is there keeps its mode and, if root replaces it, its
// owner; a new one gets mode. If mode has nothing for others, neither has the file
// afterwards. A symbolic link is followed, not replaced.
func WriteFile(path string, body []byte, mode os.FileMode) (err error) {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	var owner *syscall.Stat_t
	if old, err := os.Stat(path); err == nil {
		owner, _ = old.Sys().(*syscall.Stat_t)
		if have := old.Mode().Perm(); mode&0o077 == 0 {
			mode &= have
		} else {
			mode = have
		}
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if failed, ok := errors.AsType[*fs.PathError](err); ok {
		err = &fs.PathError{Op: "write to", Path: dir, Err: failed.Err} // the name is nobody's business
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	if owner != nil && os.Geteuid() == 0 && (owner.Uid != 0 || owner.Gid != 0) {
		if err := f.Chown(int(owner.Uid), int(owner.Gid)); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	if err := errors.Join(f.Chmod(mode), writeSync(f, body), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func writeSync(f *os.File, body []byte) error {
	if n, err := f.Write(body); err != nil || n != len(body) {
		return errors.Join(err, io.ErrShortWrite)
	}
	return f.Sync()
}
