package verify

import (
	"archive/tar"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"debug/elf"
	"debug/gosym"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/klauspost/compress/gzip"
	"golang.org/x/mod/module"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/testing/imagetest"
)

const derperFile = "usr/local/bin/derper"

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

	// Programs. The first three are real compiles.
	program := func(t *testing.T, content []byte) *Subject {
		return image1(t, f.edit(t, "derper", replace(derperFile, func([]byte) []byte { return content })))
	}
	t.Run("one byte of code", func(t *testing.T) {
		s := image1(t, f.edit(t, "derper", replace(derperFile, func(b []byte) []byte {
			return flip(t, b, "main.main")
		})))
		wantFirst(t, s, LevelBinary, derperFile+" on linux/amd64", "code differs", "function main.main: other code, 1 byte,", "section .text: other content, 1 of ", "was changed after it was compiled")
		wantOnly(t, s)
	})
	t.Run("one byte of data", func(t *testing.T) {
		s := image1(t, f.edit(t, "derper", replace(derperFile, func(b []byte) []byte {
			return bytes.Replace(b, []byte("all goroutines are asleep"), []byte("all goroutines are asleeq"), 1)
		})))
		wantFirst(t, s, LevelBinary, "not their data", "section .rodata: other content, 1 of ")
		wantOnly(t, s)
	})
	t.Run("bytes behind the program", func(t *testing.T) {
		s := image1(t, f.edit(t, "derper", replace(derperFile, func(b []byte) []byte { return append(b, "evil"...) })))
		wantFirst(t, s, LevelBinary, "All sections of the two programs are the same; what is outside of them differs (4 bytes, ")
		wantOnly(t, s)
	})
	t.Run("a script in its place", func(t *testing.T) {
		s := program(t, []byte("#!/bin/sh\nexec evil\n"))
		wantFirst(t, s, LevelBinary, derperFile, "is not a program that Go compiled")
		wantOnly(t, s)
	})
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
	t.Run("another entrypoint", func(t *testing.T) {
		s := image1(t, f.edit(t, "entrypoint", replace("entrypoint", func(b []byte) []byte { return flip(t, b, "main.main") })))
		wantFirst(t, s, LevelBinary, "entrypoint on linux/amd64", "made by another revision of this project", "cmd/build@COMMIT verify ")
		wantOnly(t, s)
	})

	// Entries.
	entry := func(name, layer, level string, change func(p *part), words ...string) {
		t.Run(name, func(t *testing.T) {
			s := image1(t, f.edit(t, layer, func(list []part) []part {
				for i := range list {
					if list[i].header.Name == derperFile || list[i].header.Name == "etc/passwd" {
						change(&list[i])
					}
				}
				return list
			}))
			wantFirst(t, s, Level(level), words...)
			wantOnly(t, s)
		})
	}
	entry("mtime", "derper", "tar entry", func(p *part) { p.header.ModTime = time.Unix(1e9, 0) },
		derperFile, "mtime: image 2001-09-09T01:46:40Z, rebuilt "+in.Tailscale.Time.Format(time.RFC3339))
	entry("mode", "derper", "tar entry", func(p *part) { p.header.Mode = 0o4755 }, derperFile, "mode: image 4755 (setuid), rebuilt 0755")
	entry("owner", "derper", "tar entry", func(p *part) { p.header.Uid = 1000 }, derperFile, "owner: image 1000:0, rebuilt 0:0")
	entry("owner's name", "derper", "tar entry", func(p *part) { p.header.Uname = "eve" }, derperFile, "owner's names: image eve:, rebuilt none")
	entry("extended attribute", "derper", "tar entry", func(p *part) {
		p.header.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": "evil"}
		p.header.Format = tar.FormatPAX
	}, derperFile, "extended attribute security.capability: image")
	entry("a file's content", "base", "tar entry", func(p *part) { p.content = append(p.content, "eve:x:0:0::/:/bin/sh\n"...) },
		"etc/passwd", "content differs", `image "eve:x:0:0::/:/bin/sh"`)
	entry("a link in place of a file", "derper", "tar entry", func(p *part) {
		p.header.Typeflag, p.header.Linkname, p.content = tar.TypeSymlink, "/proc/self/exe", nil
	}, derperFile, "type: image symbolic link, rebuilt file", "link to: image /proc/self/exe")
	t.Run("order", func(t *testing.T) {
		s := image1(t, f.edit(t, "base", func(list []part) []part {
			list[0], list[len(list)-1] = list[len(list)-1], list[0]
			return list
		}))
		wantFirst(t, s, LevelEntry, "layer base on linux/amd64", "order of entries: image")
		wantOnly(t, s)
	})
	t.Run("an added file", func(t *testing.T) {
		s := image1(t, f.edit(t, "base", func(list []part) []part {
			return append(list, part{tar.Header{Name: "etc/cron.d/evil", Mode: 0o644, ModTime: in.Tailscale.Time}, []byte("* * * * * root evil\n")})
		}))
		wantFirst(t, s, LevelEntry, "etc/cron.d/evil", "only in the image: file, mode 0644")
		wantOnly(t, s)
	})
	t.Run("a file twice", func(t *testing.T) {
		s := image1(t, f.edit(t, "base", func(list []part) []part {
			return append(list, part{tar.Header{Name: "etc/passwd", Mode: 0o644, ModTime: in.Tailscale.Time}, []byte("root::0:0:::\n")})
		}))
		wantFirst(t, s, LevelEntry, "etc/passwd", "once more")
		wantOnly(t, s)
	})
	t.Run("a missing file", func(t *testing.T) {
		s := image1(t, f.edit(t, "base", func(list []part) []part { return list[:len(list)-1] }))
		wantFirst(t, s, LevelEntry, "missing from the image")
		wantOnly(t, s)
	})
	t.Run("a name that steers a terminal", func(t *testing.T) {
		s := image1(t, f.edit(t, "base", func(list []part) []part {
			return append(list, part{tar.Header{Name: "etc/\x1b[2Jevil\nPASS", Mode: 0o644}, nil})
		}))
		wantFirst(t, s, LevelEntry, `etc/\x1b[2Jevil\nPASS`)
		if strings.Contains(text(s), "\x1b") {
			t.Error("the report has the escape as it is")
		}
	})
	t.Run("another CA bundle", func(t *testing.T) {
		const bundle = "etc/ssl/certs/ca-certificates.crt"
		s := image1(t, f.edit(t, "base", replace(bundle, func(b []byte) []byte { return append(b, certificate(t, "Evil Root")...) })))
		wantFirst(t, s, LevelEntry, bundle, "CA certificate added: CN=Evil Root")
		wantOnly(t, s)
	})
	t.Run("padding of the tar", func(t *testing.T) {
		layers := f.layersOf(t)
		layers[2] = pack(t, "derper", gzip.BestCompression, append(tarOf(t, parts(t, layers[2])), make([]byte, 1024)...))
		s := image1(t, f.image(t, layers))
		wantFirst(t, s, LevelEntry, "layer derper", "all entries are the same, but not the tar around them")
		wantOnly(t, s)
	})
	t.Run("a layer that cannot be unpacked", func(t *testing.T) {
		layers := f.layersOf(t)
		data := tarOf(t, parts(t, layers[2]))
		layers[2] = pack(t, "derper", gzip.BestCompression, data[:len(data)/2])
		s := image1(t, f.image(t, layers))
		wantFirst(t, s, LevelEntry, "layer derper on linux/amd64", "cannot be unpacked: tar: usr/local/bin/derper: unexpected EOF")
		wantOnly(t, s)
	})
	t.Run("an added layer", func(t *testing.T) {
		evil := pack(t, "evil", gzip.BestCompression, tarOf(t, []part{{tar.Header{Name: "entrypoint", Mode: 0o755}, []byte("evil")}}))
		img, err := mutate.AppendLayers(f.images[0], evil)
		if err != nil {
			t.Fatal(err)
		}
		wantFirst(t, image1(t, img), LevelEntry, "on linux/amd64, entrypoint differs", "only in the image, in an added layer")
	})

	// Compression, config, manifest.
	t.Run("gzip level", func(t *testing.T) {
		layers := f.layersOf(t)
		layers[2] = pack(t, "derper", gzip.BestSpeed, tarOf(t, parts(t, layers[2])))
		s := image1(t, f.image(t, layers))
		wantFirst(t, s, LevelCompression, "layer derper on linux/amd64", "the same tar, compressed in another way: image gzip (OS 255), ", "only the compression")
		wantOnly(t, s)
	})
	config := func(name string, change func(c *image.ConfigFile), words ...string) {
		t.Run(name, func(t *testing.T) {
			s := image1(t, imagetest.Config(t, f.images[0], change))
			wantFirst(t, s, LevelConfig, append([]string{"The config on linux/amd64"}, words...)...)
			wantOnly(t, s)
		})
	}
	config("an environment variable", func(c *image.ConfigFile) { c.Config.Env[0] = "PATH=/evil" },
		`.config.Env.PATH: image "/evil", rebuilt "/usr/local/bin"`)
	config("an added variable", func(c *image.ConfigFile) { c.Config.Env = append(c.Config.Env, "LD_PRELOAD=/evil.so") },
		`.config.Env.LD_PRELOAD: image "/evil.so", the rebuilt has none`)
	config("what go-containerregistry's type lacks", func(c *image.ConfigFile) { c.Config.Healthcheck.StartInterval = 0 },
		`.config.Healthcheck.StartInterval: image none, the rebuilt has 1000000000`)
	config("a label", func(c *image.ConfigFile) { c.Config.Labels["org.opencontainers.image.licenses"] = "none" },
		`.config.Labels["org.opencontainers.image.licenses"]: image "none"`)
	config("the label of the release", func(c *image.ConfigFile) { c.Config.Labels[image.LabelVersion] = "1.0.1" },
		`.config.Labels["org.opencontainers.image.version"]: image "1.0.1"`)
	config("entrypoint", func(c *image.ConfigFile) { c.Config.Entrypoint = []string{"/usr/local/bin/derper"} },
		`.config.Entrypoint[0]: image "/usr/local/bin/derper", rebuilt "/entrypoint"`)
	config("user", func(c *image.ConfigFile) { c.Config.User = "0:0" }, `.config.User: image "0:0", the rebuilt has none`)
	config("created", func(c *image.ConfigFile) { c.Created = v1.Time{Time: time.Unix(1e9, 0).UTC()} },
		`.created: image "2001-09-09T01:46:40Z"`)
	t.Run("an annotation of the manifest", func(t *testing.T) {
		s := image1(t, imagetest.Annotate(t, f.images[0], "evil", "yes"))
		wantFirst(t, s, LevelManifest, "The manifest on linux/amd64", `.annotations.evil: image "yes", the rebuilt has none`)
		wantOnly(t, s)
	})

	// What is stated of an image beside it, in the index.
	beside := func(t *testing.T, attestations ...v1.Image) *Subject {
		index, err := image.Index(in, f.platforms, f.images, attestations...)
		if err != nil {
			t.Fatal(err)
		}
		return f.verify(t, f.layoutOf(t, index))
	}
	t.Run("an SBOM with another name", func(t *testing.T) {
		s := beside(t, restate(t, f.attestations[0], `"name":"derper"`, `"name":"relay"`), f.attestations[1])
		wantFirst(t, s, LevelAttestation, "What is stated beside the image on linux/amd64", attest.SPDX+": .predicate.packages[0].name: image \"relay\", rebuilt \"derper\"")
		wantOnly(t, s)
	})
	t.Run("provenance with another source", func(t *testing.T) {
		s := beside(t, restate(t, f.attestations[0], "github.com/tailscale/tailscale", "example.com/evil"), f.attestations[1])
		wantFirst(t, s, LevelAttestation, attest.SLSA, "example.com/evil")
		wantOnly(t, s)
	})
	t.Run("no attestation", func(t *testing.T) {
		s := beside(t)
		wantFirst(t, s, LevelAttestation, "on all 2 platforms", "the index has no attestation of the image")
		wantOnly(t, s)
	})
	t.Run("another image's attestation", func(t *testing.T) {
		s := beside(t, f.attestations[1], f.attestations[0])
		wantFirst(t, s, LevelAttestation, "on all 2 platforms", "the statements are about another digest than the image's")
		wantOnly(t, s)
	})
	t.Run("an attestation of no image", func(t *testing.T) {
		index, err := image.Index(in, f.platforms[:1], f.images[:1], f.attestations[0])
		if err != nil {
			t.Fatal(err)
		}
		evil := mutate.AppendManifests(f.index, mutate.IndexAddendum{Add: f.attestations[0], Descriptor: v1.Descriptor{
			Platform:    &v1.Platform{OS: "unknown", Architecture: "unknown"},
			Annotations: map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": digestOfIndex(t, index)},
		}})
		s := f.verify(t, f.layoutOf(t, evil))
		wantFirst(t, s, LevelIndex, "the index has an entry marked as an attestation of "+digestOfIndex(t, index)+" that is not an attestation of an image in the index")
		wantOnly(t, s)
	})

	// The index.
	t.Run("a missing platform", func(t *testing.T) {
		s := f.verify(t, f.layout(t, f.platforms[:1], f.images[:1]))
		wantFirst(t, s, LevelIndex, "the index has no image for linux/arm64", "the lock at hand has linux/amd64, linux/arm64")
		wantOnly(t, s)
	})
	t.Run("an added platform", func(t *testing.T) {
		s := f.verify(t, f.layout(t, append(f.platforms[:2:2], "linux/s390x"), append(f.images[:2:2], f.images[0])))
		wantFirst(t, s, LevelIndex, "the index has linux/s390x besides")
		wantOnly(t, s)
	})
	t.Run("a platform twice", func(t *testing.T) {
		s := f.verify(t, f.layout(t, append(f.platforms[:2:2], f.platforms[0]), append(f.images[:2:2], f.images[1])))
		wantFirst(t, s, LevelIndex, "the index has linux/amd64 once more")
		wantOnly(t, s)
	})
	t.Run("platforms that changed places", func(t *testing.T) {
		s := f.verify(t, f.layout(t, f.platforms, []v1.Image{f.images[1], f.images[0]}))
		wantFirst(t, s, LevelIndex, "the index calls it linux/amd64, and it is the image for linux/arm64")
	})
	t.Run("another platform's image, that one not rebuilt", func(t *testing.T) {
		v := f.verifier(t)
		v.Platforms = f.platforms[:1]
		s := f.run(t, v, f.layout(t, f.platforms, []v1.Image{f.images[1], f.images[1]}))
		wantFirst(t, s, LevelIndex, "the index calls it linux/amd64, and it is an image for linux/arm64")
		wantOnly(t, s)
	})
	t.Run("a config that claims another platform", func(t *testing.T) {
		s := image1(t, imagetest.Config(t, f.images[0], func(c *image.ConfigFile) { c.Architecture = "arm64" }))
		wantFirst(t, s, LevelConfig, `.architecture: image "arm64", rebuilt "amd64"`)
		wantOnly(t, s)
	})
	t.Run("order of the platforms", func(t *testing.T) {
		s := f.verify(t, f.layout(t, []lock.Platform{f.platforms[1], f.platforms[0]}, []v1.Image{f.images[1], f.images[0]}))
		wantFirst(t, s, LevelIndex, "the platforms stand in another order: linux/arm64, linux/amd64")
		wantOnly(t, s)
	})
	t.Run("an annotation of the index", func(t *testing.T) {
		index := mutate.Annotations(f.index, map[string]string{"evil": "yes"}).(v1.ImageIndex)
		s := f.verify(t, f.layoutOf(t, index))
		wantFirst(t, s, LevelIndex, `.annotations.evil: image "yes", the rebuilt has none`)
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
	t.Run("rewritten JSON", func(t *testing.T) {
		dir := f.layoutOf(t, f.index)
		rewriteIndex(t, dir, f.output.Index)
		s := f.verify(t, dir)
		wantFirst(t, s, LevelIndex, "the same values, written in another way")
		wantOnly(t, s)
	})
}

// rewriteIndex indents the index of a layout.
func rewriteIndex(t *testing.T, dir, digest string) {
	t.Helper()
	blobs := filepath.Join(dir, "blobs", "sha256")
	data, err := os.ReadFile(filepath.Join(blobs, strings.TrimPrefix(digest, "sha256:")))
	if err != nil {
		t.Fatal(err)
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, data, "", "    "); err != nil {
		t.Fatal(err)
	}
	now := sha(indented.Bytes())
	top, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err == nil {
		err = os.WriteFile(filepath.Join(blobs, strings.TrimPrefix(now, "sha256:")), indented.Bytes(), 0o644)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "index.json"), bytes.ReplaceAll(top, []byte(digest), []byte(now)), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func digestOfIndex(t *testing.T, index v1.ImageIndex) string {
	t.Helper()
	digest, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest.String()
}

// restate changes a text in the statements of an attestation, once.
func restate(t *testing.T, attestation v1.Image, old, new string) v1.Image {
	t.Helper()
	layers, err := attestation.Layers()
	if err != nil {
		t.Fatal(err)
	}
	var blobs []attest.Blob
	changed := false
	for _, l := range layers {
		r, err := l.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		changed = changed || bytes.Contains(data, []byte(old))
		blobs = append(blobs, attest.Bytes(bytes.Replace(data, []byte(old), []byte(new), 1)))
	}
	if !changed {
		t.Fatalf("no statement has %q", old)
	}
	evil, err := attest.Embed(blobs[0], blobs[1])
	if err != nil {
		t.Fatal(err)
	}
	return evil
}

// flip changes one byte in the middle of a function of a compiled program.
func flip(t *testing.T, program []byte, function string) []byte {
	t.Helper()
	file, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		t.Fatal(err)
	}
	text := file.Section(".text")
	table, err := file.Section(".gopclntab").Data()
	if err != nil {
		t.Fatal(err)
	}
	symbols, err := gosym.NewTable(nil, gosym.NewLineTable(table, text.Addr))
	if err != nil {
		t.Fatal(err)
	}
	fn := symbols.LookupFunc(function)
	program[fn.Entry-text.Addr+text.Offset+(fn.End-fn.Entry)/2] ^= 1
	return program
}

// certificate is a root of somebody's own, in PEM.
func certificate(t *testing.T, name string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
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
