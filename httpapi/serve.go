package httpapi

import (
	"errors"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
)

const (
	// maxLinks is how many symbolic links are followed on the way to a file, as in Linux.
	maxLinks = 40
	// sniffBytes is how much of a file is looked at to tell text from other data.
	sniffBytes = 512
	// maxPageBytes is about how long the page of a directory may get, which is held in memory
	// while it is sent.
	maxPageBytes = 1 << 20

	// harmless keeps a browser from running anything that is in a file, or from taking it
	// for a page of this server.
	harmless = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
)

// serveFile answers GET /{cache}/serve/{hash part}/{file}: one file of a path, of which only the
// chunks are read that it lies in.
func (s *server) serveFile(x *exchange) error {
	cache, err := x.authorisePull()
	if err != nil {
		return err
	}
	// The base name of the path serves as well as its hash part.
	text, _, named := strings.Cut(x.r.PathValue("path"), "-")
	hashPart, err := nix.ParseHashPart(text)
	if err != nil {
		return errNoSuchObject.because(err)
	}
	path, err := s.cat.Path(x.r.Context(), cache.Name, hashPart)
	if err != nil {
		return err
	}
	if named && x.r.PathValue("path") != path.StorePath.Base() {
		return errNoSuchObject.because(fmt.Errorf("the path of that hash part is %v", path.StorePath))
	}
	listing, err := s.listingOf(x, path.NarHash)
	if err != nil {
		return err
	}
	root, err := tree(listing)
	if err != nil {
		return err
	}
	var names []string
	if rest := strings.TrimSuffix(x.r.PathValue("file"), "/"); rest != "" { // a directory may end in a slash
		names = strings.Split(rest, "/")
	}
	found, out, err := walk(root, path.StorePath, names)
	if err != nil {
		return err
	}
	h := x.Header()
	h.Set("Content-Security-Policy", harmless)
	h.Set("X-Content-Type-Options", "nosniff")
	x.cacheable(&cache, ageMeta)
	switch {
	case out != "":
		h.Set("Location", x.serveURL(&cache, out))
		h.Set("Content-Length", "0")
		x.WriteHeader(http.StatusFound)
		return nil
	case found.Type == "directory":
		return x.sendDirectory(&cache, path.StorePath, names, found)
	}
	return s.sendFile(x, &path, found, names)
}

// serveURL is the URL of a file below the store dir, as far as it is one of this server.
func (x *exchange) serveURL(cache *catalog.Cache, file string) string {
	segments := strings.Split(file, "/")
	for i := range segments {
		segments[i] = url.PathEscape(segments[i])
	}
	return "/" + url.PathEscape(string(cache.Name)) + "/serve/" + strings.Join(segments, "/")
}

// walk goes from the root of a path down to the file of that name, through symbolic links.
// A link out of the path into another one of the store gives what follows the store dir in
// out; any other leads nowhere.
func walk(root *file, path nix.StorePath, names []string) (found *file, out string, err error) {
	var at []string // where we are, without links
	for links := 0; ; {
		found = lookUp(root, at)
		if found.Type == "symlink" {
			if links++; links > maxLinks {
				return nil, "", errNoFile.because(errors.New("too many symbolic links"))
			}
			target := strings.Split(found.Target, "/")
			switch {
			case !strings.HasPrefix(found.Target, "/"):
				if len(at) == 0 {
					return nil, "", errNoFile.because(fmt.Errorf("the path is a link to %q, beside itself", found.Target))
				}
				at = at[:len(at)-1]
				names = append(target, names...)
			case strings.HasPrefix(found.Target, string(path.Dir())+"/"):
				target = strings.Split(strings.TrimPrefix(found.Target, string(path.Dir())+"/"), "/")
				if slices.Contains(target, "..") || slices.Contains(target, ".") || slices.Contains(target, "") {
					return nil, "", errNoFile.because(fmt.Errorf("a link to %q", found.Target))
				}
				if target[0] != path.Base() {
					out, err := below(target, names)
					return nil, out, err
				}
				at, names = nil, append(target[1:], names...)
			default:
				return nil, "", errNoFile.because(fmt.Errorf("a link to %q, which is not in the store", found.Target))
			}
			continue
		}
		if len(names) == 0 {
			return found, "", nil
		}
		name := names[0]
		names = names[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			if len(at) == 0 {
				return nil, "", errNoFile.because(errors.New("a link leads out of the path"))
			}
			at = at[:len(at)-1]
			continue
		}
		if found.Type != "directory" || found.Entries[name] == nil {
			return nil, "", errNoFile
		}
		at = append(slices.Clip(at), name)
	}
}

// below goes on from a place in another path, whose links nobody here has looked at: upwards
// could be anywhere, and would be out of the store for who follows.
func below(place, names []string) (string, error) {
	for _, name := range names {
		switch name {
		case "", ".":
		case "..":
			return "", errNoFile.because(errors.New("a link leads out of the path and upwards from there"))
		default:
			place = append(place, name)
		}
	}
	return strings.Join(place, "/"), nil
}

// lookUp returns the entry at a place that is known to be there.
func lookUp(root *file, at []string) *file {
	for _, name := range at {
		root = root.Entries[name]
	}
	return root
}

// sendFile sends a file, as text or as an image if it is one, else as something to save.
func (s *server) sendFile(x *exchange, path *catalog.Path, f *file, names []string) error {
	ctx := x.r.Context()
	recipe, err := s.cat.Recipe(ctx, path.NarHash)
	if err != nil {
		return err
	}
	content, err := s.chunks.OpenPart(ctx, &recipe, f.NarOffset, f.Size)
	if err != nil {
		return errIncomplete.because(err)
	}
	defer content.Close()
	begin := make([]byte, min(f.Size, sniffBytes))
	if _, err := io.ReadFull(content, begin); err != nil {
		return x.unreadable(err)
	}
	if _, err := content.Seek(0, io.SeekStart); err != nil {
		return err
	}
	name := path.StorePath.Name()
	if len(names) > 0 {
		name = names[len(names)-1]
	}
	x.note(slog.String("file", strings.Join(names, "/")))
	h := x.Header()
	kind := fileType(begin, f.Size)
	h.Set("Content-Type", kind)
	if kind == typeUnknown {
		h.Set("Content-Disposition", "attachment; filename*=UTF-8''"+url.PathEscape(name))
	}
	h.Set("ETag", fmt.Sprintf(`"%s-%d"`, strings.TrimPrefix(nix.SHA256Hash(path.NarHash).Nix32(), "sha256:"), f.NarOffset))
	if f.Size == 0 {
		x.r.Header.Del("Range") // the last bytes of none: net/http would answer with a range that ends before it begins
	}
	if x.r.Method != http.MethodHead {
		s.opts.Uses.Downloaded(path.Cache, path.StorePath.HashPart())
	}
	return x.sendContent(content)
}

const (
	typeUnknown = "application/octet-stream"
	typeText    = "text/plain; charset=utf-8"
)

// fileType tells what a browser may show: text, as text whatever it says, and images that
// cannot hold a program.
func fileType(begin []byte, size int64) string {
	switch kind := http.DetectContentType(begin); kind {
	case "image/png", "image/jpeg", "image/gif", "image/webp":
		return kind
	}
	if int64(len(begin)) < size { // the last character may be cut
		for range utf8.UTFMax - 1 {
			if utf8.Valid(begin) {
				break
			}
			begin = begin[:len(begin)-1]
		}
	}
	if !utf8.Valid(begin) {
		return typeUnknown
	}
	for _, c := range begin {
		if c < ' ' && c != '\n' && c != '\t' && c != '\r' && c != '\f' && c != 0x1b {
			return typeUnknown
		}
	}
	return typeText
}

// sendDirectory sends a page with what is in a directory.
func (x *exchange) sendDirectory(cache *catalog.Cache, path nix.StorePath, names []string, dir *file) error {
	here := strings.Join(append([]string{path.Base()}, names...), "/")
	var b strings.Builder
	fmt.Fprintf(&b, "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>%[1]s</title>\n<h1>%[1]s</h1>\n<pre>\n", html.EscapeString(here))
	link := func(to, text string) {
		fmt.Fprintf(&b, `<a href="%s">%s</a>`, html.EscapeString(x.serveURL(cache, to)), html.EscapeString(text))
	}
	if len(names) > 0 {
		link(here[:strings.LastIndexByte(here, '/')], "..")
		b.WriteByte('\n')
	}
	entries := make([]string, 0, len(dir.Entries))
	for name := range dir.Entries {
		entries = append(entries, name)
	}
	slices.Sort(entries)
	for i, name := range entries {
		if b.Len() > maxPageBytes {
			fmt.Fprintf(&b, "… and %d more; all of them are in ", len(entries)-i)
			hashPart := path.HashPart().String()
			fmt.Fprintf(&b, "<a href=\"/%[1]s/%[2]s\">%[2]s</a>\n", url.PathEscape(string(cache.Name)), hashPart+listingSuffix)
			break
		}
		f := dir.Entries[name]
		text := name
		if f.Type == "directory" {
			text += "/"
		}
		link(here+"/"+name, text)
		switch f.Type {
		case "regular":
			fmt.Fprintf(&b, "  %d", f.Size)
		case "symlink":
			fmt.Fprintf(&b, " → %s", html.EscapeString(f.Target))
		}
		b.WriteByte('\n')
	}
	b.WriteString("</pre>\n</html>\n")
	return x.sendText("text/html; charset=utf-8", []byte(b.String()))
}
