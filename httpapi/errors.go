package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/celler/celler/blob/chunkstore"
	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/internal/auth"
	"github.com/celler/celler/internal/catalog"
	"github.com/celler/celler/nix"
)

// refusal is an answer that is an error. All user-facing text of this package is made
// in this file.
type refusal struct {
	status     int
	name       string        // of the JSON object
	message    string        // for people
	plain      bool          // text/plain instead of the JSON object
	empty      bool          // no body
	retryAfter time.Duration // 0: no Retry-After
	cause      error         // for the log only

	missing []wire.MissingReceipts // of a commit
}

func (e *refusal) Error() string {
	if e.cause != nil {
		return fmt.Sprintf("%s: %v", e.message, e.cause)
	}
	return e.message
}

func (e *refusal) Unwrap() error { return e.cause }

// because returns e with its reason for the log.
func (e refusal) because(err error) *refusal {
	e.cause = err
	return &e
}

const (
	messageInternal = "The server encountered an internal error or misconfiguration."
	// statusClientGone is what the access line says when there was nobody to answer.
	statusClientGone = 499
	retrySoon        = time.Second
	retryLater       = 5 * time.Second
)

//nolint:gochecknoglobals // constants
var (
	errNotFound      = &refusal{status: http.StatusNotFound, name: wire.ErrorNotFound, message: "The URL you requested was not found."}
	errMethod        = &refusal{status: http.StatusMethodNotAllowed, message: "method not allowed", empty: true}
	errUnauthorized  = &refusal{status: http.StatusUnauthorized, name: wire.ErrorUnauthorized, message: "Unauthorized."}
	errAccess        = &refusal{status: http.StatusForbidden, name: wire.ErrorAccess, message: "Access error: User does not have permission to complete this action."}
	errNoSuchCache   = &refusal{status: http.StatusNotFound, name: wire.ErrorNoSuchCache, message: "The requested cache does not exist."}
	errNoSuchObject  = &refusal{status: http.StatusNotFound, name: wire.ErrorNoSuchObject, message: "The requested object does not exist."}
	errNoSuchPin     = &refusal{status: http.StatusNotFound, name: wire.ErrorNoSuchPin, message: "The cache has no such pin."}
	errCacheExists   = &refusal{status: http.StatusBadRequest, name: wire.ErrorCacheAlreadyExists, message: "The cache already exists."}
	errIncomplete    = &refusal{status: http.StatusServiceUnavailable, name: wire.ErrorIncompleteNar, message: "The requested NAR has missing chunks and needs to be repaired.", retryAfter: retryLater}
	errInternal      = &refusal{status: http.StatusInternalServerError, name: wire.ErrorInternal, message: messageInternal}
	errStalled       = &refusal{status: http.StatusRequestTimeout, name: wire.ErrorTimeout, message: "The request body stopped arriving."}
	errClientGone    = &refusal{status: statusClientGone, message: "the client went away", empty: true}
	errFull          = &refusal{status: http.StatusInsufficientStorage, name: wire.ErrorUnavailable, message: "The server's storage is full.", retryAfter: retryLater}
	errNoCollector   = &refusal{status: http.StatusNotImplemented, name: wire.ErrorNotSupported, message: "This server does not collect garbage and can only withdraw single paths."}
	errChunksMissing = &refusal{status: http.StatusConflict, name: wire.ErrorChunksMissing, message: "Chunks have been removed since they were sent. Send those of the receipts in missing again."}
	errProofKey      = &refusal{status: http.StatusConflict, name: wire.ErrorProofKey, message: "The proofs are not by the key of this bucket. Fetch it again."}
	errBusy          = &refusal{status: http.StatusServiceUnavailable, name: wire.ErrorUnavailable, message: "Try again: this node is taking in as much as it can.", retryAfter: retrySoon}
	errCutOff        = &refusal{status: http.StatusServiceUnavailable, name: wire.ErrorUnavailable, message: "Try again: the batch ended in the middle; something between client and server may have cut it off.", retryAfter: retrySoon}
	errNoSigningKey  = &refusal{status: http.StatusNotImplemented, name: wire.ErrorNotSupported, message: "This server holds only a public key and cannot mint tokens."}
	errSendFirst     = &refusal{status: http.StatusConflict, name: wire.ErrorConflict, message: "The file that the narinfo names has not been uploaded to this cache, or has been removed since. Send it first."}
	errSendAgain     = &refusal{status: http.StatusConflict, name: wire.ErrorConflict, message: "Chunks of this NAR have been removed since it was uploaded. Send it again."}
	errNotListed     = &refusal{status: http.StatusNotImplemented, name: wire.ErrorNotSupported, message: "The NAR has more files than this server lists, or one whose name is not UTF-8, or is not one as Nix makes them."}
	errNoFile        = &refusal{status: http.StatusNotFound, name: wire.ErrorNoSuchObject, message: "The store path has no such file."}
)

// requestError is Attic's catch-all for a request that makes no sense.
func requestError(format string, args ...any) *refusal {
	return &refusal{status: http.StatusBadRequest, name: wire.ErrorRequest, message: "General request error: " + fmt.Sprintf(format, args...)}
}

// shortBody reports a body that ended, properly, before its time.
func shortBody(got, want int64) *refusal {
	return requestError("Bad NAR Hash or Size: the body ended after %d of %d bytes; something between client and server may have cut it off", got, want)
}

// pastRefusal refuses a change of the past.
func pastRefusal(past string) *refusal {
	return &refusal{status: http.StatusMethodNotAllowed, name: wire.ErrorReadOnly, message: "This server shows " + past + " and takes no writes."}
}

// pastIncomplete reports a NAR of the past whose bytes are not where they were.
func pastIncomplete(past string) *refusal {
	return &refusal{status: http.StatusGone, name: wire.ErrorIncompleteNar, message: "This server shows " + past + ". Bytes of the requested NAR have been removed from the bucket since then, or stored anew elsewhere."}
}

// wrongHash reports a complete body that is not what was announced.
func wrongHash(got, want nix.Hash, size int64) *refusal {
	return requestError("Bad NAR Hash or Size: expected %s, received %s over all %d bytes", want, got, size)
}

// pinnedPath reports that a path cannot go.
func pinnedPath(e *PinnedError) *refusal {
	message := fmt.Sprintf("Path %s is kept by pin %q.", e.StorePath, e.Pin)
	if e.Root != e.StorePath {
		message = fmt.Sprintf("Path %s is kept by pin %q, whose path %s needs it.", e.StorePath, e.Pin, e.Root)
	}
	return &refusal{status: http.StatusConflict, name: wire.ErrorPinned, message: message}
}

// malformed reports a body that is no NAR.
func malformed(err error) *refusal { return requestError("Malformed NAR: %v", err) }

// unsupportedVersion refuses a version of the delta protocol.
func unsupportedVersion(v string) *refusal {
	return &refusal{status: http.StatusBadRequest, name: wire.ErrorUnsupportedVersion, message: fmt.Sprintf("This server speaks version %d of the delta protocol, and not %.20q.", wire.DeltaVersion, v)}
}

// badChunk refuses a batch.
func badChunk(e *chunkstore.BadChunkError) *refusal {
	return (&refusal{status: http.StatusUnprocessableEntity, name: wire.ErrorBadChunk, message: fmt.Sprintf("Bad chunk in segment %d, item %d: %s.", e.Segment, e.Item, e.Problem)}).because(e)
}

// badReceipts refuses the receipts of a path, or of a join.
func badReceipts(format string, args ...any) *refusal {
	return &refusal{status: http.StatusUnprocessableEntity, name: wire.ErrorBadReceipts, message: "Bad receipts: " + fmt.Sprintf(format, args...) + "."}
}

// badNar refuses a path whose NAR is none.
func badNar(path nix.StorePath, err error) *refusal {
	return (&refusal{status: http.StatusUnprocessableEntity, name: wire.ErrorBadNar, message: fmt.Sprintf("Path %s is no NAR as Nix makes them: %v.", path.Base(), err)}).because(err)
}

// otherNar refuses to replace a path.
func otherNar(e *catalog.OtherNarError) *refusal {
	message := fmt.Sprintf("Path %s is in the cache with NAR hash %s, not %s. Delete it there first if it is wrong.", e.StorePath.Base(), nix.SHA256Hash(e.There), nix.SHA256Hash(e.Given))
	if e.There == e.Given {
		message = fmt.Sprintf("Path %s is in the cache with NAR hash %s and other references. Delete it there first if they are wrong.", e.StorePath.Base(), nix.SHA256Hash(e.There))
	}
	return (&refusal{status: http.StatusConflict, name: wire.ErrorConflict, message: message}).because(e)
}

// absentReferences refuses a commit.
func absentReferences(paths []nix.StorePath) *refusal {
	const shown = 20
	var names []string
	for _, p := range paths[:min(len(paths), shown)] {
		names = append(names, p.Base())
	}
	text := strings.Join(names, ", ")
	if more := len(paths) - shown; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return &refusal{status: http.StatusUnprocessableEntity, name: wire.ErrorAbsentReferences, message: "References are not in the cache, which takes paths after what they refer to only: " + text + "."}
}

// notStored reports that the chunk store could not put a NAR away.
func notStored(err error) *refusal {
	if e := translate(err); e.status != http.StatusInternalServerError {
		return e
	}
	return unavailable("the NAR could not be stored, and the server's log says why", err)
}

// extractorError is an error of the layer before the handler, which stock servers
// answer as text.
func extractorError(status int, format string, args ...any) *refusal {
	return &refusal{status: status, message: fmt.Sprintf(format, args...), plain: true}
}

func tooLarge(format string, args ...any) *refusal {
	return &refusal{status: http.StatusRequestEntityTooLarge, name: wire.ErrorTooLarge, message: fmt.Sprintf(format, args...)}
}

func unavailable(message string, cause error) *refusal {
	return &refusal{status: http.StatusServiceUnavailable, name: wire.ErrorUnavailable, message: "Try again: " + message + ".", retryAfter: retrySoon, cause: cause}
}

// translate finds the answer to an error of the packages below.
func translate(err error) *refusal {
	if e, ok := errors.AsType[*refusal](err); ok {
		return e
	}
	if pinned, ok := errors.AsType[*PinnedError](err); ok {
		return pinnedPath(pinned)
	}
	if pinned, ok := errors.AsType[*catalog.PinnedError](err); ok {
		path := pinned.StorePath.String()
		return pinnedPath(&PinnedError{StorePath: path, Pin: pinned.Pin, Root: path})
	}
	if other, ok := errors.AsType[*catalog.OtherNarError](err); ok {
		return otherNar(other)
	}
	for _, row := range translations() {
		if errors.Is(err, row.is) {
			return row.answer(err)
		}
	}
	return errInternal.because(err)
}

type translation struct {
	is     error
	answer func(error) *refusal
}

// translations is the table, most specific first.
func translations() []translation {
	says := func(e *refusal) func(error) *refusal { return func(err error) *refusal { return e.because(err) } }
	retry := func(message string) func(error) *refusal {
		return func(err error) *refusal { return unavailable(message, err) }
	}
	return []translation{
		{context.Canceled, retry("this node stopped what it was doing for this request")},
		{os.ErrDeadlineExceeded, says(errStalled)},
		{syscall.ENOSPC, says(errFull)},
		{context.DeadlineExceeded, retry("the bucket did not answer in time")},
		{catalog.ErrNoCache, says(errNoSuchCache)},
		{catalog.ErrCacheExists, says(errCacheExists)},
		{catalog.ErrNoPath, says(errNoSuchObject)},
		{catalog.ErrNoPin, says(errNoSuchPin)},
		{catalog.ErrNoUpload, says(errNoSuchObject)},
		{catalog.ErrNoSide, says(errNoSuchObject)},
		{catalog.ErrNoRecipe, says(errIncomplete)},
		{catalog.ErrNoPack, says(errIncomplete)},
		{catalog.ErrChunksMissing, retry("chunks of this NAR were removed during the upload, push it again")},
		{catalog.ErrInvalid, func(err error) *refusal { return requestError("%v", err) }},
		{catalog.ErrConflict, retry("another writer was faster, nothing was changed")},
		{catalog.ErrStale, retry("what this was worked out from keeps changing")},
		{catalog.ErrUnknown, retry("the bucket did not confirm the write, which may have happened; repeating it is harmless")},
		{catalog.ErrClosed, retry("this node is shutting down, nothing was changed")},
		{catalog.ErrForked, retry("this node's log has forked and it takes no writes; see its log")},
		{catalog.ErrRolledBack, retry("this node's bucket was rolled back and it takes no writes; see its log")},
		{catalog.ErrUnavailable, retry("this node cannot write at the moment, nothing was changed")},
		{catalog.ErrUnreachable, retry("this node cannot reach its bucket")},
	}
}

// fail answers with an error. If the body of the request is still arriving, the answer is
// sent first and a bounded part of the body is read away, so that a client that only
// listens after it has sent everything gets to see the answer and not a reset.
func (x *exchange) fail(err error) {
	if _, said := errors.AsType[*refusal](err); !said && x.r.Context().Err() != nil {
		err = errClientGone.because(err)
	}
	e := translate(err)
	if x.s.opts.Past != "" && e.name == wire.ErrorIncompleteNar {
		e = pastIncomplete(x.s.opts.Past).because(err)
	}
	if claims, ok := errors.AsType[*auth.ClaimsError](x.grant.Rejected); ok && e.status == http.StatusUnauthorized {
		e = (&refusal{status: e.status, name: e.name, message: e.message + " The token " + claims.Problem + "."}).because(err)
	}
	if x.err == nil {
		x.err = err
	}
	if x.headerIsSent {
		panic(http.ErrAbortHandler) // too late for words; finish must not look like success
	}
	if e.status == statusClientGone {
		x.status, x.headerIsSent = statusClientGone, true
		panic(http.ErrAbortHandler)
	}
	pending := x.bodyPending()
	h := x.Header()
	for _, name := range []string{"ETag", "Content-Encoding", "Accept-Ranges", "Last-Modified", "Vary"} {
		h.Del(name)
	}
	h.Set("Cache-Control", "no-store")
	if e.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Basic realm="celler", charset="UTF-8"`)
	}
	if e.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(e.retryAfter/time.Second)))
	}
	if e.plain && strings.HasPrefix(x.route, deltaPath) {
		said := *e
		if said.plain = false; said.name == "" {
			said.name = wire.ErrorRequest
		}
		e = &said
	}
	var body []byte
	switch {
	case e.empty:
	case e.plain:
		h.Set("Content-Type", "text/plain; charset=utf-8")
		h.Set("X-Content-Type-Options", "nosniff")
		body = append([]byte(e.message), '\n')
	default:
		h.Set("Content-Type", "application/json")
		body = mustJSON(wire.CommitError{Error: wire.Error{Code: e.status, Name: e.name, Message: e.message}, Missing: e.missing})
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if pending {
		x.answerFirst()
	}
	x.WriteHeader(e.status)
	if _, err := x.Write(body); err != nil {
		return
	}
	if pending {
		x.drain()
	}
}

const (
	// drainBytes and drainTime bound how long we listen to a body nobody wants.
	drainBytes = 16 << 20
	drainTime  = 5 * time.Second
)

// bodyPending reports whether more of the body may be arriving.
func (x *exchange) bodyPending() bool { return !x.body.done && !x.body.empty }

// answerFirst lets the answer out before the rest of the body is in, which net/http by
// itself does not: up to 256 KiB it waits for, and without a deadline.
func (x *exchange) answerFirst() {
	if x.r.ProtoMajor > 1 {
		return // it does so, and the other requests of the connection are none of ours
	}
	_ = x.rc.EnableFullDuplex()
	x.Header().Set("Connection", "close")
}

// drain listens to the rest of the body, so that a client which only then listens to us
// sees the answer.
func (x *exchange) drain() {
	if x.r.ProtoMajor > 1 {
		return // the client is told that nobody wants the rest
	}
	if err := x.rc.Flush(); err != nil {
		return
	}
	if x.r.Header.Get("Expect") != "" && x.body.read == 0 {
		return // the client waits for our word before it sends, and has got it
	}
	if !x.lastRead() {
		return
	}
	_, _ = io.CopyN(io.Discard, x.body.src, drainBytes) // whatever ends it, the answer is out
}

// lastRead bounds what net/http, or drain, still reads of a body after its handler.
func (x *exchange) lastRead() bool {
	if x.lastReadSet {
		return true
	}
	x.lastReadSet = true
	return x.rc.SetReadDeadline(x.s.opts.Now().Add(min(drainTime, x.s.opts.StallTimeout))) == nil
}

// mustJSON encodes a value of ours.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err))
	}
	return b
}

func stack() string { return string(debug.Stack()) }
