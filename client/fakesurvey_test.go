package client

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/celler/celler/httpapi/wire"
	"github.com/celler/celler/nix"
)

// surveyServer is a deltaServer that answers questions about closures, over the references
// that a store knows.
type surveyServer struct {
	*deltaServer
	refs      map[string][]nix.StorePath
	asked     []int // how many paths each question was about
	unwalked  bool  // it says nothing of closures
	pretended map[string]bool
}

func newSurveyServer(t *testing.T, s *fakeStore) *surveyServer {
	t.Helper()
	f := &surveyServer{deltaServer: newDeltaServer(t), refs: map[string][]nix.StorePath{}, pretended: map[string]bool{}}
	f.config.Celler.Closures = true
	f.know(s)
	f.meddle = func(call string, _ int, w http.ResponseWriter, body []byte) bool {
		if call == "paths" {
			f.paths(w, body)
		}
		return call == "paths"
	}
	return f
}

func (f *surveyServer) know(s *fakeStore) {
	for _, info := range s.infos {
		f.refs[info.StorePath.Base()] = info.References
	}
}

func (f *surveyServer) paths(w http.ResponseWriter, body []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	bases := map[nix.HashPart]string{}
	for base := range f.refs {
		path, _ := nix.ParseStorePathBase("/nix/store", base)
		bases[path.HashPart()] = base
	}
	asked, err := wire.ReadHashParts(strings.NewReader(string(body)), wire.DeltaQueryPaths)
	if err != nil {
		refuse(w, http.StatusBadRequest, wire.ErrorRequest, err.Error())
		return
	}
	f.asked = append(f.asked, len(asked))
	result := wire.PathsResult{Missing: wire.MakeBitmap(len(asked)), Closure: &wire.Closure{}}
	seen := map[nix.HashPart]bool{}
	var todo, absent []nix.HashPart
	for i, hashPart := range asked {
		seen[hashPart] = true
		if base := bases[hashPart]; f.have[base] || f.pretended[base] {
			todo = append(todo, hashPart)
		} else {
			result.Missing.Set(i)
		}
	}
	for len(todo) > 0 {
		base := bases[todo[0]]
		todo = todo[1:]
		result.Closure.Paths++
		for _, ref := range f.refs[base] {
			switch to := ref.HashPart(); {
			case seen[to]:
				continue
			case f.have[ref.Base()] || f.pretended[ref.Base()]:
				todo = append(todo, to)
			default:
				absent = append(absent, to)
			}
			seen[ref.HashPart()] = true
		}
	}
	if len(absent) > 0 {
		result.Closure.Absent, result.Closure.AbsentSum = len(absent), wire.AbsentSum(absent)
	}
	if f.unwalked {
		result.Closure = nil
	}
	_ = json.NewEncoder(w).Encode(result)
}

// layers makes a closure of levels with as many paths each, every one of which refers to
// some of the level below, and one root.
func layers(s *fakeStore, name string, levels, width int, below []nix.StorePath) []nix.StorePath {
	for l := range levels {
		var level []nix.StorePath
		for i := range width {
			p := mkPath(fmt.Sprintf("%s-%d-%d", name, l, i))
			var refs []nix.StorePath
			if len(below) > 0 {
				refs = []nix.StorePath{below[i%len(below)], below[(i*7+1)%len(below)]}
			}
			s.addPath(p, []byte(p.Base()), append(refs, p)...) // it refers to itself as well
			level = append(level, p)
		}
		below = level
	}
	return below
}

func (s *fakeStore) top(name string, refs ...nix.StorePath) {
	p := mkPath(name)
	s.addPath(p, []byte(p.Base()), refs...)
}

func (f *surveyServer) takeAll(s *fakeStore) {
	for _, info := range s.infos {
		f.have[info.StorePath.Base()] = true
	}
}
