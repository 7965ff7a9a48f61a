package client

import (
	"context"

	"github.com/celler/celler/internal/nixstore"
	"github.com/celler/celler/nix"
)

// ErrNotValid means that the local store does not have a path.
var ErrNotValid = nixstore.ErrNotValid

// OpenStore opens the local Nix store for a push. Which one it is follows the
// variables that Nix itself looks at; getenv reads them. The caller closes it.
func OpenStore(ctx context.Context, getenv func(string) string) (*nixstore.Store, error) {
	return nixstore.Open(ctx, nixstore.Options{
		Remote:   getenv("NIX_REMOTE"),
		Socket:   getenv("NIX_DAEMON_SOCKET_PATH"),
		StoreDir: nix.StoreDir(getenv("NIX_STORE_DIR")),
	})
}
