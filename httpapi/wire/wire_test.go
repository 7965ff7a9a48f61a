package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

const (
	part1 = "00bgd045z0d4icpbc2yyz4gx48ak44la"
	part2 = "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz"
)

// What stock clients and servers write, letter by letter.
func TestSpellings(t *testing.T) {
	f := func(v any, want string) {
		t.Helper()
		got, err := json.Marshal(v)
		if err != nil || string(got) != want {
			t.Errorf("got  %s (%v)\nwant %s", got, err, want)
		}
	}
	yes, dir, prio, up := true, "/nix/store", int32(41), []string{"cache.nixos.org-1"}
	size, frac := int64(10), 0.5
	f(CreateCacheRequest{StoreDir: dir, Priority: 41, UpstreamCacheKeyNames: up},
		`{"keypair":"Generate","is_public":false,"store_dir":"/nix/store","priority":41,"upstream_cache_key_names":["cache.nixos.org-1"]}`)
	f(Keypair{Secret: "a:b"}, `{"Keypair":"a:b"}`)
	f(RetentionPeriod{Global: true}, `"Global"`)
	f(RetentionPeriod{Period: 0}, `{"Period":0}`)
	f(CacheConfig{SubstituterEndpoint: &dir, APIEndpoint: &dir, PublicKey: &dir, IsPublic: &yes, StoreDir: &dir, Priority: &prio, UpstreamCacheKeyNames: &up, RetentionPeriod: &RetentionPeriod{Global: true}},
		`{"substituter_endpoint":"/nix/store","api_endpoint":"/nix/store","public_key":"/nix/store","is_public":true,"store_dir":"/nix/store","priority":41,"upstream_cache_key_names":["cache.nixos.org-1"],"retention_period":"Global"}`)
	f(CacheConfig{RetentionPeriod: &RetentionPeriod{Period: 7}}, `{"retention_period":{"Period":7}}`)
	f(UploadResult{Kind: KindUploaded, FileSize: &size, FracDeduplicated: &frac}, `{"kind":"Uploaded","file_size":10,"frac_deduplicated":0.5}`)
	f(UploadResult{Kind: KindDeduplicated}, `{"kind":"Deduplicated","frac_deduplicated":null}`)
	f(Error{Code: 404, Name: ErrorNoSuchCache, Message: "m"}, `{"code":404,"error":"NoSuchCache","message":"m"}`)
	f(MissingPathsRequest{Cache: "c", StorePathHashes: []string{part1}}, `{"cache":"c","store_path_hashes":["`+part1+`"]}`)
}

func TestDecodeUploadInfo(t *testing.T) {
	full := `{"cache":"c","store_path_hash":"h","store_path":"p","references":["r"],"system":null,"deriver":"d","sigs":["s"],"ca":"x","nar_hash":"n","nar_size":7,"later":{}}`
	got, err := DecodeUploadInfo([]byte(full))
	if err != nil {
		t.Fatal(err)
	}
	d, x := "d", "x"
	want := UploadInfo{Cache: "c", StorePathHash: "h", StorePath: "p", References: []string{"r"}, Deriver: &d, Sigs: []string{"s"}, CA: &x, NarHash: "n", NarSize: 7}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	shape := func(body string) {
		t.Helper()
		_, err := DecodeUploadInfo([]byte(body))
		if _, ok := errors.AsType[*ShapeError](err); !ok {
			t.Errorf("%s: %v, want a ShapeError", body, err)
		}
	}
	syntax := func(body string) {
		t.Helper()
		_, err := DecodeUploadInfo([]byte(body))
		if _, ok := errors.AsType[*SyntaxError](err); !ok {
			t.Errorf("%s: %v, want a SyntaxError", body, err)
		}
	}
	for _, field := range []string{"cache", "store_path_hash", "store_path", "references", "sigs", "nar_hash", "nar_size"} {
		shape(strings.Replace(full, `"`+field+`"`, `"`+strings.ToUpper(field)+`"`, 1)) // keys have one spelling
	}
	shape(strings.Replace(full, `:7`, `:"7"`, 1))
	shape(strings.Replace(full, `:7`, `:7.5`, 1))
	shape(strings.Replace(full, `:7`, `:99999999999999999999`, 1))
	shape(strings.Replace(full, `["r"]`, `[1]`, 1))
	shape(strings.Replace(full, `["r"]`, `null`, 1))
	shape(`[]`)
	shape(`null`)
	shape(`7`)
	syntax(``)
	syntax(`{`)
	syntax(full[:len(full)-1])
	syntax(full + `x`)
	syntax(full + full)
}

func TestDecodeEnums(t *testing.T) {
	create := `{"keypair":%s,"is_public":true,"store_dir":"/s","priority":-1,"upstream_cache_key_names":[]}`
	f := func(keypair string, want Keypair, ok bool) {
		t.Helper()
		got, err := DecodeCreateCache(fmt.Appendf(nil, create, keypair))
		if _, shape := errors.AsType[*ShapeError](err); (err == nil) != ok || err != nil && !shape {
			t.Errorf("%s: %v", keypair, err)
		}
		if ok && got.Keypair != want {
			t.Errorf("%s: %+v, want %+v", keypair, got.Keypair, want)
		}
	}
	f(`"Generate"`, Keypair{}, true)
	f(`{"Keypair":"n:s"}`, Keypair{Secret: "n:s"}, true)
	f(`"generate"`, Keypair{}, false)
	f(`{"Keypair":""}`, Keypair{}, false)
	f(`{"Keypair":1}`, Keypair{}, false)
	f(`{"Keypair":"n:s","x":1}`, Keypair{}, false)
	f(`null`, Keypair{}, false)
	f(`7`, Keypair{}, false)

	g := func(period string, want *RetentionPeriod, ok bool) {
		t.Helper()
		got, err := DecodeCacheConfig(fmt.Appendf(nil, `{"retention_period":%s,"public_key":7}`, period))
		if (err == nil) != ok {
			t.Errorf("%s: %v", period, err)
		}
		if diff := cmp.Diff(want, got.RetentionPeriod); ok && diff != "" {
			t.Error(diff)
		}
	}
	g(`"Global"`, &RetentionPeriod{Global: true}, true)
	g(`{"Period":4294967295}`, &RetentionPeriod{Period: 4294967295}, true)
	g(`{"Period":0}`, &RetentionPeriod{}, true)
	g(`null`, nil, true)
	g(`{"Period":4294967296}`, nil, false)
	g(`{"Period":-1}`, nil, false)
	g(`"Period"`, nil, false)
	g(`{}`, nil, false)
}

func TestDecodeMissingPaths(t *testing.T) {
	f := func(body string, limit int, wantCache string, wantParts int) {
		t.Helper()
		told := ""
		cache, parts, err := DecodeMissingPaths(iotest.OneByteReader(strings.NewReader(body)), limit, func(name string) error { told = name; return nil })
		if err != nil || cache != wantCache || told != wantCache || len(parts) != wantParts {
			t.Errorf("%s: %q (told %q), %d parts, %v", body, cache, told, len(parts), err)
		}
	}
	f(`{"cache":"c","store_path_hashes":["`+part1+`","`+part2+`"]}`, 2, "c", 2)
	f(`{"store_path_hashes":["`+part1+`"],"cache":"c"}`, 2, "c", 1)
	f(`{"x":{"y":[1]},"cache":"c","store_path_hashes":[],"z":null}`, 2, "c", 0)
	f(` { "cache" : "c" , "store_path_hashes" : [ ] } `, 0, "c", 0)
	f(` { "cache" : "c" , "store_path_hashes" : [ "`+part1+`" , "`+part2+`" ] , "x" : [ ] } `, 2, "c", 2)

	bad := func(body string, limit int, shape bool) {
		t.Helper()
		_, _, err := DecodeMissingPaths(strings.NewReader(body), limit, nil)
		_, isShape := errors.AsType[*ShapeError](err)
		_, isSyntax := errors.AsType[*SyntaxError](err)
		if err == nil || isShape != shape || isSyntax == shape {
			t.Errorf("%s: %v, want shape error %v", body, err, shape)
		}
	}
	bad(`{"cache":"c","store_path_hashes":["`+part1+`","`+part2+`"]}`, 1, true)
	bad(`{"cache":"c"}`, 1, true)
	bad(`{"store_path_hashes":[]}`, 1, true)
	bad(`{"cache":7,"store_path_hashes":[]}`, 1, true)
	bad(`{"cache":"c","store_path_hashes":[7]}`, 1, true)
	bad(`{"cache":"c","store_path_hashes":["short"]}`, 1, true)
	bad(`{"cache":"c","store_path_hashes":["eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee"]}`, 1, true)
	bad(`{"cache":"c","store_path_hashes":{}}`, 1, true)
	bad(`[]`, 1, true)
	bad(``, 1, false)
	bad(`{"cache":"c","store_path_hashes":[`, 1, false)
	bad(`{"cache":"c","store_path_hashes":["`+part1, 1, false)
	bad(`{"cache":"c","store_path_hashes":[]`, 1, false)
	bad(`{"cache":"c","store_path_hashes":[]}}`, 1, false)
	bad(`{"cache":"c","store_path_hashes":[]}{}`, 1, false)
	bad(`{"cache":"c" "x"}`, 1, false)
	bad(`{"cache":"c","store_path_hashes":[,]}`, 1, false)
	bad(`{"cache":"c","store_path_hashes":["`+part1+`",]}`, 9, false)
	bad(`{"cache":"c","store_path_hashes":["`+part1+`" "`+part1+`"]}`, 9, false)
	bad(`{"cache":"c","store_path_hashes":["`+strings.Repeat("0", 100_000)+`"]}`, 9, true)
	bad(`{"cache":"c","store_path_hashes":[x]}`, 9, false)
	bad(`{"cache":"c","store_path_hashes":[null]}`, 9, true)
	bad(`{"cache":"c","store_path_hashes":[] "x":1}`, 9, false)

	stop := errors.New("stop")
	_, _, err := DecodeMissingPaths(strings.NewReader(`{"cache":"c","store_path_hashes":["x`), 1, func(string) error { return stop })
	if !errors.Is(err, stop) {
		t.Errorf("error of onCache: %v", err)
	}
	broken := errors.New("connection broke")
	_, _, err = DecodeMissingPaths(io.MultiReader(strings.NewReader(`{"cache":"c","store_path_hashes":["`), iotest.ErrReader(broken)), 1, nil)
	if !errors.Is(err, broken) {
		t.Errorf("error of the body: %v", err)
	}
	if _, _, err = DecodeMissingPaths(strings.NewReader(`{"cache":"c","store_path_hashes":["`+part1+`"]}`), 0, nil); !IsTooLong(err) {
		t.Errorf("too long: %v", err)
	}
}

// A million hash parts must not cost more than the list itself and some garbage.
func BenchmarkDecodeMissingPaths(b *testing.B) {
	var body strings.Builder
	body.WriteString(`{"cache":"c","store_path_hashes":[`)
	for i := range 1_000_000 {
		if i > 0 {
			body.WriteByte(',')
		}
		body.WriteString(`"` + part1 + `"`)
	}
	body.WriteString(`]}`)
	b.SetBytes(int64(body.Len()))
	b.ReportAllocs()
	for b.Loop() {
		_, parts, err := DecodeMissingPaths(strings.NewReader(body.String()), 1_000_000, nil)
		if err != nil || len(parts) != 1_000_000 {
			b.Fatal(len(parts), err)
		}
	}
}

// TestMistyped: people who send JSON need not know Go.
func TestMistyped(t *testing.T) {
	for body, want := range map[string]string{
		`{"subject":1,"valid_for":1,"rules":[]}`:                   "read JSON: subject: expected text, found number",
		`{"subject":"x","valid_for":1.5,"rules":[]}`:               "read JSON: valid_for: expected a whole number of at most 64 bits, found number 1.5",
		`{"subject":"x","valid_for":1,"rules":{}}`:                 "read JSON: rules: expected a list, found object",
		`{"subject":"x","valid_for":1,"rules":[7]}`:                "read JSON: rules: expected an object, found number",
		`{"subject":"x","valid_for":1,"rules":[{"pattern":true}]}`: "read JSON: rules: pattern: expected text, found bool",
	} {
		if _, err := DecodeTokenRequest([]byte(body)); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %q", body, err, want)
		}
	}
	if _, _, err := DecodeMissingPaths(strings.NewReader(`{"cache":7}`), 1, nil); err == nil || strings.Contains(err.Error(), "Go") {
		t.Errorf("got %v", err)
	}
}
