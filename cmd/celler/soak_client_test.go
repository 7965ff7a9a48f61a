//go:build soak

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/celler/celler/nix"
	"github.com/celler/celler/nix/nixtest"
)

const (
	// soakStaleness is how old a hit may be, and slack what a server may need to notice.
	soakStaleness = 5 * time.Second
	soakSlack     = time.Second
	// soakNarGrace is for how long a NAR can be fetched after its path has gone.
	soakNarGrace = 15 * time.Second
	// soakGeneration is for how long a set of paths is fought over. A history that is
	// short can be judged.
	soakGeneration = 8 * time.Second
	soakPaths      = 6
)

// soakStore is what the clients share: the NARs they pushed, by NAR hash.
type soakStore struct {
	rig     *soakRig
	t       *testing.T
	servers []*soakServer
	history *soakHistory
	cache   string

	mu       sync.Mutex // guards below
	versions map[string]string
	faults   map[string]int // requests that came to nothing, by why
	nars     int            // that were downloaded and compared
	wrong    []string       // what must never happen
}

func (s *soakStore) fault(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[why]++
}

func (s *soakStore) bad(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrong = append(s.wrong, fmt.Sprintf(format, args...))
}

// soakClient does one thing after the other.
type soakClient struct {
	*soakStore
	id   int
	rng  *rand.Rand
	n    int
	http *http.Client
	shy  map[*soakServer]time.Duration // until when a server is better left alone

	wrote     uint64        // slot of the last change that was acknowledged
	wroteCall time.Duration // when it was called
}

// run does things until ctx ends. What is in flight then is finished.
func (c *soakClient) run(ctx context.Context) {
	for ctx.Err() == nil {
		generation := int(c.history.now() / soakGeneration)
		old := generation > 0 && c.rng.IntN(8) == 0
		if old {
			generation = c.rng.IntN(generation)
		}
		path := c.history.turn(fmt.Sprintf("g%d-p%d", generation, c.rng.IntN(soakPaths)))
		server := c.choose()
		switch k := c.rng.IntN(100); {
		case old && k < 25:
			c.missing(server, path)
		case old:
			c.read(server, path)
		case k < 35:
			c.push(server, path)
		case k < 45:
			c.remove(server, path)
		case k < 60:
			c.missing(server, path)
		default:
			c.read(server, path)
		}
		c.n++
	}
}

// choose picks a server, rarely one that left a request unanswered just now: waiting
// for one that is stopped is not all that clients should do.
func (c *soakClient) choose() *soakServer {
	for range 20 {
		server := c.servers[c.rng.IntN(len(c.servers))]
		if c.history.now() >= c.shy[server] || c.rng.IntN(20) == 0 {
			return server
		}
	}
	return c.servers[0]
}

func (c *soakClient) hashPart(path string) string {
	return nixtest.MkStorePath(c.t, path).HashPart().String()
}

// call makes a request and reads the whole answer.
func (c *soakClient) call(method string, s *soakServer, path string, body []byte, header map[string]string) (*http.Response, []byte, error) {
	req, err := http.NewRequest(method, "http://"+s.addr+path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.rig.token)
	for k, v := range header {
		req.Header.Set(k, v)
	}
	res, err := c.http.Do(req)
	if err != nil {
		if c.shy != nil {
			c.shy[s] = c.history.now() + 2*time.Second
		}
		return nil, nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if res.StatusCode == http.StatusServiceUnavailable && c.shy != nil {
		c.shy[s] = c.history.now() + 300*time.Millisecond
	}
	return res, text, err
}

// settle completes a change with what was answered. Who says that nothing was changed
// is taken at their word.
func (c *soakClient) settle(o soakOp, res *http.Response, text []byte, err error) {
	o.ret = c.history.now()
	switch {
	case err != nil:
		o.unknown = true
		c.fault(string(o.verb) + ": no answer")
	case res.StatusCode == http.StatusOK || res.StatusCode == http.StatusNoContent:
		if seq, err := strconv.ParseUint(res.Header.Get("Celler-Seq"), 10, 64); err == nil {
			c.wrote, c.wroteCall = seq, o.call
		} else {
			c.bad("%s of %s: acknowledged without a slot: %v", o.verb, o.path, res.Header)
		}
	case res.StatusCode == http.StatusNotFound && o.verb == didRemove:
		o.verb = sawNone
	case refused(res, text):
		c.fault(string(o.verb) + ": 503, nothing was changed")
		return
	case res.StatusCode >= http.StatusInternalServerError:
		o.unknown = true
		c.fault(fmt.Sprintf("%s: %d", o.verb, res.StatusCode))
	default:
		c.bad("%s of %s: %s: %s", o.verb, o.path, res.Status, text)
		return
	}
	if o.unknown {
		o.client = 1000 + 1000*c.id + c.n // this client's ends here
	}
	c.history.add(o)
}

// refused reports an answer that says that nothing was changed, or that the server does
// not even look at requests at the moment.
func refused(res *http.Response, text []byte) bool {
	return res.StatusCode == http.StatusServiceUnavailable &&
		(bytes.Contains(text, []byte("nothing was changed")) || bytes.Contains(text, []byte("has not reached its bucket")))
}

func (c *soakClient) push(s *soakServer, path string) {
	version := fmt.Sprintf("c%d.%d", c.id, c.n)
	nar := soakNAR(c.t, c.rng, version)
	sum := sha256.Sum256(nar)
	hash := nix.SHA256Hash(sum)
	c.mu.Lock()
	c.versions[hash.String()] = version
	c.mu.Unlock()
	sp := nixtest.MkStorePath(c.t, path)
	info, err := json.Marshal(map[string]any{
		"cache": c.cache, "store_path_hash": sp.HashPart().String(), "store_path": sp.String(), "references": []string{sp.Base()},
		"system": nil, "deriver": nil, "sigs": []string{}, "ca": nil, "nar_hash": hash.String(), "nar_size": len(nar),
	})
	if err != nil {
		panic(err)
	}
	o := soakOp{client: c.id, verb: didPush, path: path, version: version, call: c.history.now()}
	res, text, err := c.call(http.MethodPut, s, "/_api/v1/upload-path", nar, map[string]string{"X-Celler-Nar-Info": string(info)})
	c.settle(o, res, text, err)
}

func (c *soakClient) remove(s *soakServer, path string) {
	o := soakOp{client: c.id, verb: didRemove, path: path, call: c.history.now()}
	res, text, err := c.call(http.MethodDelete, s, "/_api/v1/caches/"+c.cache+"/paths/"+c.hashPart(path), nil, nil)
	c.settle(o, res, text, err)
}

// missing asks as a pusher does. Both answers are as fresh as the question.
func (c *soakClient) missing(s *soakServer, path string) {
	body, err := json.Marshal(map[string]any{"cache": c.cache, "store_path_hashes": []string{c.hashPart(path)}})
	if err != nil {
		panic(err)
	}
	o := soakOp{client: c.id, verb: sawSome, path: path, call: c.history.now()}
	res, text, err := c.call(http.MethodPost, s, "/_api/v1/get-missing-paths", body, map[string]string{"Content-Type": "application/json"})
	o.ret = c.history.now()
	if !c.answered("missing", res, text, err, http.StatusOK) {
		return
	}
	var answer struct {
		Missing []string `json:"missing_paths"`
	}
	if err := json.Unmarshal(text, &answer); err != nil || len(answer.Missing) > 1 {
		c.bad("get-missing-paths answered %s", text)
	}
	if len(answer.Missing) == 1 {
		o.verb = sawNone
	}
	c.history.add(o)
}

// answered reports whether there is an answer of one of the wanted kinds, and
// otherwise takes note of what there was instead.
func (c *soakClient) answered(what string, res *http.Response, text []byte, err error, want ...int) bool {
	switch {
	case err != nil:
		c.fault(what + ": no answer")
	case slices.Contains(want, res.StatusCode):
		return true
	case res.StatusCode >= http.StatusInternalServerError:
		c.fault(fmt.Sprintf("%s: %d", what, res.StatusCode))
	default:
		c.bad("%s: %s: %s", what, res.Status, text)
	}
	return false
}

// read asks for a narinfo and then for its NAR. A hit may be as old as soakStaleness, but
// never older than a change of ours that we name; a denial may not be old at all.
func (c *soakClient) read(s *soakServer, path string) {
	header := map[string]string{}
	o := soakOp{client: c.id, verb: saw, path: path, call: c.history.now()}
	oldest := o.call - soakStaleness - soakSlack
	if c.wrote > 0 && c.rng.IntN(2) == 0 {
		header["Celler-Min-Seq"] = strconv.FormatUint(c.wrote, 10)
		oldest = max(oldest, c.wroteCall)
	}
	res, text, err := c.call(http.MethodGet, s, "/"+c.cache+"/"+c.hashPart(path)+".narinfo", nil, header)
	o.ret = c.history.now()
	if !c.answered("narinfo", res, text, err, http.StatusOK, http.StatusNotFound) {
		return
	}
	if res.StatusCode == http.StatusNotFound {
		o.verb = sawNone
		c.history.add(o)
		return
	}
	info, err := nix.ParseNarInfo(text)
	if err != nil {
		c.bad("narinfo of %s: %v:\n%s", path, err, text)
		return
	}
	o.version, o.call = c.version(info.NarHash), oldest
	c.history.add(o)
	c.download(s, &o, info)
}

func (c *soakClient) version(hash nix.Hash) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v, ok := c.versions[hash.String()]; ok {
		return v
	}
	return "a NAR nobody pushed: " + hash.String()
}

// download wants the NAR that a narinfo named byte for byte, even if the path has gone
// since: it may be denied only once the grace is over.
func (c *soakClient) download(s *soakServer, hit *soakOp, info *nix.NarInfo) {
	res, body, err := c.call(http.MethodGet, s, "/"+c.cache+"/"+info.URL, nil, nil)
	if !c.answered("NAR", res, body, err, http.StatusOK, http.StatusNotFound) {
		return
	}
	if res.StatusCode == http.StatusNotFound {
		if age := c.history.now() - hit.call; age < soakNarGrace-soakSlack {
			c.bad("NAR of %s, version %s, from %s: denied %v after the path was last there: %s", hit.path, hit.version, s.name, age, body)
		}
		return
	}
	if err := checkSoakNAR(body, info); err != nil {
		c.bad("NAR of %s, version %s, from %s: %v", hit.path, hit.version, s.name, err)
		return
	}
	c.mu.Lock()
	c.nars++
	c.mu.Unlock()
}

// readAll reads every path that ever was through one server that nothing is hidden from,
// and adds what is there to the history: it must be what the history says.
func (s *soakStore) readAll(server *soakServer) (live int, err error) {
	c := &soakClient{soakStore: s, id: 999999, http: s.rig.http, rng: rand.New(rand.NewPCG(1, 1))}
	for _, path := range s.history.paths() {
		o := soakOp{client: c.id, verb: saw, path: path, call: s.history.now()}
		res, text, err := c.call(http.MethodGet, server, "/"+s.cache+"/"+c.hashPart(path)+".narinfo", nil, nil)
		o.ret = s.history.now()
		if err != nil {
			return live, err
		}
		switch res.StatusCode {
		case http.StatusNotFound:
			o.verb = sawNone
		case http.StatusOK:
			info, err := nix.ParseNarInfo(text)
			if err != nil {
				return live, err
			}
			o.version = c.version(info.NarHash)
			res, body, err := c.call(http.MethodGet, server, "/"+s.cache+"/"+info.URL, nil, nil)
			if err != nil {
				return live, err
			}
			if res.StatusCode != http.StatusOK {
				err = fmt.Errorf("%s: %s", res.Status, body)
			} else {
				err = checkSoakNAR(body, info)
			}
			if err != nil {
				s.bad("at the end: NAR of %s: %v", path, err)
			}
			live++
		default:
			return live, fmt.Errorf("narinfo of %s: %s: %s", path, res.Status, text)
		}
		s.history.add(o)
	}
	return live, nil
}

// tally prints counters in order of their names.
func tally(m map[string]int) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s %d", k, m[k]))
	}
	return strings.Join(parts, ", ")
}
