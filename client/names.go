package client

import (
	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/nix"
)

// StorePath is nix.StorePath, for callers that import no other package of ours.
type StorePath = nix.StorePath

// HashPart is nix.HashPart, likewise.
type HashPart = nix.HashPart

// Names of errors a caller may want to tell apart; see StatusError.Name.
const (
	NoSuchCache        = wire.ErrorNoSuchCache
	NoSuchObject       = wire.ErrorNoSuchObject
	NoSuchPin          = wire.ErrorNoSuchPin
	AccessDenied       = wire.ErrorAccess
	PathIsPinned       = wire.ErrorPinned
	CacheAlreadyExists = wire.ErrorCacheAlreadyExists
	TooLarge           = wire.ErrorTooLarge
)
