package httpapi

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
)

const (
	narSuffix   = ".nar.zst" // of the URLs our narinfos give
	aliasSuffix = ".nar"     // of the URLs Attic's narinfos gave; the same bytes
)

// nar answers GET /{cache}/nar/{file}.
func (s *server) nar(x *exchange) error {
	file := x.r.PathValue("file")
	if fileHash, format, exact, ok := parseFileName(file); ok {
		return s.uploaded(x, fileHash, format, exact)
	}
	if !strings.HasSuffix(file, narSuffix) && !strings.HasSuffix(file, aliasSuffix) {
		if _, err := cacheName(x.r.PathValue("cache")); err != nil {
			return err
		}
		return errNotFound
	}
	cache, err := x.authorisePull()
	if err != nil {
		return err
	}
	hashPart, narHash, err := parseNarFileName(file)
	if err != nil {
		return errNoSuchObject.because(err)
	}
	recipe, current, err := s.recipeOf(x.r.Context(), cache.Name, hashPart, narHash)
	if err != nil {
		return err
	}
	content, err := s.chunks.Open(x.r.Context(), &recipe)
	if err != nil {
		if x.r.Context().Err() != nil {
			return err
		}
		return errIncomplete.because(err)
	}
	defer content.Close()

	if current && x.r.Method != http.MethodHead {
		s.opts.Uses.Downloaded(cache.Name, hashPart)
	}
	x.note(slog.String("nar_hash", nix.SHA256Hash(recipe.NarHash).String()))
	h := x.Header()
	h.Set("Content-Type", typeNar)
	h.Set("ETag", chunkstore.ETag(&recipe))
	if narHash != nil {
		x.cacheable(&cache, ageNar)
	} else {
		x.cacheable(&cache, ageMeta) // the alias names a path, whose content may change
	}
	return x.sendContent(content)
}

// recipeOf finds the NAR that a URL of a cache means: the one that the path names, or,
// if the URL names one itself, one that the path named before. Clients remember URLs for
// a month, so those of a path that was withdrawn, or pushed again with other content,
// answer while the NAR is there; but only if this very cache gave them out, or who may
// read one cache could read the NARs of every other. current is whether the path still
// names it.
func (s *server) recipeOf(ctx context.Context, cache catalog.CacheName, hashPart nix.HashPart, narHash *[32]byte) (recipe chunk.Recipe, current bool, err error) {
	path, err := s.cat.Path(ctx, cache, hashPart)
	if err == nil && narHash != nil && *narHash != path.NarHash {
		// Which of the two is the newer one, what we have or what another node's narinfo
		// named, only the log can say.
		path, err = s.newestPath(ctx, cache, hashPart)
	}
	switch {
	case err == nil && (narHash == nil || *narHash == path.NarHash):
		recipe, err = s.cat.Recipe(ctx, path.NarHash)
		return recipe, true, err
	case err != nil && (narHash == nil || !errors.Is(err, catalog.ErrNoPath)):
		return chunk.Recipe{}, false, err
	}
	former, err := s.cat.Former(ctx, cache, hashPart, *narHash)
	if err == nil && !former {
		err = errNoSuchObject
	}
	if err != nil {
		return chunk.Recipe{}, false, err
	}
	recipe, err = s.cat.Recipe(ctx, *narHash)
	if errors.Is(err, catalog.ErrNoRecipe) {
		err = errNoSuchObject.because(err) // its time is over
	}
	return recipe, false, err
}

// newestPath is Path that does not take what is in the index for an answer.
func (s *server) newestPath(ctx context.Context, cache catalog.CacheName, hashPart nix.HashPart) (catalog.Path, error) {
	if _, err := s.cat.CatchUp(ctx); err != nil {
		return catalog.Path{}, err
	}
	return s.cat.Path(ctx, cache, hashPart)
}

// parseNarFileName reads "<hash part>-<NAR hash>.nar.zst" or "<hash part>.nar".
func parseNarFileName(file string) (nix.HashPart, *[32]byte, error) {
	if base, ok := strings.CutSuffix(file, narSuffix); ok {
		part, digest, _ := strings.Cut(base, "-")
		hashPart, err := nix.ParseHashPart(part)
		if err != nil {
			return nix.HashPart{}, nil, err
		}
		narHash, err := nix.ParseHashAs(nix.SHA256, digest)
		if err != nil {
			return nix.HashPart{}, nil, err
		}
		if narFileName(hashPart, narHash) != file {
			return nix.HashPart{}, nil, requestError("the NAR hash is not in its usual spelling")
		}
		sum, _ := narHash.Sum256()
		return hashPart, &sum, nil
	}
	hashPart, err := nix.ParseHashPart(strings.TrimSuffix(file, aliasSuffix))
	return hashPart, nil, err
}

// maxRanges bounds the ranges of one request. Each costs a seek and a part header; a
// header with thousands is an attack, and may be answered with the whole.
const maxRanges = 16

// rangeSpec puts a Range header into words from which net/http makes the right answer: to
// what is no range it answers without the size, and to an empty list with the whole. ""
// asks for the whole.
func rangeSpec(spec string) string {
	beyond := "bytes=" + strconv.FormatInt(math.MaxInt64, 10) + "-" // beyond any end
	list, ok := strings.CutPrefix(spec, "bytes=")
	if !ok {
		return beyond
	}
	if strings.Count(list, ",") >= maxRanges {
		return ""
	}
	var good []string
	for element := range strings.SplitSeq(list, ",") {
		if element = strings.Trim(element, " \t"); element == "" {
			continue
		}
		first, last, ok := strings.Cut(element, "-")
		from, fromOK := bytePos(strings.TrimRight(first, " \t"))
		to, toOK := bytePos(strings.TrimLeft(last, " \t"))
		switch {
		case !ok, !fromOK, !toOK, from < 0 && to < 0, to >= 0 && from > to:
			return beyond
		case from < 0 && to == 0:
			continue // the last no bytes: net/http would send a range that ends before it begins
		}
		good = append(good, posText(from)+"-"+posText(to))
	}
	if len(good) == 0 {
		return beyond
	}
	return "bytes=" + strings.Join(good, ",")
}

// bytePos reads a position, as far as positions go; -1 if there is none.
func bytePos(text string) (pos int64, ok bool) {
	if text == "" {
		return -1, true
	}
	if strings.Trim(text, "0123456789") != "" {
		return 0, false
	}
	pos, _ = strconv.ParseInt(text, 10, 64) // the largest there is if it does not fit
	return pos, true
}

func posText(pos int64) string {
	if pos < 0 {
		return ""
	}
	return strconv.FormatInt(pos, 10)
}

// sendContent answers with content by http.ServeContent: HEAD, ranges, conditions.
// What cannot be read to its end tears the connection.
func (x *exchange) sendContent(content io.ReadSeeker) error {
	if spec := x.r.Header.Get("Range"); spec != "" {
		x.r.Header.Set("Range", rangeSpec(spec))
	}
	probe := &errorWatcher{ReadSeeker: content}
	if _, ok := content.(*os.File); ok {
		http.ServeContent(x, x.r, "", time.Time{}, content) // as it is, or the kernel could not send it
	} else {
		late := &lateHeader{exchange: x}
		http.ServeContent(late, x.r, "", time.Time{}, probe)
		if probe.err != nil && !x.headerIsSent {
			return x.unreadable(probe.err)
		}
		late.send()
	}

	if x.status == http.StatusRequestedRangeNotSatisfiable {
		return nil
	}
	want, err := strconv.ParseInt(x.Header().Get("Content-Length"), 10, 64)
	if err != nil || x.r.Method == http.MethodHead || x.written >= want {
		return nil
	}
	// Fewer bytes went out than were promised. If the peer is alive it must see a torn
	// connection and not a short file.
	if probe.err != nil {
		x.err = probe.err
	} else {
		x.err = errClientGone
	}
	x.s.metrics.torn.Inc()
	panic(http.ErrAbortHandler)
}

// unreadable is the answer about content of which not even the first byte could be had.
func (x *exchange) unreadable(err error) error {
	for _, name := range []string{"Content-Range", "Content-Length", "Content-Type"} {
		x.Header().Del(name)
	}
	if x.r.Context().Err() != nil || translate(err).status != http.StatusInternalServerError {
		return err
	}
	return errIncomplete.because(err)
}

// lateHeader keeps the status back until there is a first byte to send after it.
type lateHeader struct {
	*exchange
	status int
}

// WriteHeader implements http.ResponseWriter.
func (l *lateHeader) WriteHeader(status int) { l.status = status }

// Write implements http.ResponseWriter.
func (l *lateHeader) Write(p []byte) (int, error) {
	l.send()
	return l.exchange.Write(p)
}

// ReadFrom implements io.ReaderFrom.
func (l *lateHeader) ReadFrom(src io.Reader) (int64, error) { return copyThrough(l, src) }

func (l *lateHeader) send() {
	if l.status != 0 && !l.headerIsSent {
		l.exchange.WriteHeader(l.status)
	}
}

// errorWatcher remembers why reading failed, which ServeContent does not tell.
type errorWatcher struct {
	io.ReadSeeker
	err error
}

func (w *errorWatcher) Read(p []byte) (int, error) {
	n, err := w.ReadSeeker.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // readers return EOF itself
		w.err = err
	}
	return n, err
}
