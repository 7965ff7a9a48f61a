package repolint

import (
	"go/ast"
	"go/token"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// maxLines is the hard limit; a file over 400 lines is already asking to be two.
const maxLines = 800

func TestFileLength(t *testing.T) {
	for name, text := range mustGoFiles(t) {
		if n := strings.Count(text, "\n"); n > maxLines {
			t.Errorf("%s has %d lines, more than %d: a file holds one concept; find the second one and move it out", name, n, maxLines)
		}
	}
}

func TestTODO(t *testing.T) {
	bare := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b(\(#\d+\))?`)
	for name, text := range mustGoFiles(t) {
		for i, line := range strings.Split(text, "\n") {
			if m := bare.FindStringSubmatch(line); m != nil && m[2] == "" && strings.Contains(line, "//") {
				t.Errorf("%s:%d: %s without an issue: write %s(#12), or do it", name, i+1, m[1], m[1])
			}
		}
	}
}

func TestExportedDocumented(t *testing.T) {
	for _, p := range mustTree(t) {
		if p.Name == "main" {
			continue
		}
		for name, f := range p.files {
			for _, decl := range f.Decls {
				for _, missing := range undocumented(decl) {
					t.Errorf("%s/%s: exported %s has no comment: say what it promises, or unexport it", p.folder, name, missing)
				}
			}
		}
	}
}

func undocumented(decl ast.Decl) []string {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if !d.Name.IsExported() || d.Doc != nil || (d.Recv != nil && !exportedReceiver(d.Recv)) || implementsStd(d) {
			return nil
		}
		return []string{d.Name.Name}
	case *ast.GenDecl:
		if d.Doc != nil && d.Tok != token.TYPE {
			return nil // one comment may speak for a block of constants
		}
		var missing []string
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() && s.Doc == nil && d.Doc == nil {
					missing = append(missing, s.Name.Name)
				}
			case *ast.ValueSpec:
				for _, id := range s.Names {
					if id.IsExported() && s.Doc == nil && s.Comment == nil {
						missing = append(missing, id.Name)
					}
				}
			}
		}
		return missing
	}
	return nil
}

// implementsStd reports methods whose meaning the standard library fixes, so
// that a comment could only repeat it.
func implementsStd(d *ast.FuncDecl) bool {
	return d.Recv != nil && slices.Contains([]string{
		"Error", "Unwrap", "Is", "String", "Len", "Less", "Swap", "Close", "Read", "Write", "Seek", "ReadAt",
		"MarshalJSON", "UnmarshalJSON", "MarshalText", "UnmarshalText", "AppendText",
		"Enabled", "Handle", "WithAttrs", "WithGroup", "ServeHTTP", "RoundTrip",
	}, d.Name.Name)
}

func exportedReceiver(recv *ast.FieldList) bool {
	typ := recv.List[0].Type
	for {
		switch x := typ.(type) {
		case *ast.StarExpr:
			typ = x.X
		case *ast.IndexExpr:
			typ = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return false
		}
	}
}

// TestGoroutines wants every go statement in goroutines.go, so that starting one
// is a decision with an owner.
func TestGoroutines(t *testing.T) {
	listed := goroutines()
	seen := map[string]bool{}
	for _, p := range mustTree(t) {
		if slices.Contains(testOnly(), p.folder) {
			continue
		}
		for name, f := range p.files {
			for _, decl := range f.Decls {
				fn, ok := decl.(*ast.FuncDecl)
				if !ok || fn.Body == nil {
					continue
				}
				ast.Inspect(fn.Body, func(n ast.Node) bool {
					if !startsGoroutine(n) {
						return true
					}
					key := p.folder + "/" + name + " " + fn.Name.Name
					seen[key] = true
					if listed[key] == "" {
						t.Errorf("%s: a goroutine is started: who waits for it? Add %q to goroutines.go with the answer", fset.Position(n.Pos()), key)
					}
					return true
				})
			}
		}
	}
	for key := range listed {
		if !seen[key] {
			t.Errorf("goroutines.go lists %q, which starts none: delete the line", key)
		}
	}
}

// startsGoroutine reports go statements, and calls of a method Go, as WaitGroup and
// errgroup have it.
func startsGoroutine(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.GoStmt:
		return true
	case *ast.CallExpr:
		sel, ok := n.Fun.(*ast.SelectorExpr)
		return ok && sel.Sel.Name == "Go" && len(n.Args) == 1
	}
	return false
}

// Words that already have a name here (DESIGN.md, glossary): a second one for the
// same thing, or the same one for a second thing, is how readers get lost.
var (
	neverExact = map[string]string{
		"Blob": "Object or Chunk", "Block": "Chunk", "Piece": "Chunk", "Part": "Chunk", "Bundle": "Pack",
		"Archive": "NAR", "Backend": "Bucket", "Storage": "Bucket", "LSN": "Seq", "TxID": "Seq", "Journal": "Tail",
		"Remainder": "Tail", "Term": "Epoch", "Generation": "Epoch", "Lease": "Epoch", "Checkpoint": "Snapshot",
		"Backup": "Snapshot", "Horizon": "Floor", "Level": "Run", "TTL": "Retention", "Scope": "Grant", "Tag": "Pin (but blob.Tag)",
		"Instance": "Node", "Server": "Node", "Replica": "Node", "Digest": "Hash (but wal.Digest)", "StoreHash": "HashPart", "PathHash": "HashPart",
	}
	neverWithin = map[string]string{
		"Manifest": "Recipe, ROOT or NarInfo", "Tarball": "NAR", "Superblock": "ROOT", "Watermark": "Floor",
		"NARInfo": "NarInfo", "NARHash": "NarHash", "NARSize": "NarSize", "PermissionSet": "Grant",
	}
	neverExcept = []string{"blob.Tag", "wal.Digest", "config.Server"} // Server: the word of the client file, [servers.NAME]
)

func TestNouns(t *testing.T) {
	for _, p := range mustTree(t) {
		for name, f := range p.files {
			for _, id := range exportedNames(f) {
				use := neverExact[id]
				for word, instead := range neverWithin {
					if strings.Contains(id, word) {
						use = instead
					}
				}
				if use != "" && !slices.Contains(neverExcept, p.Name+"."+id) {
					t.Errorf("%s/%s: exported %s: the word here is %s (DESIGN.md, glossary)", p.folder, name, id, use)
				}
			}
		}
	}
}

func exportedNames(f *ast.File) []string {
	var names []string
	for _, decl := range f.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil && d.Name.IsExported() {
				names = append(names, d.Name.Name)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch s := spec.(type) {
				case *ast.TypeSpec:
					if s.Name.IsExported() {
						names = append(names, s.Name.Name)
					}
				case *ast.ValueSpec:
					for _, id := range s.Names {
						if id.IsExported() {
							names = append(names, id.Name)
						}
					}
				}
			}
		}
	}
	return names
}

// TestPackageNames refuses names that attract everything.
func TestPackageNames(t *testing.T) {
	for _, p := range mustTree(t) {
		if slices.Contains([]string{"util", "utils", "common", "helpers", "types", "models", "pkg", "misc", "base"}, path.Base(p.folder)) {
			t.Errorf("%s: a package is one noun or one technology, not a drawer", p.folder)
		}
	}
}

// decoderExempt are functions named like decoders that read nothing from outside,
// with the reason.
func decoderExempt() map[string]string {
	return map[string]string{}
}

// TestDecodersFuzzed wants every exported Decode… and Parse… function reached by a
// fuzz target of its package: named in a file that holds one, or called on the way.
func TestDecodersFuzzed(t *testing.T) {
	files := mustGoFiles(t)
	decoder := regexp.MustCompile(`^(Decode|Parse)([A-Z]|$)`)
	word := regexp.MustCompile(`\b[A-Za-z_][A-Za-z0-9_]*\b`)
	exempt, used := decoderExempt(), map[string]bool{}
	for _, p := range mustTree(t) {
		if p.Name == "main" || slices.Contains(testOnly(), p.folder) {
			continue
		}
		reached := map[string]bool{}
		for name, text := range files {
			if isTest(name) && path.Dir(name) == p.folder && strings.Contains(text, "\nfunc Fuzz") {
				for _, w := range word.FindAllString(text, -1) {
					reached[w] = true
				}
			}
		}
		follow(p, reached)
		for name, f := range p.files {
			for _, decl := range f.Decls {
				fn, ok := decl.(*ast.FuncDecl)
				if !ok || !decoder.MatchString(fn.Name.Name) || reached[fn.Name.Name] {
					continue
				}
				key := p.folder + "." + fn.Name.Name
				if used[key] = true; exempt[key] == "" {
					t.Errorf("%s/%s: no fuzz target reaches %s: it must never panic, never allocate by an unchecked length, and give back what was encoded", p.folder, name, fn.Name.Name)
				}
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(exempt)) {
		if !used[key] {
			t.Errorf("decoderExempt lists %s, which is fuzzed or gone: delete the line", key)
		}
	}
}

// follow adds to reached what the functions in it mention, and what those mention.
func follow(p *pkg, reached map[string]bool) {
	mentions := map[string][]string{}
	for _, f := range p.files {
		for _, decl := range f.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Body != nil {
				ast.Inspect(fn.Body, func(n ast.Node) bool {
					if id, ok := n.(*ast.Ident); ok {
						mentions[fn.Name.Name] = append(mentions[fn.Name.Name], id.Name)
					}
					return true
				})
			}
		}
	}
	queue := slices.Collect(maps.Keys(reached))
	for len(queue) > 0 {
		name := queue[0]
		queue = queue[1:]
		for _, next := range mentions[name] {
			if !reached[next] && mentions[next] != nil {
				reached[next] = true
				queue = append(queue, next)
			}
		}
	}
}

// TestEdges wants the clock, the environment and standard output touched only
// where a process meets the world.
func TestEdges(t *testing.T) {
	rules := []struct {
		call    *regexp.Regexp
		allowed []string
		remedy  string
	}{
		{regexp.MustCompile(`\btime\.Now\(`), []string{"cmd/celler", "internal/node", "internal/telemetry", "blob/observe.go", "blob/s3blob/transport.go"}, "take now as a parameter, or Now from Options"},
		{regexp.MustCompile(`\bos\.(Getenv|LookupEnv|Environ)\(`), []string{"internal/config", "internal/repolint"}, "only internal/config reads the environment"},
		{regexp.MustCompile(`\bfmt\.Print(f|ln)?\(`), []string{"cmd/celler", "internal/ui"}, "only commands print"},
		{regexp.MustCompile(`\bslog\.(Default|SetDefault)\(`), nil, "take the logger from Options"},
		{regexp.MustCompile(`(?m)^func init\(\)`), nil, "no init: do it in a constructor"},
	}
	for name, text := range mustGoFiles(t) {
		folder := path.Dir(name)
		if isTest(name) || slices.Contains(testOnly(), folder) || strings.HasPrefix(folder, "scripts") || strings.HasPrefix(folder, "tools") {
			continue
		}
		for i, line := range strings.Split(text, "\n") {
			code, _, _ := strings.Cut(line, "//")
			for _, rule := range rules {
				if rule.call.MatchString(code) && !slices.Contains(rule.allowed, folder) && !slices.Contains(rule.allowed, name) {
					t.Errorf("%s:%d: %s: %s", name, i+1, strings.TrimSpace(rule.call.FindString(code)), rule.remedy)
				}
			}
		}
	}
}
