package repolint

import (
	"slices"
	"strings"
	"testing"
)

func TestCharters(t *testing.T) {
	charters := Charters()
	for _, p := range mustTree(t) {
		want, ok := charters[p.folder]
		if !ok {
			t.Errorf("%s: no charter: say in one sentence what the package is for, in charters.go and as the start of its doc.go", p.folder)
			continue
		}
		doc := strings.Join(strings.Fields(packageDoc(p)), " ")
		doc = strings.NewReplacer("[", "", "]", "").Replace(doc) // doc links are the author's choice
		if !strings.HasPrefix(doc, want) {
			t.Errorf("%s: the package comment must begin with its charter:\nwant %s\n got %.200s", p.folder, want, doc)
		}
		if _, ok := p.files["doc.go"]; !ok && p.Name != "main" {
			t.Errorf("%s: the package comment belongs in doc.go", p.folder)
		}
	}
}

func packageDoc(p *pkg) string {
	var all strings.Builder
	for _, f := range p.files {
		if f.Doc != nil {
			all.WriteString(f.Doc.Text())
		}
	}
	return all.String()
}

func TestDAG(t *testing.T) {
	allowed, charters := Allowed(), Charters()
	for _, p := range mustTree(t) {
		list, ok := allowed[p.folder]
		if !ok {
			t.Errorf("%s: not in the table of dag.go: give it a level and say what it may import", p.folder)
			continue
		}
		for _, imp := range p.Imports {
			folder, ours := strings.CutPrefix(imp, Module+"/")
			if !ours || slices.Contains(list, folder) {
				continue
			}
			t.Errorf("%s must not import %s.\nIt may import: %s.\nIts charter: %s\nMove the code to where both can reach it, or hand the value in from above.",
				p.folder, folder, strings.Join(list, ", "), charters[p.folder])
		}
	}
}

// TestDAGTable checks the table itself: known names, and no way round in a circle.
func TestDAGTable(t *testing.T) {
	allowed := Allowed()
	done := map[string]int{} // 1 on the way, 2 finished
	var walk func(folder string, trail []string)
	walk = func(folder string, trail []string) {
		if done[folder] == 1 {
			t.Fatalf("import cycle in dag.go: %s", strings.Join(append(trail, folder), " -> "))
		}
		if done[folder] == 2 {
			return
		}
		list, ok := allowed[folder]
		if !ok {
			t.Errorf("dag.go names %s, which has no line of its own", folder)
		}
		done[folder] = 1
		for _, next := range list {
			walk(next, append(trail, folder))
		}
		done[folder] = 2
	}
	for folder := range allowed {
		walk(folder, nil)
	}
}

func TestTestPackagesStayInTests(t *testing.T) {
	for _, p := range mustTree(t) {
		if slices.Contains(testOnly(), p.folder) {
			continue
		}
		for _, imp := range p.Imports {
			if folder, ours := strings.CutPrefix(imp, Module+"/"); ours && slices.Contains(testOnly(), folder) {
				t.Errorf("%s imports %s outside its tests: only _test.go files may", p.folder, folder)
			}
		}
	}
}

func TestHeavyDeps(t *testing.T) {
	pkgs := mustTree(t)
	for _, dep := range heavy() {
		for _, p := range pkgs {
			if imports(p.Imports, dep.path) && !slices.Contains(dep.owners, p.folder) {
				t.Errorf("%s imports %s: only %s may", p.folder, dep.path, strings.Join(dep.owners, ", "))
			}
			if slices.Contains(dep.never, p.folder) && imports(p.Deps, dep.path) {
				t.Errorf("%s links %s: run go mod why, and cut the arrow", p.folder, dep.path)
			}
		}
	}
	for _, p := range pkgs {
		if !slices.Contains(stdOnly(), p.folder) {
			continue
		}
		for _, dep := range p.Deps {
			if strings.Contains(strings.SplitN(dep, "/", 2)[0], ".") && !strings.HasPrefix(dep, Module) {
				t.Errorf("%s links %s: it must need nothing but the standard library", p.folder, dep)
			}
		}
	}
	for _, p := range pkgs {
		if p.folder != "client" {
			continue
		}
		for _, dep := range p.Deps {
			folder, ours := strings.CutPrefix(dep, Module+"/")
			if ours && folder != "client" && !slices.Contains(Allowed()["client"], folder) {
				t.Errorf("client links %s: it must link no package of the server", folder)
			}
		}
	}
}

func imports(list []string, prefix string) bool {
	return slices.ContainsFunc(list, func(path string) bool {
		return strings.HasPrefix(path, prefix) && !strings.HasPrefix(path, "vendor/")
	})
}
