package nix_test

import (
	"strings"
	"testing"

	"github.com/celler/celler/nix"
)

// TestContentAddress has paths that "nix-store --print-fixed-path" and builtins.toFile gave.
func TestContentAddress(t *testing.T) {
	zeros := strings.Repeat("0", 52)
	tests := []struct {
		ca, path string
		refs     []string
	}{
		{"fixed:sha256:" + zeros, "/nix/store/yplc6kklcg6k8aln037jq8jxq5v92wln-x", nil},
		{"fixed:r:sha256:" + zeros, "/nix/store/130c0ks0fyxky4j4qx02apy69hasc6nf-x", nil},
		{"fixed:sha1:" + strings.Repeat("0", 32), "/nix/store/39wsjgpwhqrvqdn7hacj8nxxkz8h3b2i-x", nil},
		{"fixed:r:md5:" + strings.Repeat("0", 32), "/nix/store/d8287n5ggwk1ssyib7lwh1hbsx7jbxan-x", nil},
		{"text:sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824", "/nix/store/4g4g9i669dl63abpww0djbl2jxl6bwiz-x", nil},
		{
			"text:sha256:a10f0ece86cc2bb92a4c02e4c1f93d50375ca0f06f507496057a927cd2b70241", "/nix/store/jrdvbz3mi3brgwphiisdq43shs57q356-y",
			[]string{"/nix/store/4g4g9i669dl63abpww0djbl2jxl6bwiz-x", "/nix/store/4g4g9i669dl63abpww0djbl2jxl6bwiz-x"},
		},
	}
	mustPath := func(s string) nix.StorePath {
		p, err := nix.ParseStorePath(s)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, tt := range tests {
		ca, err := nix.ParseContentAddress(tt.ca)
		if err != nil {
			t.Errorf("%s: %v", tt.ca, err)
			continue
		}
		path := mustPath(tt.path)
		var refs []nix.StorePath
		for _, ref := range tt.refs {
			refs = append(refs, mustPath(ref))
		}
		if err := ca.Check(path, refs); err != nil {
			t.Errorf("%s: %v", tt.ca, err)
		}
		if err := ca.Check(mustPath("/nix/store/00bgd045z0d4icpbc2yyz4gx48ak44la-x"), refs); err == nil {
			t.Errorf("%s: any path will do", tt.ca)
		}
		if strings.HasPrefix(tt.ca, "text") || strings.HasPrefix(tt.ca, "fixed:r:sha256") {
			if err := ca.Check(path, append(refs, path)); err == nil {
				t.Errorf("%s: a reference to itself makes no difference", tt.ca)
			}
		}
	}
	for _, bad := range []string{"", "junk", "fixed", "fixed:", "fixed:r:", "fixed:r:sha256:zzz", "text:sha1:" + strings.Repeat("0", 40), "text:r:sha256:" + zeros, "fixed:nar:sha256:" + zeros, "fixed:sha257:" + zeros} {
		if ca, err := nix.ParseContentAddress(bad); err == nil {
			t.Errorf("%q: %+v", bad, ca)
		}
	}
}
