package client

import (
	"context"
	"path/filepath"

	"github.com/celler/celler/internal/nixstore"
	"github.com/celler/celler/nix"
)

// ErrNotValid means that the local store does not have a path.
var ErrNotValid = nixstore.ErrNotValid

// OpenStore opens the local Nix store for a push. Which one it is follows the
// variables that Nix itself looks at; getenv reads them. The caller closes it.
func OpenStore(ctx context.Context, getenv func(string) string) (*nixstore.Store, error) {
	socket := getenv("NIX_DAEMON_SOCKET_PATH")
	if state := getenv("NIX_STATE_DIR"); socket == "" && state != "" {
		socket = filepath.Join(state, "daemon-socket", "socket")
	}
	return nixstore.Open(ctx, nixstore.Options{
		Remote:   getenv("NIX_REMOTE"),
		Socket:   socket,
		StoreDir: nix.StoreDir(getenv("NIX_STORE_DIR")),
		LogDir:   getenv("NIX_LOG_DIR"),
	})
}
