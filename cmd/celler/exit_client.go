package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/celler/celler/client"
	"github.com/celler/celler/internal/config"
)

// remoteError says which server, and perhaps which cache, an error of package client
// came from.
type remoteError struct {
	Remote config.Remote
	Err    error
}

func (e *remoteError) Error() string { return e.Err.Error() }
func (e *remoteError) Unwrap() error { return e.Err }

// at puts the place on an error of package client.
func at(r config.Remote, err error) error {
	if err == nil {
		return nil
	}
	return &remoteError{Remote: r, Err: err}
}

// hintedError replaces what would be said to type next.
type hintedError struct {
	error
	hints []string
}

func (e *hintedError) Unwrap() error { return e.error }

// withHints gives an answer of a server that is called name other hints than the usual
// ones: what to do about a cache that is not there depends on what one wanted of it.
func withHints(err error, name string, hints ...string) error {
	if status, ok := errors.AsType[*client.StatusError](err); ok && status.Name == name {
		return &hintedError{err, hints}
	}
	return err
}

// stoppedError reports a push that was given up after part of it was done.
type stoppedError struct{ Err error }

func (e *stoppedError) Error() string { return e.Err.Error() }
func (e *stoppedError) Unwrap() error { return e.Err }

// silentError is a failure that has been printed already.
type silentError struct{ Err error }

func (e *silentError) Error() string { return e.Err.Error() }
func (e *silentError) Unwrap() error { return e.Err }

// explainClient explains what package client returns.
func explainClient(err error) (verdict, bool) {
	if _, ok := errors.AsType[*silentError](err); ok {
		return verdict{code: exitFailed}, true
	}
	if hinted, ok := errors.AsType[*hintedError](err); ok {
		v := explain(hinted.error)
		v.hints = hinted.hints
		return v, true
	}
	if stopped, ok := errors.AsType[*stoppedError](err); ok {
		v := explain(stopped.Err)
		v.code = exitPartly
		return v, true
	}
	var where config.Remote
	if remote, ok := errors.AsType[*remoteError](err); ok {
		where = remote.Remote
	}
	if status, ok := errors.AsType[*client.StatusError](err); ok {
		return explainStatus(where, status), true
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" && where.Endpoint != "" {
		return verdict{exitFailed, fmt.Sprintf("no server answers at %s: %v", where.Endpoint, op.Err), []string{
			`is the address right, and the server running? "celler serve" starts one`,
		}}, true
	}
	if errors.Is(err, http.ErrSchemeMismatch) && where.Endpoint != "" {
		plain := "http://" + strings.TrimPrefix(where.Endpoint, "https://")
		return verdict{exitFailed, where.Endpoint + " is answered without encryption", []string{"is " + plain + " meant? A server speaks https only behind a proxy that does"}}, true
	}
	if dir, ok := errors.AsType[*client.StoreDirError](err); ok {
		return verdict{exitFailed, dir.Error(), []string{
			fmt.Sprintf("create a cache for that store with \"celler cache create NAME --store-dir %s\"", dir.Path.Dir()),
		}}, true
	}
	if missing, ok := errors.AsType[*missingPathsError](err); ok {
		return verdict{exitFailed, missing.Error(), []string{fmt.Sprintf("nothing was deleted; \"celler path list %s\" says what there is", refOf(where))}}, true
	}
	if pin, ok := errors.AsType[*client.CannotPinError](err); ok {
		if pin.Right {
			return verdict{exitFailed, pin.Error(), []string{fmt.Sprintf("make a token that has it: \"celler token create --sub NAME --push %[1]s --pull %[1]s --pin %[1]s\"", pin.Cache)}}, true
		}
		return verdict{exitFailed, pin.Error(), []string{"it is an older celler, or another program; push without --pin"}}, true
	}
	if damaged, ok := errors.AsType[*client.DamagedError](err); ok {
		return verdict{exitFailed, damaged.Error(), []string{
			fmt.Sprintf("check it with \"nix-store --verify-path %[1]s\", repair it with \"nix-store --repair-path %[1]s\"", damaged.Path),
		}}, true
	}
	if errors.Is(err, client.ErrNotValid) {
		return verdict{exitFailed, err.Error(), []string{"the local Nix store does not have it: build or fetch it first"}}, true
	}
	return verdict{}, false
}

// explainStatus explains an answer of a server.
func explainStatus(where config.Remote, e *client.StatusError) verdict {
	cache := "the cache"
	if where.Cache != "" {
		cache = fmt.Sprintf("cache %q", where.Cache)
	}
	failed := func(sentence string, hints ...string) verdict { return verdict{exitFailed, sentence, hints} }
	switch {
	case e.Name == client.NoSuchCache:
		return failed(cache+" does not exist", fmt.Sprintf("create it with \"celler cache create %s\"", refOf(where)))
	case e.Name == client.NoSuchObject:
		return failed("the path is not in "+cache, fmt.Sprintf("\"celler path list %s\" says what there is", refOf(where)))
	case e.Name == client.NoSuchPin:
		return failed(cache+" has no such pin", fmt.Sprintf("\"celler pin list %s\" says which there are", refOf(where)))
	case e.Name == client.PathIsPinned:
		return failed(lowerFirst(strings.TrimSuffix(e.Message, ".")), fmt.Sprintf("remove the pin with \"celler pin remove %s NAME\", or move it, and delete the path then", refOf(where)))
	case e.Name == client.CacheAlreadyExists:
		return failed(cache+" exists already", fmt.Sprintf("to change it, use \"celler cache configure %s\"", refOf(where)))
	case (e.Status == 401 || e.Status == 403) && where.Token == "":
		return failed(fmt.Sprintf("%s wants a token for %s, and there is none", where.Endpoint, cache),
			`log in with "celler login NAME `+where.Endpoint+` --token-stdin", or set CELLER_TOKEN`)
	case e.Status == 401:
		return failed(fmt.Sprintf("%s does not accept the token for %s: it is wrong, or expired, or has no right there", where.Endpoint, cache),
			"see what it says with "+inspectOf(where), `log in again with "celler login NAME `+where.Endpoint+` --token-stdin"`)
	case e.Status == 403:
		return failed("the token does not allow this on "+cache, "see what it allows with "+inspectOf(where))
	case e.Status == 404:
		sentence := fmt.Sprintf("%s does not know %s %s", where.Endpoint, e.Method, e.Path)
		if root := rootOf(where.Endpoint); root != where.Endpoint {
			return failed(sentence, fmt.Sprintf("is %s the server's address? What follows it is the name of a cache, and nothing else", root))
		}
		return failed(sentence, "not every server of Attic's kind can do this; is it celler?")
	case e.Status == 413 && e.Name == client.TooLarge:
		return failed(lowerFirst(strings.TrimSuffix(e.Message, ".")))
	case e.Status == 413:
		return failed(fmt.Sprintf("something in front of %s limits how large a request may be", where.Endpoint), "raise the proxy's limit for request bodies, or push to the server directly")
	}
	if e.Status == 507 {
		return failed(e.Error(), "make room where "+where.Endpoint+" keeps its bucket, and try again")
	}
	return failed(e.Error())
}

// rootOf is the URL of the machine that an endpoint is on.
func rootOf(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" {
		return endpoint
	}
	return u.Scheme + "://" + u.Host + "/"
}

// refOf is how a command that is meant for the same cache names it.
func refOf(where config.Remote) string {
	if where.Ref == "" {
		return "NAME"
	}
	return where.Ref
}

// inspectOf is the command that shows the token that was used.
func inspectOf(where config.Remote) string {
	if where.Name == "" {
		return `"celler token inspect"`
	}
	return fmt.Sprintf("\"celler token inspect --server %s\"", where.Name)
}
