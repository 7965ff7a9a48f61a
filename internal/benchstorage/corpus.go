package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/celler/celler/nix/nar"
)

// source is a Debian package in two versions.
type source struct {
	name     string
	old, new string // "package=version"
}

// versions names the two versions of packages of one name.
func versions(old, later string, names ...string) []source {
	var list []source
	for _, n := range names {
		list = append(list, source{n, n + "=" + old, n + "=" + later})
	}
	return list
}

// smallCorpus is some 200 MB a generation: programs, libraries, scripts, data.
func smallCorpus() []source {
	return slices.Concat(
		versions("1:2.39.5-0+deb12u2", "1:2.39.5-0+deb12u3", "git"),
		versions("5.36.0-7+deb12u3", "5.36.0-7+deb12u4", "perl-base", "perl-modules-5.36", "libperl5.36"),
		versions("3.11.2-6+deb12u8", "3.11.2-6+deb12u9", "python3.11-minimal", "libpython3.11-stdlib"),
		versions("2.36-9+deb12u7", "2.36-9+deb12u14", "libc6", "libc6-dev", "locales"),
		versions("3.0.17-1~deb12u2", "3.0.22-1~deb12u2", "libssl3", "openssl"),
		versions("2:4.17.12+dfsg-0+deb12u2", "2:4.17.12+dfsg-0+deb12u4", "samba-libs"),
		versions("2.50.6-1~deb12u1", "2.50.6-1~deb12u2", "libjavascriptcoregtk-4.1-0"),
		versions("252.38-1~deb12u1", "252.39-1~deb12u2", "systemd"),
		versions("7.88.1-10+deb12u5", "7.88.1-10+deb12u15", "curl", "libcurl4"),
		versions("3:3.2.25-0+deb12u3", "3:3.2.25-0+deb12u7", "python3-django"),
	)
}

// largeCorpus adds the kernel, a JDK, an office suite, a browser engine,
// databases and more, to some 1.5 GB a generation.
func largeCorpus() []source {
	return slices.Concat(
		smallCorpus(),
		[]source{{"linux-image", "linux-image-6.1.0-55-amd64", "linux-image-6.1.0-56-amd64"}},
		versions("17.0.19+10-1~deb12u2", "17.0.21.1+2-1~deb12u1", "openjdk-17-jre-headless", "openjdk-17-jdk-headless"),
		versions("4:7.4.7-1+deb12u13", "4:7.4.7-1+deb12u14", "libreoffice-core"),
		versions("2.50.6-1~deb12u1", "2.50.6-1~deb12u2", "libwebkit2gtk-4.1-0"),
		versions("15.18-0+deb12u1", "15.20-0+deb12u1", "postgresql-15"),
		versions("1:10.11.18-0+deb12u1", "1:10.11.19-0+deb12u1", "mariadb-server-core"),
		versions("8.2.32-1~deb12u1", "8.2.36-1~deb12u1", "php8.2-cli"),
		versions("1:7.2+dfsg-7+deb12u15", "1:7.2+dfsg-7+deb12u18+b3", "qemu-system-x86"),
		versions("1:9.18.49-1~deb12u1", "1:9.18.49-1~deb12u3", "bind9-libs"),
		versions("8:6.9.11.60+dfsg-1.6+deb12u11", "8:6.9.11.60+dfsg-1.6+deb12u15", "libmagickcore-6.q16-6"),
		versions("10.0.0~dfsg-11+deb12u8", "10.0.0~dfsg-11+deb12u9", "libgs10"),
		versions("3.1.2-7+deb12u1", "3.1.7-1~deb12u2", "libruby3.1"),
		versions("1.4.3+dfsg-1~deb12u2", "1.4.6+dfsg-0+deb12u1", "libclamav12", "clamav"),
		versions("2.4.68-1~deb12u1", "2.4.71-1~deb12u1", "apache2-bin"),
		versions("2.06-13+deb12u1", "2.06-13+deb12u2", "grub-common"),
		versions("1:140.12.0esr-1~deb12u1", "1:153.7.0esr-1~deb12u1", "thunderbird"),
		versions("2:4.17.12+dfsg-0+deb12u2", "2:4.17.12+dfsg-0+deb12u4", "samba"),
	)
}

// generations of the corpus, and the version each is made of.
const generations = "abc"

// corpus makes the NARs of all generations below dir, unless they are there.
func corpus(ctx context.Context, dir string, sources []source) error {
	for _, src := range sources {
		for i, g := range generations {
			out := narPath(dir, byte(g), src)
			if _, err := os.Stat(out); err == nil {
				continue
			}
			spec := src.old
			if i == 2 {
				spec = src.new
			}
			tree, err := unpack(ctx, dir, spec)
			if err != nil {
				return fmt.Errorf("prepare %s: %w", spec, err)
			}
			if err := archive(out, tree, rewriter{set: byte(g), name: src.name, version: spec}); err != nil {
				return fmt.Errorf("archive %s: %w", spec, err)
			}
		}
	}
	return nil
}

func narPath(dir string, generation byte, src source) string {
	return filepath.Join(dir, "nar", string(generation), src.name+".nar")
}

// unpack downloads a package and unpacks it, unless that was done before.
func unpack(ctx context.Context, dir, spec string) (string, error) {
	base := filepath.Join(dir, "deb", strings.NewReplacer("=", "_", ":", "_").Replace(spec))
	tree := filepath.Join(base, "tree")
	if _, err := os.Stat(tree); err == nil {
		return tree, nil
	}
	if err := os.MkdirAll(base, 0o755); err != nil {
		return "", err
	}
	if err := command(ctx, base, "apt-get", "download", "-qq", spec); err != nil {
		return "", err
	}
	debs, err := filepath.Glob(filepath.Join(base, "*.deb"))
	if err != nil || len(debs) != 1 {
		return "", fmt.Errorf("apt-get download left %d packages in %s", len(debs), base)
	}
	if err := command(ctx, base, "dpkg-deb", "-x", filepath.Base(debs[0]), "tree.tmp"); err != nil {
		return "", err
	}
	return tree, errors.Join(os.Remove(debs[0]), os.Rename(tree+".tmp", tree))
}

func command(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// rewriter puts store paths where a Debian package says /usr/, as a Nix build
// of the same software would have them.
type rewriter struct {
	set     byte   // of hashes
	name    string // of the package
	version string
}

// dependencies is how many store paths a package refers to.
const dependencies = 8

func (rw rewriter) bytes(b []byte) []byte {
	const old = "/usr/"
	var out []byte
	for {
		i := bytes.Index(b, []byte(old))
		if i < 0 {
			if out == nil {
				return b
			}
			return append(out, b...)
		}
		out = append(out, b[:i]...)
		b = b[i+len(old):]
		h := fnv.New32a()
		h.Write(b[:min(len(b), 12)])
		out = append(out, rw.storePath(h.Sum32()%dependencies)...)
		out = append(out, '/')
	}
}

func (rw rewriter) storePath(n uint32) string {
	const base32 = "0123456789abcdfghijklmnpqrsvwxyz"
	sum := sha256.Sum256(fmt.Appendf(nil, "%c %s %d", rw.set, rw.name, n))
	part := make([]byte, 32)
	for i := range part {
		part[i] = base32[sum[i]%32]
	}
	return fmt.Sprintf("/nix/store/%s-dependency-%d", part, n)
}

// archive writes the NAR of a tree with rewritten contents.
func archive(out, tree string, rw rewriter) error {
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	f, err := os.Create(out + ".tmp")
	if err != nil {
		return err
	}
	defer f.Close()
	w := nar.NewWriter(f)
	if err := entry(w, "", tree, rw); err != nil {
		return err
	}
	if err := errors.Join(w.Close(), f.Close()); err != nil {
		return err
	}
	return os.Rename(out+".tmp", out)
}

func entry(w *nar.Writer, name, path string, rw rewriter) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	switch info.Mode().Type() {
	case 0:
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		data = rw.bytes(data)
		if err := w.Regular(name, info.Mode()&0o111 != 0, int64(len(data))); err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	case fs.ModeSymlink:
		target, err := os.Readlink(path)
		if err != nil {
			return err
		}
		return w.Symlink(name, string(rw.bytes([]byte(target))))
	case fs.ModeDir:
		return folder(w, name, path, rw)
	}
	return fmt.Errorf("%s is of type %v", path, info.Mode().Type())
}

func folder(w *nar.Writer, name, path string, rw rewriter) error {
	if err := w.Directory(name); err != nil {
		return err
	}
	entries, err := os.ReadDir(path) // sorted
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := entry(w, e.Name(), filepath.Join(path, e.Name()), rw); err != nil {
			return err
		}
	}
	return w.EndDirectory()
}
