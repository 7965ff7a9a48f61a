package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"

	"github.com/celler/celler/internal/config"
	"github.com/celler/celler/internal/node"
)

// explainNode explains what package node returns: errors of buckets, keys and tokens.
func explainNode(err error) (verdict, bool) {
	if broken, ok := errors.AsType[*node.BrokenPromiseError](err); ok {
		return verdict{exitFailed, err.Error(), broken.Hints()}, true
	}
	if foreign, ok := errors.AsType[*node.ForeignBucketError](err); ok {
		return verdict{exitFailed, err.Error(), []string{
			fmt.Sprintf("give celler a place of its own: --bucket %s", below(foreign.Bucket)),
		}}, true
	}
	if damaged, ok := errors.AsType[*node.DamagedError](err); ok {
		hints := []string{
			fmt.Sprintf("\"celler recover --bucket %s --dry-run\" says what can be saved; stop the other servers first, and delete nothing", damaged.Bucket),
		}
		if damaged.Behind() {
			hints = append(hints, "if it finds nothing to do, add --seen and the number of the missing slot; if the bucket is another on purpose, remove the server's cache directory")
		}
		return verdict{exitFailed, damaged.Error(), hints}, true
	}
	if missing, ok := errors.AsType[*node.NotFoundedError](err); ok {
		hint := "\"celler serve --bucket %s\" founds it if it is empty"
		if missing.NoPlace {
			hint = "check the name; \"celler init --bucket %[1]s\" makes the directory and founds a bucket in it, and so does \"celler serve --bucket %[1]s\""
		}
		return verdict{exitFailed, err.Error(), []string{fmt.Sprintf(hint, missing.Bucket)}}, true
	}
	if profile, ok := errors.AsType[*node.ProfileError](err); ok {
		return verdict{exitFailed, err.Error(), []string{fmt.Sprintf("leave --chunk-profile out or say %s; another profile needs another bucket", profile.Have)}}, true
	}
	if _, ok := errors.AsType[*node.UnknownProfileError](err); ok {
		return verdict{exitUsage, err.Error(), []string{"profiles are called fast2016-Nk, N a power of two from 1 to 256"}}, true
	}
	if listen, ok := errors.AsType[*node.ListenError](err); ok {
		hint := fmt.Sprintf("another program may have %s; choose another with --listen, or port 0 for a free one", listen.Addr)
		if _, ok := errors.AsType[*net.AddrError](err); ok {
			hint = "an address is [HOST]:PORT, such as 127.0.0.1:8080, with a port up to 65535; port 0 is a free one"
		}
		if errors.Is(err, fs.ErrPermission) {
			hint = "low ports are for root: choose a port from 1024 with --listen, or let systemd pass the socket"
		}
		return verdict{exitFailed, err.Error(), []string{hint}}, true
	}
	if _, ok := errors.AsType[*node.TokenError](err); ok {
		return verdict{exitUsage, err.Error(), []string{"a token is three words of letters joined by dots, as \"celler token create\" prints it"}}, true
	}
	if _, ok := errors.AsType[*node.RightsError](err); ok {
		return verdict{exitUsage, err.Error(), []string{"a pattern is made of letters, digits, \"-\", \"_\", \"+\" and \"*\", at most 50"}}, true
	}
	if _, ok := errors.AsType[*node.KeyError](err); ok {
		return verdict{exitUsage, err.Error(), []string{"an HS256 key is base64 of any bytes; an RS256 key is a PEM text, or base64 of one"}}, true
	}
	if _, ok := errors.AsType[*node.CannotMintError](err); ok {
		return verdict{exitFailed, err.Error(), []string{"configure the private key where tokens are made"}}, true
	}
	if when, ok := errors.AsType[*node.WhenError](err); ok {
		return verdict{exitUsage, when.Error(), []string{"say the number of a slot, the name of a bookmark, or a time such as 2026-03-01, \"2026-03-01 17:30\" or \"2 hours ago\""}}, true
	}
	if path, ok := errors.AsType[*node.PathError](err); ok {
		return verdict{exitUsage, path.Error(), nil}, true
	}
	if restore, ok := errors.AsType[*node.RestoreError](err); ok {
		return verdict{exitFailed, restore.Error(), hintList(restore.Hint)}, true
	}
	if cause, hint, ok := node.Diagnose(err); ok {
		return verdict{exitFailed, cause, hintList(hint)}, true
	}
	return explainLocal(err)
}

// explainLocal explains what this machine's files and settings cause.
func explainLocal(err error) (verdict, bool) {
	if value, ok := errors.AsType[*config.ValueError](err); ok {
		hint := ""
		if value.Key == "cache reference" && (strings.HasPrefix(value.Value, ".") || strings.HasPrefix(value.Value, "/")) {
			hint = "the cache comes first, and then the paths"
		}
		return verdict{exitUsage, value.Error(), hintList(hint)}, true
	}
	if errors.Is(err, config.ErrTokenControl) {
		return verdict{exitFailed, err.Error(), []string{"a token is one line; is there something before or behind it?"}}, true
	}
	if clash, ok := errors.AsType[*keyClashError](err); ok {
		return verdict{exitFailed, clash.Error(), []string{
			"if the cache has a new key, say --replace-key",
			"if two caches share the name, give one a key of another: \"nix-store --generate-binary-cache-key NAME-1 secret public\", then \"celler cache configure CACHE --key-file secret\"",
		}}, true
	}
	if _, ok := errors.AsType[*notACacheError](err); ok {
		return verdict{exitFailed, err.Error(), []string{"the server's substituter-endpoint may be wrong, or a proxy in front of it"}}, true
	}
	if path, ok := errors.AsType[*fs.PathError](err); ok && errors.Is(err, fs.ErrPermission) {
		return verdict{exitFailed, err.Error(), []string{fmt.Sprintf("%s is not yours to %s: run celler as its owner, such as root", path.Path, path.Op)}}, true
	}
	return verdict{}, false
}

// below names a place inside a bucket: a prefix, or a subdirectory.
func below(bucket string) string {
	place, query, ok := strings.Cut(bucket, "?")
	if ok {
		query = "?" + query
	}
	return strings.TrimRight(place, "/") + "/celler" + query
}
