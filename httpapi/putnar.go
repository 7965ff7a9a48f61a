package httpapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/internal/auth"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/internal/compression"
	"github.com/celler/celler/nix"
)

// Plain Nix sends a path in two requests that know nothing of each other and may reach
// two nodes: the NAR as a compressed file under the hash of that file, and then the narinfo.
// The first stores the NAR and notes which it was; the second makes the path.
// See docs/adr/0013.

// parseFileName reads "<SHA-256 of the file>.nar" with the ending of a compression, as plain
// Nix calls the files it sends. exact is false if there is no such ending.
func parseFileName(file string) (fileHash [32]byte, format compression.Format, exact, ok bool) {
	base, format, exact := compression.CutSuffix(file)
	base, isNar := strings.CutSuffix(base, aliasSuffix)
	if !isNar || len(base) != nix32SHA256 {
		return fileHash, 0, false, false
	}
	h, err := nix.ParseHashAs(nix.SHA256, base)
	if err != nil || h.Nix32() != "sha256:"+base {
		return fileHash, 0, false, false
	}
	fileHash, ok = h.Sum256()
	return fileHash, format, exact, ok
}

// nix32SHA256 is the length of a SHA-256 in nixbase32.
const nix32SHA256 = 52

// putNar answers PUT /{cache}/nar/{file}.
func (s *server) putNar(x *exchange) error {
	cache, _, err := x.authorise(x.r.PathValue("cache"), auth.Permission{Push: true})
	if err != nil {
		return err
	}
	file := x.r.PathValue("file")
	fileHash, format, exact, ok := parseFileName(file)
	if !ok {
		return requestError("file %.200q: expected <SHA-256 of the file in nixbase32>.nar and the ending of xz, zst, bz2, gz, br or none", file)
	}
	x.note(slog.String("file", file))
	up, err := x.receiveFile(cache.Name, fileHash, format, exact)
	if err != nil {
		return err
	}
	// As in uploadPath: what was worked for is finished.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(x.r.Context()), s.opts.PublishTimeout)
	defer cancel()
	seq, err := s.cat.CommitUpload(ctx, up)
	if errors.Is(err, catalog.ErrChunksMissing) {
		s.chunks.Refused(&up.Recipe)
	}
	if err != nil {
		return err
	}
	s.metrics.putNars.Inc()
	x.note(slog.String("nar_hash", nix.SHA256Hash(up.Recipe.NarHash).String()), slog.Int64("nar_bytes", up.Recipe.Size))
	x.setSeq(seq)
	return x.sendCreated()
}

func (x *exchange) sendCreated() error {
	x.Header().Set("Cache-Control", "no-store")
	x.Header().Set("Content-Length", "0")
	x.WriteHeader(http.StatusCreated)
	return nil
}

// receiveFile takes in a NAR whose hash and size nobody has announced, only those of the file
// it is sent as.
func (x *exchange) receiveFile(cache catalog.CacheName, fileHash [32]byte, format compression.Format, exact bool) (catalog.NarUpload, error) {
	ctx := x.r.Context()
	src := &fileReader{src: x.body, want: fileHash, sum: sha256.New()}
	format, err := src.format(format, exact)
	if err != nil {
		return catalog.NarUpload{}, err
	}
	dec, stop, err := x.decompress(format, src)
	if err != nil {
		return catalog.NarUpload{}, err
	}
	defer stop()
	body := newOpenBody(&wholeFile{dec: errorReader{dec}, file: src}, x.s.opts.MaxNarBytes)
	defer body.close()
	stored, err := x.s.chunks.Write(ctx, body)
	switch {
	case body.failed() != nil:
		return catalog.NarUpload{}, body.failed()
	case err != nil && ctx.Err() != nil:
		return catalog.NarUpload{}, err
	case err != nil:
		return catalog.NarUpload{}, notStored(err)
	case !body.judged() || stored.Recipe.Size != body.read || stored.Recipe.NarHash != body.judge.sum():
		return catalog.NarUpload{}, fmt.Errorf("store a NAR of %d bytes: the store made a recipe for NAR %x of %d", body.read, stored.Recipe.NarHash, stored.Recipe.Size)
	}
	return catalog.NarUpload{
		Cache: cache, FileHash: fileHash, FileSize: src.read, Compression: format.String(),
		Recipe: stored.Recipe, Packs: stored.Packs, Listing: body.listing(x.s),
	}, nil
}

// fileReader reads the file that is sent, and hashes it.
type fileReader struct {
	src   io.Reader
	begin []byte // read ahead, to see what it is
	want  [32]byte
	sum   hash.Hash
	read  int64
}

// format finds out how the file is compressed if its name does not say.
func (f *fileReader) format(named compression.Format, exact bool) (compression.Format, error) {
	if exact {
		return named, nil
	}
	begin := make([]byte, compression.DetectBytes)
	n, err := io.ReadFull(f.src, begin)
	f.begin = begin[:n]
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, bodyError(err)
	}
	found, known := compression.Detect(f.begin)
	if !known {
		return 0, extractorError(http.StatusUnsupportedMediaType, "The file is compressed in a way that this server does not know. It takes none, xz, zstd, bzip2, gzip, br and lz4: set ?compression= in the URL of the store.")
	}
	return found, nil
}

func (f *fileReader) Read(p []byte) (n int, err error) {
	if len(f.begin) > 0 {
		n = copy(p, f.begin)
		f.begin = f.begin[n:]
	} else {
		n, err = f.src.Read(p)
	}
	f.read += int64(n)
	f.sum.Write(p[:n])
	return n, err
}

// wholeFile is what is in a file, with an end only if nothing follows it in the file
// and that has the hash it is named by.
type wholeFile struct {
	dec  io.Reader
	file *fileReader
}

func (w *wholeFile) Read(p []byte) (int, error) {
	n, err := w.dec.Read(p)
	if err != io.EOF { //nolint:errorlint // errorReader returns EOF itself
		return n, err
	}
	var rest [1]byte
	switch m, err := io.ReadFull(w.file, rest[:]); {
	case m > 0:
		return n, requestError("the file goes on after the end of the NAR")
	case !errors.Is(err, io.EOF):
		return n, bodyError(err)
	}
	if got := [32]byte(w.file.sum.Sum(nil)); got != w.file.want {
		return n, requestError("Bad file hash: the name says %s, received %s over %d bytes; something between client and server may have changed or cut it off",
			nix.SHA256Hash(w.file.want), nix.SHA256Hash(got), w.file.read)
	}
	return n, io.EOF
}

// uploaded answers GET and HEAD of a file as it was once put here. Nix looks whether it
// has to send it; and who sent it remembers its name for a month.
func (s *server) uploaded(x *exchange, fileHash [32]byte, format compression.Format, exact bool) error {
	cache, pusher, err := x.authoriseUploaded()
	if err != nil {
		return err
	}
	up, err := s.cat.Upload(x.r.Context(), cache.Name, fileHash)
	if err != nil {
		return err
	}
	packed, ok := compression.Parse(up.Compression)
	if !ok || exact && format != packed {
		return errNoSuchObject
	}
	if !up.Claimed {
		// No narinfo has made a path of it. Who is about to send one need not send the file
		// again, unless the NAR may be collected before.
		fresh, err := s.cat.UploadIsFresh(&up)
		if err != nil {
			return err
		}
		if !pusher || !fresh {
			return errNoSuchObject
		}
	}
	recipe, current, err := s.recipeOfUpload(x.r.Context(), cache.Name, &up)
	if err != nil {
		return err
	}
	content, err := s.chunks.Open(x.r.Context(), &recipe)
	if err != nil || s.chunks.WasRefused(&recipe) {
		if x.r.Context().Err() == nil && x.r.Method == http.MethodHead {
			return errNoSuchObject.because(err) // so that it is sent again
		}
		return errIncomplete.because(err)
	}
	defer content.Close()
	if current && x.r.Method != http.MethodHead {
		s.opts.Uses.Downloaded(cache.Name, up.HashPart)
	}
	x.note(slog.String("nar_hash", nix.SHA256Hash(recipe.NarHash).String()))
	x.Header().Set("Content-Type", typeNar)
	x.cacheable(&cache, ageMeta) // the same NAR for ever, but not the same bytes
	switch packed {
	case compression.Zstd:
		x.Header().Set("ETag", chunkstore.ETag(&recipe))
		return x.sendContent(content)
	case compression.None:
		plain, err := s.chunks.OpenPart(x.r.Context(), &recipe, 0, recipe.Size)
		if err != nil {
			return errIncomplete.because(err)
		}
		defer plain.Close()
		x.Header().Set("ETag", `"`+nix.SHA256Hash(recipe.NarHash).Nix32()+`"`)
		return x.sendContent(plain)
	default:
		return x.sendEncoded(&recipe, packed)
	}
}

// authoriseUploaded lets those look for a file who may push, and those have it who may
// pull.
func (x *exchange) authoriseUploaded() (cache catalog.Cache, pusher bool, err error) {
	name := x.r.PathValue("cache")
	if x.r.Method == http.MethodHead {
		if cache, _, err = x.authorise(name, auth.Permission{Push: true}); err == nil {
			return cache, true, nil
		}
	}
	cache, err = x.authorisePull()
	return cache, false, err
}

// recipeOfUpload finds the NAR that is in an upload. If a narinfo made a path of it the rules
// for that path hold: its NAR may have been purged, and then the file must be sent again.
func (s *server) recipeOfUpload(ctx context.Context, cache catalog.CacheName, up *catalog.Upload) (recipe chunk.Recipe, current bool, err error) {
	if up.Claimed {
		return s.recipeOf(ctx, cache, up.HashPart, &up.NarHash)
	}
	recipe, err = s.cat.Recipe(ctx, up.NarHash)
	if errors.Is(err, catalog.ErrNoRecipe) {
		err = errNoSuchObject.because(err)
	}
	return recipe, false, err
}

// sendEncoded sends a NAR in a compression that it is not kept in. The bytes are not those
// that were once sent, and nobody knows how many there will be.
func (x *exchange) sendEncoded(recipe *chunk.Recipe, format compression.Format) error {
	if x.r.Method == http.MethodHead {
		x.WriteHeader(http.StatusOK)
		return nil
	}
	done, err := x.encoder()
	if err != nil {
		return err
	}
	defer done()
	plain, err := x.s.chunks.Plain(x.r.Context(), recipe)
	if err != nil {
		return errIncomplete.because(err)
	}
	defer plain.Close()
	begin := make([]byte, min(recipe.Size, 64))
	if _, err := io.ReadFull(plain, begin); err != nil {
		return x.unreadable(err)
	}
	w, err := compression.NewWriter(format, x)
	if err != nil {
		return err
	}
	x.Header().Set("Accept-Ranges", "none")
	src := &errorWatcher{ReadSeeker: justReader{io.MultiReader(bytes.NewReader(begin), plain)}}
	if _, err = copyThrough(w, src); err == nil {
		err = w.Close()
	}
	if err == nil {
		return nil
	}
	// A torn connection, not a short file.
	if x.err = src.err; x.err == nil {
		x.err = errClientGone.because(err)
	}
	x.s.metrics.torn.Inc()
	panic(http.ErrAbortHandler)
}

// maxEncoders is how many NARs are compressed at once for those who ask for them as they
// were sent. It costs up to three hundred times what it costs to send them as they are kept,
// and of a public cache anybody may ask.
const maxEncoders = 4

// encoder waits until a NAR may be compressed. The caller calls done.
func (x *exchange) encoder() (done func(), err error) {
	soon, cancel := context.WithTimeout(x.r.Context(), x.s.opts.StallTimeout)
	defer cancel()
	select {
	case x.s.encodeSlots <- struct{}{}:
		return func() { <-x.s.encodeSlots }, nil
	case <-soon.Done():
	}
	if err := x.r.Context().Err(); err != nil {
		return nil, err
	}
	return nil, errBusy.because(soon.Err())
}

// justReader cannot seek, whatever is asked.
type justReader struct{ io.Reader }

func (justReader) Seek(int64, int) (int64, error) { return 0, errors.ErrUnsupported }
