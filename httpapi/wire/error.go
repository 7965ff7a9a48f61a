package wire

import "fmt"

// Error is the JSON object of every refusal. It is an error for the client.
type Error struct {
	Code    int    `json:"code"`    // the HTTP status again
	Name    string `json:"error"`   // one of the names below
	Message string `json:"message"` // for people
}

func (e *Error) Error() string { return fmt.Sprintf("%s (%d %s)", e.Message, e.Code, e.Name) }

// The names of errors. Those above the gap are Attic's.
const (
	ErrorNotFound           = "NotFound"
	ErrorUnauthorized       = "Unauthorized"
	ErrorAccess             = "AccessError"
	ErrorNoSuchCache        = "NoSuchCache"
	ErrorNoSuchObject       = "NoSuchObject"
	ErrorCacheAlreadyExists = "CacheAlreadyExists"
	ErrorIncompleteNar      = "IncompleteNar"
	ErrorRequest            = "RequestError"
	ErrorInternal           = "InternalServerError"

	ErrorNoSuchPin    = "NoSuchPin"
	ErrorPinned       = "Pinned"
	ErrorTooLarge     = "TooLarge"
	ErrorUnavailable  = "Unavailable"
	ErrorTimeout      = "Timeout"
	ErrorNotSupported = "NotSupported"
	ErrorReadOnly     = "ReadOnly"

	ErrorUnsupportedVersion = "UnsupportedVersion"
	ErrorProofKey           = "ProofKey"
	ErrorBadChunk           = "BadChunk"
	ErrorBadReceipts        = "BadReceipts"
	ErrorBadNar             = "BadNar"
	ErrorChunksMissing      = "ChunksMissing"
	ErrorAbsentReferences   = "AbsentReferences"
	ErrorConflict           = "Conflict"
)
