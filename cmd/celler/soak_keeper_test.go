//go:build soak

package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/celler/celler/nix"
	"github.com/celler/celler/nix/nixtest"
)

const (
	// soakRetention is that of the cache "fading". Ages are counted in store days, which
	// are a minute long with a retention this short, so a path lives for two or three.
	soakRetention = time.Minute
	// soakLong is how long a run must be for paths to fade in it.
	soakLong = 8 * time.Minute
)

// soakKeeper pushes to a cache in which nothing stays for long that is not pinned, or
// referred to by what is, and wants to see all that must be there.
type soakKeeper struct {
	*soakClient
	paths []soakKept

	secret string // a path that should not have been pushed; "" if there is none

	add func(what string, n int)
}

// soakKept is a path that was acknowledged. It refers to the one before it, but for
// every third.
type soakKept struct {
	name   string
	base   string
	pushed time.Duration // when
	pin    string        // that holds it; "" if none does, or maybe none
	gone   bool          // seen to be gone
}

func newSoakKeeper(store *soakStore, seed uint64, add func(what string, n int)) *soakKeeper {
	return &soakKeeper{add: add, soakClient: &soakClient{soakStore: store, id: 900, http: store.rig.http, rng: rand.New(rand.NewPCG(seed, 4)), shy: map[*soakServer]time.Duration{}}}
}

func (k *soakKeeper) run(ctx context.Context) {
	for step := 0; pause(ctx, time.Duration(100+k.rng.IntN(600))*time.Millisecond); step++ {
		switch {
		case len(k.paths) < 6 || step%10 < 3:
			k.push(k.choose())
		case step%10 == 3 || step%10 == 6:
			k.purge(k.choose())
		case step%20 == 8:
			k.unpin(k.choose())
		default:
			k.look(k.choose(), k.rng.IntN(len(k.paths)))
		}
	}
}

// push pushes the next path; of every three, the last is pinned by the same request.
func (k *soakKeeper) push(s *soakServer) {
	n := len(k.paths)
	p := soakKept{name: fmt.Sprintf("kept-%d-%d", n, k.n), pushed: k.history.now()}
	extra := map[string]any{}
	if n%3 > 0 {
		extra["references"] = []string{k.paths[n-1].base}
	}
	if n%3 == 2 {
		p.pin = p.name
		extra["pin"] = map[string]any{"name": p.pin, "policy": map[string]any{"keep_forever": true}}
	}
	var ok bool
	if p.base, ok = k.upload(s, p.name, extra); !ok {
		return // if it happened after all, nobody will miss it
	}
	k.paths = append(k.paths, p)
	if p.pin != "" {
		k.add("paths pinned", 1)
	}
}

// upload pushes a path of this name, and returns its base name and whether that was
// acknowledged.
func (k *soakKeeper) upload(s *soakServer, name string, extra map[string]any) (string, bool) {
	k.n++
	nar := soakNAR(k.t, k.rng, name)
	hash := nix.SHA256Hash(sha256.Sum256(nar))
	sp := nixtest.MkStorePath(k.t, name)
	info := map[string]any{
		"cache": "fading", "store_path_hash": sp.HashPart().String(), "store_path": sp.String(), "references": []string{},
		"system": nil, "deriver": nil, "sigs": []string{}, "ca": nil, "nar_hash": hash.String(), "nar_size": len(nar),
	}
	maps.Copy(info, extra)
	text, err := json.Marshal(info)
	if err != nil {
		panic(err)
	}
	res, body, err := k.call(http.MethodPut, s, "/_api/v1/upload-path", nar, map[string]string{"X-Celler-Nar-Info": string(text)})
	return sp.Base(), k.answered("keeper's push", res, body, err, http.StatusOK)
}

// purge pushes a path that should not have been pushed, or deletes the last one with its
// bytes.
func (k *soakKeeper) purge(s *soakServer) {
	if k.secret == "" {
		name := fmt.Sprintf("secret-%d", k.n)
		if _, ok := k.upload(s, name, nil); ok {
			k.secret = name
		}
		return
	}
	body, err := json.Marshal(map[string]any{"paths": []string{k.hashPart(k.secret)}, "now": true})
	if err != nil {
		panic(err)
	}
	res, text, err := k.call(http.MethodPost, s, "/_api/v1/caches/fading/delete-paths", body, map[string]string{"Content-Type": "application/json"})
	// If an earlier attempt was not answered, this one may find nothing.
	if k.answered("keeper's deletion", res, text, err, http.StatusOK, http.StatusNotFound) {
		k.secret = ""
		k.add("paths deleted now", 1)
	}
}

// unpin removes the pin of some path. Without an answer nobody knows whether it holds
// the path any longer.
func (k *soakKeeper) unpin(s *soakServer) {
	var pinned []*soakKept
	for i := range k.paths {
		if k.paths[i].pin != "" {
			pinned = append(pinned, &k.paths[i])
		}
	}
	if len(pinned) < 2 {
		return
	}
	p := pinned[k.rng.IntN(len(pinned))]
	name := p.pin
	p.pin = ""
	res, body, err := k.call(http.MethodDelete, s, "/_api/v1/caches/fading/pins/"+name, nil, nil)
	if k.answered("keeper's unpin", res, body, err, http.StatusOK, http.StatusNoContent) {
		k.add("pins removed", 1)
	}
}

// held reports whether path i must be there: it is new, or in the closure of a pin.
func (k *soakKeeper) held(i int) (held, pinned bool) {
	last := i - i%3 + 2 // the only one of its three that may be pinned refers to the two before it
	if last < len(k.paths) && k.paths[last].pin != "" {
		return true, true
	}
	return k.history.now()-k.paths[i].pushed < soakRetention-soakSlack, false
}

// look reads path i, byte for byte, if it is there.
func (k *soakKeeper) look(s *soakServer, i int) {
	p := &k.paths[i]
	url := "/fading/" + k.hashPart(p.name)
	res, text, err := k.call(http.MethodGet, s, url+".narinfo", nil, nil)
	held, pinned := k.held(i)
	if !k.answered("keeper's narinfo", res, text, err, http.StatusOK, http.StatusNotFound) {
		return
	}
	if res.StatusCode == http.StatusNotFound {
		if held {
			k.bad("%s has gone, %v after it was pushed; pinned: %v", p.name, k.history.now()-p.pushed, pinned)
		} else if !p.gone {
			p.gone = true
			k.add("paths faded", 1)
		}
		return
	}
	info, err := nix.ParseNarInfo(text)
	if err != nil {
		k.bad("narinfo of %s: %v", p.name, err)
		return
	}
	res, body, err := k.call(http.MethodGet, s, "/fading/"+info.URL, nil, nil)
	if !k.answered("keeper's NAR", res, body, err, http.StatusOK) {
		return
	}
	if err := checkSoakNAR(body, info); err != nil {
		k.bad("NAR of %s: %v", p.name, err)
		return
	}
	if pinned {
		k.add("pinned paths read", 1)
	}
}

// readPinned reads every path from a server that is in nobody's way.
func (k *soakKeeper) readPinned(s *soakServer) {
	for i := range k.paths {
		k.look(s, i)
	}
}
