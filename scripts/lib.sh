# Shared by the other scripts. Source it; it changes to the repository's root.
# shellcheck shell=bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
ROOT=$PWD
export ROOT CGO_ENABLED="${CGO_ENABLED:-0}"
PATH=$ROOT/bin:$PATH:/usr/local/go/bin:/usr/sbin

say() { printf '\n== %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# as_root runs a command as root: directly, or through sudo.
as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"; return; fi
	command -v sudo >/dev/null || die "need root for: $* (install sudo, or run as root)"
	sudo "$@"
}
