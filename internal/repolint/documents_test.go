package repolint

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite docs/deps.txt")

// TestMetricsDocumented wants every metric name in docs/ops.md, because an
// operator reads that and not the source.
func TestMetricsDocumented(t *testing.T) {
	for file, text := range mustGoFiles(t) {
		if path.Base(file) == "metrics.go" || strings.Contains(text, "VictoriaMetrics/metrics") {
			wantInOps(t, file, text, regexp.MustCompile("[\"`](celler_[a-z0-9_]+)"), "metrics", "what each counts and when to worry")
		}
	}
}

// TestConfigDocumented wants every configuration key in docs/ops.md. What is read from
// Attic's files for migration is Attic's to document.
func TestConfigDocumented(t *testing.T) {
	for file, text := range mustGoFiles(t) {
		if path.Dir(file) == "internal/config" && path.Base(file) != "attic.go" {
			wantInOps(t, file, text, regexp.MustCompile(`(?m)toml:"([a-z][a-z0-9-]+)`), "configuration keys", "what each does, its unit and its default")
		}
	}
}

func wantInOps(t *testing.T, file, text string, name *regexp.Regexp, what, remedy string) {
	t.Helper()
	if isTest(file) || slices.Contains(testOnly(), path.Dir(file)) {
		return
	}
	ops := mustDocs(t, "docs/ops.md")
	var missing []string
	for _, m := range name.FindAllStringSubmatch(text, -1) {
		if !regexp.MustCompile(`\b` + regexp.QuoteMeta(m[1]) + `\b`).MatchString(ops) {
			missing = append(missing, m[1])
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		t.Errorf("%s: %s not in docs/ops.md, which should say %s: %s", file, what, remedy, strings.Join(slices.Compact(missing), ", "))
	}
}

// TestMagicsDocumented wants every format's magic, four ASCII bytes, in docs/formats.
func TestMagicsDocumented(t *testing.T) {
	magic := regexp.MustCompile("(?i)\\b\\w*magic\\w*\\s*(?:string)?\\s*=\\s*\"([^\"]*)\"")
	formats := mustDocs(t, "docs/formats/*.md")
	for file, text := range mustGoFiles(t) {
		if isTest(file) || path.Dir(file) == "nix/nar" || path.Dir(file) == "internal/nixstore" { // other people's formats
			continue
		}
		for _, m := range magic.FindAllStringSubmatch(text, -1) {
			if len(m[1]) != 4 {
				t.Errorf("%s: magic %q is not four ASCII bytes", file, m[1])
			}
			if !strings.Contains(formats, m[1]) {
				t.Errorf("%s: magic %q is in no document of docs/formats: a format is not done before its bytes are written down", file, m[1])
			}
		}
	}
}

// TestDeps compares docs/deps.txt with what the binary links, so that a new
// dependency is a line in a diff and not a surprise.
func TestDeps(t *testing.T) {
	direct := map[string][]string{} // dependency's package -> our packages that import it
	for _, p := range mustTree(t) {
		if slices.Contains(testOnly(), p.folder) {
			continue
		}
		for _, imp := range p.Imports {
			if strings.Contains(strings.SplitN(imp, "/", 2)[0], ".") && !strings.HasPrefix(imp, Module) {
				direct[imp] = append(direct[imp], p.folder)
			}
		}
	}
	var got strings.Builder
	got.WriteString("# Packages of others that ours import outside tests, and who imports them. Made by make gen.\n")
	for _, imp := range slices.Sorted(maps.Keys(direct)) {
		slices.Sort(direct[imp])
		fmt.Fprintf(&got, "%s  <- %s\n", imp, strings.Join(slices.Compact(direct[imp]), ", "))
	}
	const file = "../../docs/deps.txt"
	if *update {
		if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("docs/deps.txt (-) is not what the packages import (+): if you meant to add it, run make gen and say why in the commit\n%s", diff)
	}
}

// TestChangelog wants the entries of unreleased changes in the shape of the template.
func TestChangelog(t *testing.T) {
	entries, err := os.ReadDir("../../changelog/unreleased")
	if err != nil {
		t.Fatal(err)
	}
	first := regexp.MustCompile(`^(Added|Changed|Fixed|Removed|Security): \S.*\n\n`)
	for _, entry := range entries {
		text, err := os.ReadFile("../../changelog/unreleased/" + entry.Name())
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(entry.Name(), ".md") || !first.Match(text) {
			t.Errorf("changelog/unreleased/%s: the first line says Added, Changed, Fixed, Removed or Security and what, as in changelog/TEMPLATE.md", entry.Name())
		}
	}
}

// TestADRs wants every decision record in the same four parts, numbered without gaps.
func TestADRs(t *testing.T) {
	entries, err := os.ReadDir("../../docs/adr")
	if err != nil {
		t.Fatal(err)
	}
	for i, entry := range entries {
		if want := fmt.Sprintf("%04d-", i+1); !strings.HasPrefix(entry.Name(), want) {
			t.Errorf("docs/adr/%s: the next number is %s", entry.Name(), want)
		}
		text, err := os.ReadFile("../../docs/adr/" + entry.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{"\n## Context\n", "\n## Decision\n", "\n## Consequences\n", "\n## Rejected\n"} {
			if !strings.Contains(string(text), part) {
				t.Errorf("docs/adr/%s: no part%s", entry.Name(), strings.TrimRight(part, "\n"))
			}
		}
	}
}
