package verify

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	ocilayout "github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/mod/module"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/testing/attesttest"
	"github.com/xavieralpha/derper/internal/testing/freeport"
	"github.com/xavieralpha/derper/internal/testing/hostile"
	"github.com/xavieralpha/derper/internal/testing/imagetest"
	"github.com/xavieralpha/derper/internal/testing/need"
	"github.com/xavieralpha/derper/internal/testing/registrytest"
	"github.com/xavieralpha/derper/internal/testing/releasetest"
	"github.com/xavieralpha/derper/internal/upstream"
)

// TestSources guards that an image is found and verified wherever it is, and that
// what a place does not have is said to be skipped.
func TestSources(t *testing.T) {
	f := newFixture(t)
	dir := f.layoutOf(t, f.index)

	t.Run("registry", func(t *testing.T) {
		r := registrytest.Distribution(t, registrytest.Options{})
		tag := r.Repository("derper") + ":1"
		ref, err := name.NewTag(tag)
		if err == nil {
			err = remote.WriteIndex(ref, f.index)
		}
		if err != nil {
			t.Fatal(err)
		}
		s := f.verify(t, tag)
		wantVerified(t, s)
		if says := strings.Join(s.MeansNot, "\n"); !strings.Contains(says, "what the tag will name next: this is about "+f.output.Index) {
			t.Errorf("does not warn of a tag:\n%s", says)
		}
		s = f.verify(t, r.Repository("derper")+"@"+f.output.Index)
		wantVerified(t, s)
		if says := strings.Join(s.MeansNot, "\n"); strings.Contains(says, "tag") {
			t.Errorf("warns of a tag where there is none:\n%s", says)
		}
		// One platform's image, by its own digest.
		s = f.verify(t, r.Repository("derper")+"@"+f.output.Platforms[1].Manifest)
		wantVerified(t, s)
		if s.Kind != KindImage || len(s.Platforms) != 1 || s.Platforms[0].Platform != "linux/arm64" {
			t.Errorf("is about a %s of %v", s.Kind, s.Platforms)
		}
	})
	t.Run("OCI archive", func(t *testing.T) {
		archive := filepath.Join(t.TempDir(), "oci.tar")
		pack := tarFolder(t, dir)
		writeFile(t, archive, pack)
		wantVerified(t, f.verify(t, archive))
		writeFile(t, archive, pack[:len(pack)/2])
		wantError(t, f.verify(t, archive), image.ErrCorrupt, archive+": corrupt: the archive ends too early")
	})
	t.Run("docker archive", func(t *testing.T) {
		archive := filepath.Join(t.TempDir(), "docker.tar")
		if err := image.WriteTarball(archive, "derper:1", f.images[0]); err != nil {
			t.Fatal(err)
		}
		s := f.verify(t, archive)
		wantVerified(t, s)
		wantSkip(t, s, LevelManifest, "a docker archive has none")
		if says := s.Platforms[0].Summary(); !strings.HasPrefix(says, "3 programs, ") {
			t.Errorf("there is no digest of a manifest, and the summary is %q", says)
		}
		if s.Platforms[0].Count(Pass, LevelCompression) != 4 {
			t.Errorf("the compression of the layers is there, and was not compared:\n%s", text(s))
		}
	})
	t.Run("docker save, layers unpacked", func(t *testing.T) {
		archive := filepath.Join(t.TempDir(), "save.tar")
		writeFile(t, archive, dockerSave(t, f.images[0]))
		s := f.verify(t, archive)
		wantVerified(t, s)
		wantSkip(t, s, LevelManifest, "a docker archive has none")
		wantSkip(t, s, LevelCompression, "the archive has the layer uncompressed")
		for _, want := range []string{"manifest of linux/amd64: a docker archive has none", "layer derper of linux/amd64: the archive has"} {
			if says := strings.Join(s.MeansNot, "\n"); !strings.Contains(says, want) {
				t.Errorf("does not say what was not compared: %q:\n%s", want, says)
			}
		}
	})
	t.Run("without a lock at hand", func(t *testing.T) {
		v := f.verifier(t)
		v.Lock, v.Platforms = nil, f.platforms[:1]
		s := f.run(t, v, dir)
		wantVerified(t, s)
		wantCheck(t, s.Inputs, "commit", Skip, "the image's own claim")
		if says := strings.Join(s.MeansNot, "\n"); !strings.Contains(says, "the inputs that you would choose") {
			t.Errorf("does not say who chose the inputs:\n%s", says)
		}
		// All that this program knows must be there when all are asked for.
		v.Platforms = nil
		s = f.run(t, v, dir)
		wantFirst(t, s, LevelIndex, "the index has no image for linux/386", "this program builds for linux/amd64, ")
	})
	t.Run("a lock of another release", func(t *testing.T) {
		v := f.verifier(t)
		v.Lock.Inputs.Tailscale.Version = "v1.0.1"
		v.Platforms = f.platforms
		s := f.run(t, v, dir)
		wantVerified(t, s)
		wantCheck(t, s.Inputs, "lock at hand", Skip, "names another release, v1.0.1")
	})
	t.Run("a lock with other sums", func(t *testing.T) {
		v := f.verifier(t)
		v.Lock.Inputs.Tailscale.Sum = "h1:" + strings.Repeat("A", 43) + "="
		wantFirst(t, f.run(t, v, dir), LevelInput, "lock at hand", "tailscale.com@"+f.release.Inputs.Tailscale.Version+": the lock has h1:AAAA", "the checksum database h1:")
	})
	t.Run("one platform of several", func(t *testing.T) {
		v := f.verifier(t)
		v.Platforms = f.platforms[1:]
		s := f.run(t, v, dir)
		wantVerified(t, s)
		if p := s.Platforms[0]; p.Result != Skip || p.Platform != "linux/amd64" {
			t.Errorf("%s: %s, want it skipped", p.Platform, p.Result)
		}
		wantCheck(t, s.Index, "index", Skip, "1 of its 2 platforms were rebuilt")
		v.Platforms = []lock.Platform{"linux/s390x"}
		if s := f.run(t, v, dir); s.Verdict != Unverified {
			t.Errorf("nothing was compared, and the verdict is %q:\n%s", s.Verdict, text(s))
		}
	})
}

// TestCannotVerify guards what is said of an image that cannot be verified, and that
// nothing is compiled for it.
func TestCannotVerify(t *testing.T) {
	f := newFixture(t, "linux/amd64")
	layout := func(t *testing.T) string { return f.layoutOf(t, f.index) }
	blob := func(dir, digest string) string {
		return filepath.Join(dir, "blobs", "sha256", strings.TrimPrefix(digest, "sha256:"))
	}
	derper := f.output.Platforms[0].Layers[2].Digest

	t.Run("no such folder", func(t *testing.T) {
		wantError(t, f.verify(t, "./nowhere"), image.ErrNotFound, "./nowhere: no such file or folder")
	})
	t.Run("no reference", func(t *testing.T) {
		wantError(t, f.verify(t, "UPPER CASE"), image.ErrNotFound, "neither a file, nor a folder, nor a reference")
	})
	t.Run("no layout", func(t *testing.T) {
		wantError(t, f.verify(t, t.TempDir()), image.ErrNotFound, "has no index.json")
	})
	t.Run("no archive", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "image.tar.gz")
		writeFile(t, file, bytes.Repeat([]byte("no archive "), 200))
		wantError(t, f.verify(t, file), image.ErrNotFound, "not a tar archive, or a compressed one")
	})
	t.Run("not in the registry", func(t *testing.T) {
		r := registrytest.Memory(t, registrytest.Options{})
		wantError(t, f.verify(t, r.Repository("derper")+":1"), image.ErrNotFound, "no such image in "+r.Host)
	})
	t.Run("no permission", func(t *testing.T) {
		r := registrytest.Distribution(t, registrytest.Options{Username: "alice", Password: "secret"})
		wantError(t, f.verify(t, r.Repository("derper")+":1"), image.ErrNotFound, "or no permission to read it (docker login "+r.Host+")")
	})
	t.Run("registry away", func(t *testing.T) {
		port, err := freeport.Choose("127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		host := fmt.Sprintf("127.0.0.1:%d", port)
		wantError(t, f.verify(t, host+"/derper:1"), registry.ErrUnreachable, "registry cannot be reached: "+host)
	})
	t.Run("a blob is missing", func(t *testing.T) {
		dir := layout(t)
		if err := os.Remove(blob(dir, derper)); err != nil {
			t.Fatal(err)
		}
		wantError(t, f.verify(t, dir), image.ErrCorrupt, "layer 3 of linux/amd64: "+derper+": corrupt: the layout does not have it")
	})
	t.Run("a blob is cut off", func(t *testing.T) {
		dir := layout(t)
		if err := os.Truncate(blob(dir, derper), 1000); err != nil {
			t.Fatal(err)
		}
		wantError(t, f.verify(t, dir), image.ErrCorrupt, "layer 3 of linux/amd64: "+derper+": corrupt: the content has digest sha256:")
	})
	t.Run("a manifest is another", func(t *testing.T) {
		dir := layout(t)
		manifest := f.output.Platforms[0].Manifest
		data := bytes.ReplaceAll(readAllOf(t, blob(dir, manifest)), []byte("derper"), []byte("DERPER"))
		writeFile(t, blob(dir, manifest), data)
		wantError(t, f.verify(t, dir), image.ErrCorrupt, manifest+": corrupt: the content has digest sha256:")
	})
	t.Run("not ours", func(t *testing.T) {
		img, err := random.Image(1000, 2)
		if err != nil {
			t.Fatal(err)
		}
		wantError(t, f.verify(t, oneImage(t, img)), image.ErrForeign, "is not an image of this project: nothing in it says org.opencontainers.image.version")
	})
	claims := func(t *testing.T, name, value string) string {
		return oneImage(t, imagetest.Edit(t, f.images[0], func(c *image.ConfigFile, m *v1.Manifest) {
			c.Config.Labels[name], m.Annotations[name] = value, value
		}))
	}
	t.Run("another format", func(t *testing.T) {
		s := f.verify(t, claims(t, image.LabelFormat, "99"))
		wantError(t, s, nil, "it is an image of format 99, made by an older or a newer build program, and this one makes format 3: verify it with the program of the revision")
	})
	t.Run("the format before revisions", func(t *testing.T) { // of which v1.102.3 was published
		old := func(list map[string]string) {
			for _, name := range []string{image.LabelFormat, image.LabelTailscale, image.LabelPrograms, image.LabelVariant} {
				delete(list, name)
			}
			list[labelFormat1], list[image.LabelVersion] = "1", "1.102.3"
		}
		s := f.verify(t, oneImage(t, imagetest.Edit(t, f.images[0], func(c *image.ConfigFile, m *v1.Manifest) {
			old(c.Config.Labels)
			old(m.Annotations)
		})))
		wantError(t, s, nil, "it is an image of format 1, made by an older or a newer build program")
	})
	t.Run("a program from elsewhere", func(t *testing.T) {
		s := f.verify(t, claims(t, image.LabelPrograms, `[{"package":"example.com/derper"},{"package":"tailscale.com/cmd/tailscaled"}]`))
		wantError(t, s, image.ErrForeign, "no package of tailscale.com")
	})
	t.Run("no JSON", func(t *testing.T) {
		wantError(t, f.verify(t, claims(t, image.LabelVariant, "{")), image.ErrForeign, "claims "+image.LabelVariant+" {")
	})
	t.Run("a release that is not", func(t *testing.T) {
		v := f.verifier(t)
		// Where the proxy does not have it, it is asked for directly, which is here, too.
		v.Modules = &modproxy.Client{Proxies: f.release.Proxy, SumDB: f.release.SumDB + " " + f.release.Proxy + "/sumdb/sum.example.com", Dir: t.TempDir(), Temp: t.TempDir()}
		s := f.run(t, v, claims(t, image.LabelTailscale, "v1.99.99"))
		wantError(t, s, nil, "claims to be made of tailscale.com@v1.99.99, which the checksum database does not know")
	})
	t.Run("a release that is no version", func(t *testing.T) {
		wantError(t, f.verify(t, claims(t, image.LabelTailscale, "v../../x\x1b")), image.ErrForeign, `claims "tailscale.com@v../../x\x1b"`)
	})
	t.Run("a commit that is no release", func(t *testing.T) {
		for _, version := range []string{"v1.103.0-0.20260102030405-0123456789ab", "v1.102.4-0.20260102030405-0123456789ab", "v1.0.0-20260102030405-0123456789ab", "v1.103.0-pre.0.20260102030405-0123456789ab"} {
			wantError(t, f.verify(t, claims(t, image.LabelTailscale, version)), image.ErrForeign, "claims to be made of tailscale "+version+", a commit that is not a release")
		}
	})
	t.Run("a commit that is none", func(t *testing.T) {
		wantError(t, f.verify(t, claims(t, image.LabelCommit, "abc")), image.ErrForeign, `"abc" is no git commit`)
	})
	t.Run("module proxy away", func(t *testing.T) {
		v := f.verifier(t)
		v.Modules.Dir = t.TempDir() // else it still knows the sums
		f.release.Close()
		s := f.run(t, v, layout(t))
		if s.Verdict != Unverified || s.Err == nil {
			t.Errorf("verdict is %q:\n%s", s.Verdict, text(s))
		}
	})
	for _, r := range f.release.Requests() {
		if strings.Contains(r, "v1.99.99.zip") {
			t.Errorf("asked for %s", r)
		}
	}
}

// TestVariantClaims guards that an image is not what it says only because it says so: it is
// made again with the files and the user that it claims, bit for bit, and yet is refused
// unless they are known here.
func TestVariantClaims(t *testing.T) {
	r := releasetest.New(t, "../..")
	r.Inputs.Source, r.Inputs.Revision = "https://example.com/fork", 7
	r.Inputs.Variants[0].User = "65532"
	r.Inputs.Variants[0].Files = []lock.Entry{{Path: "etc/ssl/certs/ours.crt", Mode: "0644", Text: "trust us"}}
	f := buildFixture(t, r, "linux/amd64")
	ref := f.layoutOf(t, f.index)
	if s := f.verify(t, ref); s.Verdict != Verified {
		t.Errorf("with the lock at hand:\n%s", text(s))
	}
	v := f.verifier(t)
	v.Lock, v.Platforms = nil, f.platforms
	s := f.run(t, v, ref)
	wantFirst(t, s, LevelInput, "variant default", "files or a user that this program does not know", "ours.crt")
	if s.Release.Version != "1.102.3-r7" || !strings.Contains(text(s), "https://example.com/fork") {
		t.Errorf("claims %+v", s.Release)
	}

	// Build tags follow upstream's releases, and are told.
	r.Inputs.Variants, r.Inputs.Programs = lock.Defaults().Variants[:1], slices.Clone(r.Inputs.Programs)
	r.Inputs.Programs[1].Tags = []string{"ts_omit_ssh"}
	f = buildFixture(t, r, "linux/amd64")
	v = f.verifier(t)
	v.Lock, v.Platforms = nil, f.platforms
	s = f.run(t, v, f.layoutOf(t, f.index))
	i := slices.IndexFunc(s.Inputs, func(c Check) bool { return c.Name == "variant default" })
	if i < 0 || s.Inputs[i].Result != Skip || !strings.Contains(text(s), "tailscaled with the build tags ts_omit_ssh") {
		t.Errorf("build tags:\n%s", text(s))
	}
}

// TestLockContradicts guards that the lock of the very revision counts for more than what an
// image claims, and that a program is no other program of the same name.
func TestLockContradicts(t *testing.T) {
	r := releasetest.New(t, "../..")
	r.Inputs.Platforms = []lock.Platform{"linux/amd64"}
	honest := &lock.Lock{Schema: lock.SchemaVersion, Inputs: r.Inputs}
	for name, change := range map[string]func(p *lock.Program){
		"tags":    func(p *lock.Program) { p.Tags = []string{"x"} },
		"package": func(p *lock.Program) { p.Package = "tailscale.com/other/derper" },
	} {
		t.Run(name, func(t *testing.T) {
			r.Inputs.Programs = slices.Clone(honest.Inputs.Programs)
			change(&r.Inputs.Programs[0])
			f := buildFixture(t, r, "linux/amd64")
			ref := f.layoutOf(t, f.index)
			v := f.verifier(t)
			v.Lock = honest
			s := f.run(t, v, ref)
			if i := slices.IndexFunc(s.Inputs, func(c Check) bool { return c.Name == lockAtHand }); i < 0 || s.Inputs[i].Result != Fail || s.Verdict != Differs {
				t.Errorf("with the honest lock:\n%s", text(s))
			}
			v.Lock, v.Platforms = nil, f.platforms
			s = f.run(t, v, ref)
			if i := slices.IndexFunc(s.Inputs, func(c Check) bool { return c.Name == "variant default" }); i < 0 || (s.Inputs[i].Result == Fail) != (name == "package") {
				t.Errorf("without a lock:\n%s", text(s))
			}
		})
	}
}

// TestManyReferences guards that one run verifies several images, that one which
// cannot be verified keeps no other from it, and that what all need is made once.
func TestManyReferences(t *testing.T) {
	f := newFixture(t, "linux/amd64")
	good := f.layoutOf(t, f.index)
	bad := f.layout(t, f.platforms, []v1.Image{imagetest.Annotate(t, f.images[0], "evil", "yes")})
	v := f.verifier(t)
	v.Fresh = true // so that what is no longer needed is dropped
	report, err := v.References(t.Context(), []string{good, "./nowhere", bad, good})
	if err != nil {
		t.Fatal(err)
	}
	if report.Verdict != Differs {
		t.Errorf("verdict of all is %q, want %q", report.Verdict, Differs)
	}
	for i, want := range []Verdict{Verified, Unverified, Differs, Verified} {
		if got := report.Subjects[i].Verdict; got != want {
			t.Errorf("%s: %q, want %q", report.Subjects[i].Ref, got, want)
		}
	}
	if report.DiskBytes < 1<<20 {
		t.Errorf("took %d bytes on disk at most", report.DiskBytes)
	}
	runs, err := f.builder().Build(t.Context(), f.platforms)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range runs.Runs {
		if !r.Cached {
			t.Errorf("%s was dropped while a later image needed it", r.Action)
		}
	}
	if _, err := v.References(t.Context(), []string{good, "./nowhere"}); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(f.cache.Dir(), "actions", "*.json")); len(left) > 0 {
		t.Errorf("nothing needs these results any more: %v", left)
	}
	if left, _ := filepath.Glob(filepath.Join(f.cache.Temp(), "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestLocked guards verification of a lock: what it records must be what comes out.
func TestLocked(t *testing.T) {
	f := newFixture(t)
	verify := func(t *testing.T, change func(l *lock.Lock)) *Subject {
		v := f.verifier(t)
		v.Lock = new(lock.Lock)
		data, err := json.Marshal(f.lock()) // deep, for change
		if err == nil {
			err = json.Unmarshal(data, v.Lock)
		}
		if err != nil {
			t.Fatal(err)
		}
		change(v.Lock)
		r, err := v.Locked(t.Context(), "versions.json")
		if err != nil {
			t.Fatal(err)
		}
		return r.Subjects[0]
	}
	other := "sha256:" + strings.Repeat("0", 64)
	t.Run("right", func(t *testing.T) { wantVerified(t, verify(t, func(*lock.Lock) {})) })
	t.Run("binary", func(t *testing.T) {
		s := verify(t, func(l *lock.Lock) { l.Output().Platforms[0].Binaries[0].Digest = other })
		wantFirst(t, s, LevelBinary, "derper on linux/amd64", "the lock records "+other)
	})
	t.Run("layer", func(t *testing.T) {
		s := verify(t, func(l *lock.Lock) { l.Output().Platforms[0].Layers[0].DiffID = other })
		wantFirst(t, s, LevelEntry, "layer base on linux/amd64", "the lock records "+other)
	})
	t.Run("compression", func(t *testing.T) {
		s := verify(t, func(l *lock.Lock) { l.Output().Platforms[0].Layers[0].Digest = other })
		wantFirst(t, s, LevelCompression, "layer base on linux/amd64", "the lock records "+other)
	})
	t.Run("index", func(t *testing.T) {
		s := verify(t, func(l *lock.Lock) { l.Output().Index = other })
		wantFirst(t, s, LevelIndex, "the lock records "+other)
		wantOnly(t, s)
	})
	t.Run("sum", func(t *testing.T) {
		s := verify(t, func(l *lock.Lock) { l.Inputs.Roots.Sum = l.Inputs.Tailscale.Sum })
		wantFirst(t, s, LevelInput, "the lock has the sum "+f.release.Inputs.Tailscale.Sum)
		if len(s.Platforms) > 0 {
			t.Error("built from inputs that are wrong")
		}
	})
	t.Run("a commit that is no release", func(t *testing.T) {
		s := verify(t, func(l *lock.Lock) { l.Inputs.Tailscale.Version = "v1.103.0-0.20260102030405-0123456789ab" })
		wantError(t, s, image.ErrForeign, "a commit that is not a release")
	})
	t.Run("another variant", func(t *testing.T) {
		v, recorded := f.verifier(t), f.lock()
		other := attesttest.Other()
		v.Lock = &lock.Lock{Schema: recorded.Schema, Inputs: recorded.Inputs, Outputs: map[string]*lock.Output{
			lock.Default: recorded.Output(), other.Name: recorded.Output(), // which is of the default one
		}}
		v.Lock.Inputs.Variants = append(slices.Clone(recorded.Inputs.Variants), other)
		v.Variants = []string{lock.Default}
		r, err := v.Locked(t.Context(), "versions.json")
		if err != nil || len(r.Subjects) != 1 {
			t.Fatalf("%d subjects, %v; want that of the one variant that was asked for", len(r.Subjects), err)
		}
		wantVerified(t, r.Subjects[0])
		v.Variants = nil
		r, err = v.Locked(t.Context(), "versions.json")
		if err != nil || len(r.Subjects) != 2 || r.Subjects[1].Ref != "versions.json other" || r.Subjects[1].Verdict != Differs {
			t.Fatalf("%+v, %v; want another subject, which differs", r.Subjects, err)
		}
		wantVerified(t, r.Subjects[0])
	})
	t.Run("nothing recorded", func(t *testing.T) {
		v := f.verifier(t)
		v.Lock.Outputs = nil
		if _, err := v.Locked(t.Context(), "versions.json"); !errors.Is(err, lock.ErrNoOutputs) {
			t.Errorf("error is %v, want %v", err, lock.ErrNoOutputs)
		}
	})
}

// TestSource guards the proof from upstream's git repository.
func TestSource(t *testing.T) {
	repository := releasetest.NewRepository(t, releasetest.New(t, "../.."))
	// A release that compiles.
	repository.Commit(t, map[string]string{
		"cmd/derper/derper.go":   "package main\n\nfunc main() {}\n",
		"cmd/tailscaled/main.go": "package main\n\nfunc main() {}\n",
		"go.sum":                 "",
	})
	const version = "v1.102.4"
	release := &repository.Inputs.Tailscale
	release.Version = version
	release.Commit, release.Time = repository.Publish(t, version)
	modules := &modproxy.Client{Proxies: repository.Proxy, SumDB: repository.SumDB, Dir: t.TempDir(), Temp: t.TempDir()}
	var err error
	if release.Sum, err = modules.Sum(t.Context(), module.Version{Path: lock.TailscaleModule, Version: version}); err != nil {
		t.Fatal(err)
	}
	built := buildFixture(t, repository.Release, "linux/amd64")
	dir := built.layoutOf(t, built.index)
	source := func(t *testing.T) *Subject {
		v := built.verifier(t)
		v.Lock = nil
		v.Platforms = built.platforms
		v.Source = &upstream.Source{Modules: v.Modules, Repository: repository.URL, Warn: t.Logf}
		return built.run(t, v, dir)
	}
	s := source(t)
	wantVerified(t, s)
	wantCheck(t, s.Inputs, "source "+version, Pass, "the git tag names the commit")
	wantCheck(t, s.Inputs, "commit", Pass, "the git tag names the same")

	repository.Commit(t, map[string]string{"cmd/derper/evil.go": "package main\n"})
	repository.Tag(t, version)
	s = source(t)
	wantFirst(t, s, LevelInput, "source "+version, "commit")
}

// TestCommit guards what the module proxy says of the commit that an image names, which no
// checksum database knows.
// The mistake it guards: a proxy that has the release from another commit counted only where
// it named the tag, too.
func TestCommit(t *testing.T) {
	f := newFixture(t, "linux/amd64")
	dir := f.layoutOf(t, f.index)
	release := f.release.Inputs.Tailscale
	other := strings.Repeat("0123456789", 4)
	for _, test := range []struct {
		origin string
		want   Result
		says   string
	}{
		{`"Hash":"` + release.Commit + `","Ref":"refs/tags/` + release.Version + `"`, Pass, "the module proxy names the same"},
		{`"Hash":"` + release.Commit + `"`, Skip, "nothing confirms it"},
		{`"Hash":"` + release.Commit + `","Ref":"refs/heads/main"`, Skip, "nothing confirms it"},
		{`"Ref":"refs/tags/` + release.Version + `"`, Skip, "nothing confirms it"},
		{`"Hash":"` + other + `","Ref":"refs/tags/` + release.Version + `"`, Fail, "the module proxy says " + other},
		{`"Hash":"` + other + `"`, Fail, "the module proxy says " + other},
		{`"Hash":"` + other + `","Ref":"refs/heads/main"`, Fail, "the module proxy says " + other},
	} {
		f.release.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
			if !strings.HasSuffix(req.URL.Path, lock.TailscaleModule+"/@v/"+release.Version+".info") {
				return false
			}
			fmt.Fprintf(w, `{"Version":%q,"Time":%q,"Origin":{"VCS":"git",%s}}`, release.Version, release.Time.Format(time.RFC3339), test.origin)
			return true
		})
		v := f.verifier(t)
		v.Lock, v.Platforms = nil, f.platforms
		s := f.run(t, v, dir)
		wantCheck(t, s.Inputs, "commit", test.want, test.says)
		if (s.Verdict == Differs) != (test.want == Fail) {
			t.Errorf("%s: verdict is %q", test.origin, s.Verdict)
		}
	}
}

// TestReport guards the report's forms: JSON that has all of it, and a page that
// stands for itself and runs nothing that an image brings along.
func TestReport(t *testing.T) {
	f := newFixture(t, "linux/amd64")
	const evil = "<script>alert(1)</script>"
	dir := f.layout(t, f.platforms, []v1.Image{imagetest.Annotate(t, f.images[0], evil, evil)})
	r, err := f.verifier(t).References(t.Context(), []string{dir})
	if err != nil {
		t.Fatal(err)
	}
	var data, page, lines bytes.Buffer
	if err := errors.Join(r.WriteJSON(&data), r.WriteHTML(&page), r.WriteText(&lines)); err != nil {
		t.Fatal(err)
	}
	if want := "\n\n" + r.Summary() + "\n"; !strings.HasSuffix(lines.String(), want) {
		t.Errorf("the text does not end in %q:\n%q", want, lines.String())
	}
	var back Report
	if err := json.Unmarshal(data.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if back.Verdict != Differs || len(back.Subjects[0].Platforms[0].Checks) != len(r.Subjects[0].Platforms[0].Checks) {
		t.Error("the JSON does not have all of the report")
	}
	if strings.Contains(page.String(), evil) || !strings.Contains(page.String(), "&lt;script&gt;alert(1)") {
		t.Error("what the image says is not escaped")
	}
	for _, outside := range []string{"<script", "<link", "<img", "@import", "url("} {
		if strings.Contains(page.String(), outside) {
			t.Errorf("the page has %q: it is to need nothing from elsewhere", outside)
		}
	}
	for _, want := range []string{"What differs", "linux/amd64", "FAIL", "usr/local/bin/derper", "no PASS"} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the page does not say %q", want)
		}
	}
}

// TestPageInBrowser guards that a browser shows the page: with its verdict, without an
// error, and not wider than a phone.
func TestPageInBrowser(t *testing.T) {
	browser := need.Browser(t)
	f := newFixture(t, "linux/amd64")
	dir := f.layout(t, f.platforms, []v1.Image{f.edit(t, "derper", hostile.Replace(derperFile, func(b []byte) []byte { return hostile.Flip(t, b, "main.main") }))})
	r, err := f.verifier(t).References(t.Context(), []string{dir})
	if err != nil {
		t.Fatal(err)
	}
	var page bytes.Buffer
	if err := r.WriteHTML(&page); err != nil {
		t.Fatal(err)
	}
	page.WriteString(`<script>document.title = "shown " + innerWidth + " " + document.documentElement.scrollWidth + " " +
		getComputedStyle(document.querySelector(".verdict")).display + " " + document.querySelectorAll("details[open]").length;</script>`)
	file := filepath.Join(t.TempDir(), "report.html")
	writeFile(t, file, page.Bytes())
	home := t.TempDir()
	cmd := exec.Command(browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=390,800", "--user-data-dir="+home, "--dump-dom", "file://"+file)
	cmd.Env = append(os.Environ(), "HOME="+home)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var inner, width, open int
	var display string
	_, title, _ := strings.Cut(string(out), "<title>")
	if _, err := fmt.Sscanf(title, "shown %d %d %s %d", &inner, &width, &display, &open); err != nil {
		t.Fatalf("%v: %.200s", err, title)
	}
	if width > inner || inner > 600 {
		t.Errorf("the page is %d pixels wide in a window of %d", width, inner)
	}
	if display != "inline-block" || open != 1 {
		t.Errorf("the verdict is shown as %s, and %d platforms are open, want the one that failed", display, open)
	}
}

// TestVerdict guards that SKIP never counts as PASS.
func TestVerdict(t *testing.T) {
	pass := func(l Level) Check { return Check{Level: l, Result: Pass} }
	skip := func(l Level) Check { return Check{Level: l, Result: Skip} }
	fail := func(l Level) Check { return Check{Level: l, Result: Fail} }
	whole := []Check{pass(LevelBinary), pass(LevelEntry), pass(LevelCompression), pass(LevelConfig), pass(LevelManifest)}
	for name, test := range map[string]struct {
		checks []Check
		index  Check
		want   Verdict
	}{
		"all pass":              {whole, pass(LevelIndex), Verified},
		"nothing":               {nil, pass(LevelIndex), Unverified},
		"all skipped":           {[]Check{skip(LevelBinary), skip(LevelConfig)}, skip(LevelIndex), Unverified},
		"binary skipped":        {append(whole[1:5:5], skip(LevelBinary)), pass(LevelIndex), Unverified},
		"entry skipped":         {append(whole[:5:5], skip(LevelEntry)), pass(LevelIndex), Unverified},
		"config skipped":        {append(whole[:3:3], skip(LevelConfig)), pass(LevelIndex), Unverified},
		"manifest not there":    {append(whole[:4:4], skip(LevelManifest)), skip(LevelIndex), Verified},
		"compression not there": {append([]Check{whole[0], whole[1], whole[3]}, skip(LevelCompression)), skip(LevelIndex), Verified},
		"one fails":             {append(whole[:5:5], fail(LevelEntry)), pass(LevelIndex), Differs},
		"index fails":           {whole, fail(LevelIndex), Differs},
		"fail beats skip":       {[]Check{skip(LevelBinary), fail(LevelConfig)}, skip(LevelIndex), Differs},
	} {
		s := &Subject{Platforms: []*PlatformResult{{Platform: "linux/amd64", Checks: test.checks}}, Index: []Check{test.index}}
		s.conclude(func(string) bool { return true })
		if s.Verdict != test.want {
			t.Errorf("%s: %q, want %q", name, s.Verdict, test.want)
		}
	}
	for want, verdicts := range map[Verdict][]Verdict{
		Verified:   {Verified, Verified},
		Differs:    {Verified, Unverified, Differs},
		Unverified: {Verified, Unverified},
	} {
		r := &Report{}
		for _, v := range verdicts {
			r.Subjects = append(r.Subjects, &Subject{Verdict: v})
		}
		if r.conclude(); r.Verdict != want {
			t.Errorf("%v: %q, want %q", verdicts, r.Verdict, want)
		}
	}
}

// wantError checks that an image could not be verified, and why.
func wantError(t *testing.T, s *Subject, is error, words string) {
	t.Helper()
	if s.Verdict != Unverified || s.Err == nil {
		t.Fatalf("verdict is %q, error %v, want an error:\n%s", s.Verdict, s.Err, text(s))
	}
	if is != nil && !errors.Is(s.Err, is) {
		t.Errorf("error is %v, want one that is %v", s.Err, is)
	}
	if !strings.Contains(s.Error, words) && !strings.Contains(s.Err.Error(), words) {
		t.Errorf("error is %s, want it to say %s", s.Error, words)
	}
	if len(s.Platforms) > 0 || len(s.Means) > 0 {
		t.Errorf("claims to have compared something:\n%s", text(s))
	}
}

func wantCheck(t *testing.T, checks []Check, name string, r Result, words string) {
	t.Helper()
	for _, c := range checks {
		if c.Name == name && c.Result == r && strings.Contains(c.Note, words) {
			return
		}
	}
	t.Errorf("no check %s with %s and %q: %+v", name, r, words, checks)
}

func wantSkip(t *testing.T, s *Subject, level Level, words string) {
	t.Helper()
	for _, c := range s.Platforms[0].Checks {
		if c.Level == level && c.Result == Skip && strings.Contains(c.Note, words) {
			return
		}
	}
	t.Errorf("nothing of the %s is skipped because %q:\n%s", level, words, text(s))
}

// oneImage is a layout of one image, without an index of platforms.
func oneImage(t *testing.T, img v1.Image) string {
	t.Helper()
	dir := t.TempDir()
	path, err := ocilayout.Write(dir, empty.Index)
	if err == nil {
		err = path.AppendImage(img)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func tarFolder(t *testing.T, dir string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// dockerSave writes what docker save, up to version 24, makes of an image: layers
// unpacked, and a link for one that repeats.
func dockerSave(t *testing.T, img v1.Image) []byte {
	t.Helper()
	config, err := img.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	parts := []hostile.Part{{Header: tar.Header{Name: "config.json", Mode: 0o644}, Content: config}}
	var names []string
	for i, l := range layers {
		r, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		file := string(rune('a'+i)) + "/layer.tar"
		parts = append(parts, hostile.Part{Header: tar.Header{Name: file, Mode: 0o644}, Content: data})
		names = append(names, file)
	}
	parts = append(parts, hostile.Part{Header: tar.Header{Name: "z/layer.tar", Typeflag: tar.TypeSymlink, Linkname: "../d/layer.tar"}})
	names[3] = "z/layer.tar"
	manifest, err := json.Marshal([]map[string]any{{"Config": "config.json", "Layers": names}})
	if err != nil {
		t.Fatal(err)
	}
	return hostile.Tar(t, append(parts, hostile.Part{Header: tar.Header{Name: "manifest.json", Mode: 0o644}, Content: manifest}))
}

func writeFile(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func readAllOf(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
