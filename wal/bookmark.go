package wal

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/celler/celler/blob"
)

const (
	bookmarkVersion  = 1
	bookmarkPrefix   = "bookmark/"
	maxBookmarkName  = 48
	maxBookmarkBytes = 4 << 10
	// MaxBookmarks is how many there may be at once: their names stand in ROOT.
	MaxBookmarks = 100
)

// Bookmark is a named slot whose state is kept, so that it can be looked at and
// restored from however much of the log has been folded and deleted since.
//
// That there is a bookmark, and of which slot, is said by ROOT alone. It is set by
// the same kind of swap that raises the floor, so a compactor cannot raise the floor
// past a bookmark that it has not seen. The object bookmark/<name> is written after
// that. It says when and by whom, for people, and is what is left if ROOT is lost.
type Bookmark struct {
	Version int       `json:"v"`
	Store   StoreID   `json:"store"`
	Name    string    `json:"name"`
	Seq     Seq       `json:"seq"`
	Stored  time.Time `json:"stored,omitzero"` // when the slot was, by the bucket's clock; zero if that was not known any more
	At      time.Time `json:"at"`              // when the bookmark was set, by the clock of who did; zero if not known
	By      string    `json:"by,omitempty"`
}

// BookmarkExistsError reports a name that is taken by another slot.
type BookmarkExistsError struct {
	Name string
	Seq  Seq
}

func (e *BookmarkExistsError) Error() string {
	return fmt.Sprintf("bookmark %q exists already, of slot %d", e.Name, uint64(e.Seq))
}

// NoBookmarkError reports a name under which there is no bookmark.
type NoBookmarkError struct {
	Name  string
	Known []string
}

func (e *NoBookmarkError) Error() string { return fmt.Sprintf("there is no bookmark %q", e.Name) }

// BookmarkKey names the object of a bookmark.
func BookmarkKey(name string) blob.Key { return blob.Key(bookmarkPrefix + name) }

// CheckBookmarkName accepts a letter and then up to 47 letters, digits, dots, dashes
// and underscores: nothing that could be meant as a slot or as a time.
func CheckBookmarkName(name string) error {
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		case i > 0 && (c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.'):
		default:
			return fmt.Errorf("bookmark name %.60q: want a letter, then letters, digits, dots, dashes and underscores", name)
		}
	}
	if name == "" || len(name) > maxBookmarkName {
		return fmt.Errorf("bookmark name %.60q has %d bytes, want 1 to %d", name, len(name), maxBookmarkName)
	}
	return nil
}

// EncodeBookmark returns the object that represents b.
func EncodeBookmark(b Bookmark) ([]byte, error) {
	b.Version = bookmarkVersion
	if err := b.check(); err != nil {
		return nil, fmt.Errorf("encode bookmark: %w", err)
	}
	body, err := json.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("encode bookmark: %w", err)
	}
	if len(body)+1 > maxBookmarkBytes {
		return nil, fmt.Errorf("encode bookmark: %d bytes, at most %d", len(body)+1, maxBookmarkBytes)
	}
	return append(body, '\n'), nil
}

// DecodeBookmark reads the object of a bookmark.
func DecodeBookmark(src []byte) (Bookmark, error) {
	if len(src) > maxBookmarkBytes {
		return Bookmark{}, corrupt(0, "size", fmt.Sprintf("at most %d bytes", maxBookmarkBytes), len(src))
	}
	var v struct {
		Version int `json:"v"`
	}
	if err := json.Unmarshal(src, &v); err != nil {
		return Bookmark{}, corrupt(0, "content", "a JSON object", err)
	}
	if v.Version > bookmarkVersion {
		return Bookmark{}, &TooNewError{What: "bookmark version", Found: fmt.Sprint(v.Version), Known: fmt.Sprint(bookmarkVersion)}
	}
	var b Bookmark
	if err := json.Unmarshal(src, &b); err != nil {
		return Bookmark{}, corrupt(0, "content", "a bookmark's fields", err)
	}
	if err := b.check(); err != nil {
		return Bookmark{}, corrupt(0, "content", "a bookmark that can be", err)
	}
	return b, nil
}

func (b *Bookmark) check() error {
	switch {
	case b.Version != bookmarkVersion:
		return fmt.Errorf("v is %d, want %d", b.Version, bookmarkVersion)
	case b.Store == (StoreID{}):
		return errors.New("it has no store id")
	case b.Seq == 0:
		return errors.New("it has no slot")
	}
	return CheckBookmarkName(b.Name)
}

// OldestBookmark returns the lowest slot with a bookmark, and false if there is none.
func (r *Root) OldestBookmark() (Seq, bool) {
	if len(r.Bookmarks) == 0 {
		return 0, false
	}
	return slices.Min(slices.Collect(maps.Values(r.Bookmarks))), true
}

// SetBookmark sets a bookmark on the state after slot b.Seq, or returns a
// *UnreachableError if that state is not kept any more and a *BookmarkExistsError if
// the name is taken. To set a bookmark again that is there changes nothing.
//
// The state of the present cannot slip away before the bookmark is there: nobody deletes
// the snapshot that ROOT names, and nobody raises the floor past a bookmark. What leads to
// one of the past may be in the hands of a compactor that is about to delete it. Then ROOT
// says so, and the swap that sets the bookmark sees it; what was deleted by the time of the
// swap, and is not named any more, is missed when the state is looked for once more.
func (o RootChange) SetBookmark(ctx context.Context, bucket blob.Bucket, b Bookmark) (Bookmark, error) {
	if err := CheckBookmarkName(b.Name); err != nil {
		return Bookmark{}, err
	}
	h, err := ReadHistory(ctx, bucket)
	if err != nil {
		return Bookmark{}, err
	}
	if err := h.Reach(ctx, bucket, b.Seq); err != nil {
		return Bookmark{}, fmt.Errorf("set bookmark %q: %w", b.Name, err)
	}
	root, err := o.Swap(ctx, bucket, func(root *Root) error {
		if seq, ok := root.Bookmarks[b.Name]; ok && seq != b.Seq {
			return &BookmarkExistsError{Name: b.Name, Seq: seq}
		}
		if err := root.CheckWriter(); err != nil {
			return err
		}
		if h.under(*root); b.Seq < root.Snapshot.Seq && len(h.Bases(b.Seq)) == 0 {
			return h.Reach(ctx, bucket, b.Seq)
		}
		if root.Bookmarks == nil {
			root.Bookmarks = map[string]Seq{}
		}
		root.Bookmarks[b.Name] = b.Seq
		if len(root.Bookmarks) > MaxBookmarks {
			return fmt.Errorf("there are %d bookmarks already, which is as many as there may be: remove one", MaxBookmarks)
		}
		return nil
	})
	if err != nil {
		return Bookmark{}, fmt.Errorf("set bookmark %q: %w", b.Name, err)
	}
	if b.Seq < root.Snapshot.Seq {
		if h, err = ReadHistory(ctx, bucket); err == nil {
			err = h.Reach(ctx, bucket, b.Seq)
		}
		if err != nil {
			return Bookmark{}, errors.Join(fmt.Errorf("set bookmark %q: %w", b.Name, err), o.DropBookmark(ctx, bucket, b.Name))
		}
	}
	b.Version, b.Store, b.By = bookmarkVersion, root.Store, cut(b.By, maxWhoBytes)
	if b.Stored, err = SlotTime(ctx, bucket, b.Seq); err != nil && !errors.Is(err, blob.ErrNotExist) {
		return b, fmt.Errorf("write what bookmark %q is about (the bookmark itself is set): %w", b.Name, err)
	}
	body, err := EncodeBookmark(b)
	if err == nil {
		_, err = bucket.Put(ctx, BookmarkKey(b.Name), body)
	}
	if err != nil {
		return b, fmt.Errorf("write what bookmark %q is about (the bookmark itself is set): %w", b.Name, err)
	}
	return b, nil
}

// DropBookmark removes a bookmark, or returns a *NoBookmarkError.
func (o RootChange) DropBookmark(ctx context.Context, bucket blob.Bucket, name string) error {
	gone := false
	root, err := o.Swap(ctx, bucket, func(root *Root) error {
		_, there := root.Bookmarks[name]
		gone = !there
		if err := root.CheckWriter(); err != nil {
			return err
		}
		delete(root.Bookmarks, name)
		if len(root.Bookmarks) == 0 {
			root.Bookmarks = nil
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("remove bookmark %q: %w", name, err)
	}
	// Also if there was none: an earlier attempt may have come no further than ROOT.
	if CheckBookmarkName(name) == nil {
		if err := bucket.Delete(ctx, BookmarkKey(name)); err != nil {
			return fmt.Errorf("remove what bookmark %q was about (the bookmark itself is removed): %w", name, err)
		}
	}
	if gone {
		return &NoBookmarkError{Name: name, Known: slices.Sorted(maps.Keys(root.Bookmarks))}
	}
	return nil
}

// Bookmarks returns the bookmarks that ROOT names, oldest slot first. At and By of one
// whose object cannot be read, or tells of another slot, are empty.
func Bookmarks(ctx context.Context, bucket blob.Bucket) ([]Bookmark, error) {
	root, err := ReadRoot(ctx, bucket)
	if err != nil {
		return nil, err
	}
	var all []Bookmark
	for _, name := range slices.Sorted(maps.Keys(root.Bookmarks)) {
		b := Bookmark{Version: bookmarkVersion, Store: root.Store, Name: name, Seq: root.Bookmarks[name]}
		body, _, err := bucket.Get(ctx, BookmarkKey(name))
		if err != nil && !errors.Is(err, blob.ErrNotExist) {
			return nil, fmt.Errorf("read bookmark %q: %w", name, err)
		}
		if told, derr := DecodeBookmark(body); err == nil && derr == nil && told.Store == b.Store && told.Name == name && told.Seq == b.Seq {
			b = told
		}
		all = append(all, b)
	}
	slices.SortStableFunc(all, func(x, y Bookmark) int { return cmp.Compare(x.Seq, y.Seq) })
	return all, nil
}

// KeptSince returns when the oldest slot with a bookmark was stored, by the bucket's
// clock, and false if there is no bookmark. What a state of then or later refers to must
// be kept. It is the zero time if that is not known: then everything must.
func KeptSince(ctx context.Context, bucket blob.Bucket) (since time.Time, ok bool, err error) {
	all, err := Bookmarks(ctx, bucket)
	if err != nil || len(all) == 0 {
		return time.Time{}, false, err
	}
	since = all[0].Stored
	for _, b := range all[1:] { // the oldest is the first, but clocks may have been set
		if b.Stored.Before(since) {
			since = b.Stored
		}
	}
	return since, true, nil
}

// ListBookmarks returns what the objects of bookmarks say, for the making of a new ROOT
// where the old one is lost. Those of other stores, and damaged ones, are left out.
func ListBookmarks(ctx context.Context, bucket blob.Bucket, store StoreID) ([]Bookmark, error) {
	var all []Bookmark
	for info, err := range bucket.List(ctx, bookmarkPrefix, "") {
		if err != nil {
			return nil, fmt.Errorf("list bookmarks: %w", err)
		}
		body, _, err := bucket.Get(ctx, info.Key)
		if errors.Is(err, blob.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read bookmark: %w", err)
		}
		b, err := DecodeBookmark(body)
		if err != nil || b.Store != store || BookmarkKey(b.Name) != info.Key {
			continue
		}
		if all = append(all, b); len(all) == MaxBookmarks {
			break
		}
	}
	return all, nil
}

// cut shortens s to at most n bytes, at the start of a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}
