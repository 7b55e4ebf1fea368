package verify

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/mod/module"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/testing/hostile"
)

const derperFile = hostile.Derper

// TestTampering guards that what somebody changed in an image is found and named, as
// the first thing that differs, and that nothing is named besides.
func TestTampering(t *testing.T) {
	f := newFixture(t)
	in := f.release.Inputs
	image1 := func(t *testing.T, img v1.Image) *Subject { return f.verify(t, f.layout(t, f.platforms, f.with(img))) }

	t.Run("nothing", func(t *testing.T) {
		s := f.verify(t, f.layoutOf(t, f.index))
		wantVerified(t, s)
		if s.Digest != f.output.Index {
			t.Errorf("is about %s, not %s", s.Digest, f.output.Index)
		}
		for _, p := range s.Platforms {
			if p.Result != Pass || p.Count(Pass, LevelBinary) != 3 || p.Count(Pass, LevelEntry) < 10 || p.Count(Pass, LevelCompression) != 4 {
				t.Errorf("%s: %s, with too few checks:\n%s", p.Platform, p.Result, text(s))
			}
		}
	})

	// Each attack, and what is named first: all else follows from that.
	for _, test := range []struct {
		name  string
		level Level
		words []string
	}{
		{"one byte of code", LevelBinary, []string{derperFile + " on linux/amd64", "code differs", "function main.main: other code, 1 byte,", "section .text: other content, 1 of ", "was changed after it was compiled"}},
		{"one byte of data", LevelBinary, []string{"not their data", "section .rodata: other content, 1 of "}},
		{"bytes behind the program", LevelBinary, []string{"All sections of the two programs are the same; what is outside of them differs (4 bytes, "}},
		{"a script in place of the program", LevelBinary, []string{derperFile, "is not a program that Go compiled"}},
		{"tailscaled in the place of derper", LevelBinary, []string{"says that it is tailscale.com/cmd/tailscaled, where the rebuilt one is tailscale.com/cmd/derper"}},
		{"another entrypoint", LevelBinary, []string{"entrypoint on linux/amd64", "made by another revision of this project", "cmd/build@COMMIT verify "}},

		{"another time", LevelEntry, []string{derperFile, "mtime: image 2001-09-09T01:46:40Z, rebuilt " + in.Tailscale.Time.Format(time.RFC3339)}},
		{"a set-user-ID bit", LevelEntry, []string{derperFile, "mode: image 4755 (setuid), rebuilt 0755"}},
		{"another owner", LevelEntry, []string{derperFile, "owner: image 1000:0, rebuilt 0:0"}},
		{"an owner's name", LevelEntry, []string{derperFile, "owner's names: image eve:, rebuilt none"}},
		{"an extended attribute", LevelEntry, []string{derperFile, "extended attribute security.capability: image"}},
		{"a file's content", LevelEntry, []string{"etc/passwd", "content differs", `image "eve:x:0:0::/:/bin/sh"`}},
		{"a symbolic link in place of a file", LevelEntry, []string{derperFile, "type: image symbolic link, rebuilt file", "link to: image /proc/self/exe"}},
		{"another order of entries", LevelEntry, []string{"layer base on linux/amd64", "order of entries: image"}},
		{"an added file", LevelEntry, []string{"etc/cron.d/evil", "only in the image: file, mode 0644"}},
		{"a file twice", LevelEntry, []string{"etc/passwd", "once more"}},
		{"a missing file", LevelEntry, []string{"missing from the image"}},
		{"a name that steers a terminal", LevelEntry, []string{`etc/\x1b[2Jevil\nPASS`}},
		{"another CA bundle", LevelEntry, []string{hostile.Bundle, "CA certificate added: CN=Evil Root"}},
		{"padding behind the tar", LevelEntry, []string{"layer derper", "all entries are the same, but not the tar around them"}},
		{"half of the tar", LevelEntry, []string{"layer derper on linux/amd64", "cannot be unpacked: tar: usr/local/bin/derper: unexpected EOF"}},
		{"an added layer", LevelEntry, []string{"on linux/amd64, entrypoint differs", "only in the image, in an added layer"}},
		{"another level of compression", LevelCompression, []string{"layer derper on linux/amd64", "the same tar, compressed in another way: image gzip (OS 255), ", "only the compression"}},

		{"an environment variable", LevelConfig, []string{`.config.Env.PATH: image "/evil", rebuilt "/usr/local/bin"`}},
		{"an added variable", LevelConfig, []string{`.config.Env.LD_PRELOAD: image "/evil.so", the rebuilt has none`}},
		{"a field that go-containerregistry's type lacks", LevelConfig, []string{`.config.Healthcheck.StartInterval: image none, the rebuilt has 1000000000`}},
		{"a label", LevelConfig, []string{`.config.Labels["org.opencontainers.image.licenses"]: image "none"`}},
		{"another entrypoint of the container", LevelConfig, []string{`.config.Entrypoint[0]: image "/usr/local/bin/derper", rebuilt "/entrypoint"`}},
		{"another user", LevelConfig, []string{`.config.User: image "0:0", the rebuilt has none`}},
		{"another time of creation", LevelConfig, []string{`.created: image "2001-09-09T01:46:40Z"`}},
		{"a config that claims another platform", LevelConfig, []string{`.architecture: image "arm64", rebuilt "amd64"`}},
		{"an annotation of the manifest", LevelManifest, []string{"The manifest on linux/amd64", `.annotations.evil: image "yes", the rebuilt has none`}},

		{"an SBOM with another name", LevelAttestation, []string{"What is stated beside the image on linux/amd64", attest.SPDX + ": .predicate.packages[0].name: image \"relay\", rebuilt \"derper\""}},
		{"provenance with another source", LevelAttestation, []string{attest.SLSA, "example.com/evil"}},
		{"no attestation", LevelAttestation, []string{"on all 2 platforms", "the index has no attestation of the image"}},
		{"another image's attestation", LevelAttestation, []string{"on all 2 platforms", "the statements are about another digest than the image's"}},
		{"an attestation of no image", LevelIndex, []string{"the index has an entry marked as an attestation of " + hostile.Digest(nil) + " that is not an attestation of an image in the index"}},
		{"a missing platform", LevelIndex, []string{"the index has no image for linux/arm64", "the lock at hand has linux/amd64, linux/arm64"}},
		{"an added platform", LevelIndex, []string{"the index has linux/s390x besides"}},
		{"a platform twice", LevelIndex, []string{"the index has linux/amd64 once more"}},
		{"platforms that changed places", LevelIndex, []string{"the index calls it linux/amd64, and it is the image for linux/arm64"}},
		{"another order of the platforms", LevelIndex, []string{"the platforms are in another order: linux/arm64, linux/amd64"}},
		{"an annotation of the index", LevelIndex, []string{`.annotations.evil: image "yes", the rebuilt has none`}},
		{"an index written in another way", LevelIndex, []string{"the same values, written in another way"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := f.verify(t, hostile.Find(t, test.name).Content(t, f.good).Layout(t))
			wantFirst(t, s, test.level, test.words...)
			if !slices.Contains([]string{"an added layer", "tailscaled in the place of derper", "platforms that changed places"}, test.name) {
				wantOnly(t, s)
			}
			if strings.Contains(text(s), "\x1b") {
				t.Error("the report has the escape as it is")
			}
		})
	}

	// Programs that were compiled.
	program := func(t *testing.T, content []byte) *Subject {
		return image1(t, f.edit(t, "derper", hostile.Replace(derperFile, func([]byte) []byte { return content })))
	}
	t.Run("another Go", func(t *testing.T) {
		// The one of .ci/reproduce, in the user's own module cache.
		const other = "go1.27.4"
		tool := filepath.Join(goEnv(t, "GOROOT", "GOTOOLCHAIN="+other), "bin", "go")
		s := program(t, f.compile(t, tool, nil, f.ldflags(), "tailscale.com/cmd/derper@"+in.Tailscale.Version))
		wantFirst(t, s, LevelBinary, "says that "+other+" compiled it; the rebuilt one was compiled by "+in.Go.Version)
		wantOnly(t, s)
	})
	goTool := filepath.Join(goEnv(t, "GOROOT", "GOTOOLCHAIN="+in.Go.Version), "bin", "go")
	t.Run("the same Go by hand", func(t *testing.T) {
		// Or the tests around it would prove nothing.
		wantVerified(t, program(t, f.compile(t, goTool, nil, f.ldflags(), "tailscale.com/cmd/derper@"+in.Tailscale.Version)))
	})
	t.Run("other settings", func(t *testing.T) {
		s := program(t, f.compile(t, goTool, []string{"GOAMD64=v3"}, f.ldflags(), "tailscale.com/cmd/derper@"+in.Tailscale.Version))
		wantFirst(t, s, LevelBinary, "other settings: GOAMD64: image v3, rebuilt v1")
		wantOnly(t, s)
	})
	t.Run("other linker flags", func(t *testing.T) {
		s := program(t, f.compile(t, goTool, nil, strings.TrimPrefix(f.ldflags(), "-s -w "), "tailscale.com/cmd/derper@"+in.Tailscale.Version))
		wantFirst(t, s, LevelBinary, "symbols or debugging information", ".symtab", "not -ldflags='-s -w'")
		wantOnly(t, s)
	})
	t.Run("another revision's stamp", func(t *testing.T) {
		commit := strings.Repeat("0123456789", 4)
		s := program(t, f.compile(t, goTool, nil, strings.ReplaceAll(f.ldflags(), in.Tailscale.Commit[:9], commit[:9]), "tailscale.com/cmd/derper@"+in.Tailscale.Version))
		wantFirst(t, s, LevelBinary, "stamped with another revision: "+in.Tailscale.Short()+"-t"+commit[:9], in.Tailscale.Long())
		wantOnly(t, s)
	})
	t.Run("another release", func(t *testing.T) {
		s := program(t, f.compile(t, goTool, nil, f.ldflags(), "tailscale.com/cmd/derper@"+f.otherRelease(t)))
		wantFirst(t, s, LevelBinary, "compiled from tailscale.com v1.0.1 ", "the rebuilt one from tailscale.com "+in.Tailscale.Version)
		wantOnly(t, s)
	})
	t.Run("another program", func(t *testing.T) {
		s := program(t, f.compile(t, goTool, nil, f.ldflags(), "tailscale.com/cmd/tailscaled@"+in.Tailscale.Version))
		wantFirst(t, s, LevelBinary, "says that it is tailscale.com/cmd/tailscaled, where the rebuilt one is tailscale.com/cmd/derper")
	})

	// Indexes and whole builds.
	t.Run("another platform's image, that one not rebuilt", func(t *testing.T) {
		v := f.verifier(t)
		v.Platforms = f.platforms[:1]
		s := f.run(t, v, f.layout(t, f.platforms, []v1.Image{f.images[1], f.images[1]}))
		wantFirst(t, s, LevelIndex, "the index calls it linux/amd64, and it is an image for linux/arm64")
		wantOnly(t, s)
	})
	t.Run("another time for everything", func(t *testing.T) {
		// A whole build that lies about the commit time, consistently.
		b := f.builder()
		b.Inputs.Tailscale.Time = time.Unix(1e9, 0).UTC()
		built, err := b.Build(t.Context(), f.platforms)
		if err != nil {
			t.Fatal(err)
		}
		s := f.verify(t, f.layoutOf(t, built.Index))
		wantFirst(t, s, LevelInput, "commit time", "the image claims that the commit is of 2001-09-09T01:46:40Z, the module proxy says "+in.Tailscale.Time.Format(time.RFC3339))
	})
	t.Run("another commit for everything", func(t *testing.T) {
		b := f.builder()
		b.Inputs.Tailscale.Commit = strings.Repeat("0123456789", 4)
		built, err := b.Build(t.Context(), f.platforms)
		if err != nil {
			t.Fatal(err)
		}
		s := f.verify(t, f.layoutOf(t, built.Index))
		wantFirst(t, s, LevelInput, "the image claims commit 0123456789", "the lock at hand says "+in.Tailscale.Commit)
		wantOnly(t, s)
	})
}

// otherRelease adds another release, of another source, and returns its version.
func (f *fixture) otherRelease(t *testing.T) string {
	t.Helper()
	m := module.Version{Path: lock.TailscaleModule, Version: "v1.0.1"}
	f.release.Add(t, m, "module tailscale.com\n\ngo 1.24\n", map[string]string{
		"LICENSE":            "tailscale's licence\n",
		"cmd/derper/main.go": "package main\n\nfunc main() { println(\"another\") }\n",
	})
	return m.Version
}
