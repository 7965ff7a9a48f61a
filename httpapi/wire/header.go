package wire

// The headers that carry an [UploadInfo], in both families.
const (
	HeaderAtticNarInfo          = "X-Attic-Nar-Info"
	HeaderAtticNarInfoPreamble  = "X-Attic-Nar-Info-Preamble-Size"
	HeaderCellerNarInfo         = "X-Celler-Nar-Info"
	HeaderCellerNarInfoPreamble = "X-Celler-Nar-Info-Preamble-Size"
)

// The headers that mark answers about a public cache, and their only value.
const (
	HeaderAtticVisibility  = "X-Attic-Cache-Visibility"
	HeaderCellerVisibility = "X-Celler-Cache-Visibility"
	VisibilityPublic       = "public"
)

// HeaderSeq is on the answer to every write: the log position that holds it.
// HeaderMinSeq on a request makes any replica wait until it has seen that position.
const (
	HeaderSeq    = "Celler-Seq"
	HeaderMinSeq = "Celler-Min-Seq"
)

// HeaderRequestID is on every answer that is an error: what the server's log calls the request.
const HeaderRequestID = "X-Request-Id"

// HeaderUploadInfoMax is the longest upload info a client should put into a header; a
// longer one travels as a preamble.
const HeaderUploadInfoMax = 4096
