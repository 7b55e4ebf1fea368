package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/plan"
	"github.com/xavieralpha/derper/internal/testing/need"
	"github.com/xavieralpha/derper/internal/testing/registrytest"
	"github.com/xavieralpha/derper/internal/testing/releasetest"
	"github.com/xavieralpha/derper/internal/verify"
)

// A history is this project's repository with releases, and the registry that has them.
type history struct {
	*testing.T
	release  *releasetest.Release
	project  *releasetest.Project
	registry *registrytest.Registry
	cache    string
}

func newHistory(t *testing.T) *history {
	r := releasetest.New(t, "../..")
	r.Inputs.Platforms = []lock.Platform{"linux/amd64"}
	h := &history{t, r, releasetest.NewProject(t, r, "../.."), registrytest.Memory(t, registrytest.Options{}), releasetest.CacheDir(t)}
	h.write(&lock.Lock{Schema: lock.SchemaVersion, Inputs: r.Inputs})
	h.project.Commit(t, "lock")
	return h
}

func (h *history) lockFile() string { return filepath.Join(h.project.Dir, lock.File) }

func (h *history) write(l *lock.Lock) {
	h.Helper()
	if err := l.Write(h.lockFile()); err != nil {
		h.Fatal(err)
	}
}

// releases makes a release, as a person would in a checkout: of the source as it is, recorded in
// a commit on the one that was built, with a tag, and pushed.
func (h *history) releases(program string) (version string) {
	h.Helper()
	h.project.Commit(h.T, "source")
	if program == "" {
		program = h.compile()
	}
	dist := filepath.Join(h.TempDir(), "dist")
	cmd := exec.Command(program, "--lock", h.lockFile(), "--cache", h.cache, "--platform", "all", "--update-lock", "--output", dist)
	cmd.Env = append(os.Environ(), "GOPROXY="+h.release.Proxy, testSumDB+"="+h.release.SumDB)
	if out, err := cmd.CombinedOutput(); err != nil {
		h.Fatalf("%v\n%s", err, out)
	}
	l, err := lock.Read(h.lockFile())
	if err != nil {
		h.Fatal(err)
	}
	l.Published = &lock.Published{Revision: l.Inputs.Revision, Index: l.Indexes()}
	h.write(l)
	version = l.Inputs.Version()
	h.project.Commit(h.T, "lock: "+version)
	h.project.Tag(h.T, version)
	h.push(dist, version)
	return version
}

// compile compiles the project's program as everybody does, but for where packages are kept.
func (h *history) compile() string {
	h.Helper()
	program := filepath.Join(h.TempDir(), "build")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", program, "./cmd/build")
	packages, err := filepath.EvalSymlinks(filepath.Join(h.cache, "go-build"))
	if err != nil {
		h.Fatal(err)
	}
	cmd.Dir, cmd.Env = h.project.Dir, append(os.Environ(), append(plan.Settings("linux/amd64"), "GOCACHE="+packages)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		h.Fatalf("%v\n%s", err, out)
	}
	return program
}

// push puts a layout into the registry.
func (h *history) push(dist, tag string) {
	h.Helper()
	top, err := layout.ImageIndexFromPath(dist)
	if err != nil {
		h.Fatal(err)
	}
	list, err := top.IndexManifest()
	if err != nil {
		h.Fatal(err)
	}
	index, err := top.ImageIndex(list.Manifests[0].Digest)
	if err != nil {
		h.Fatal(err)
	}
	ref, err := name.NewTag(h.ref(tag))
	if err == nil {
		err = remote.WriteIndex(ref, index)
	}
	if err != nil {
		h.Fatal(err)
	}
}

func (h *history) ref(tag string) string { return h.registry.Repository("derper") + ":" + tag }

// verify runs the newest program, without a checkout.
func (h *history) verify(want int, args ...string) (s *verify.Subject, stderr string) {
	h.Helper()
	cmd := exec.Command("build", append([]string{"verify", "--json", "--trust-cache", "--cache", h.cache, "--platform", "linux/amd64"}, args...)...)
	var out, errs bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = h.TempDir(), &out, &errs
	cmd.Env = append(os.Environ(), "GOPROXY="+h.release.Proxy, testSumDB+"="+h.release.SumDB)
	err := cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != want {
		h.Errorf("verify %v: exit code %d, want %d (%v)\n%s", args, code, want, err, &errs)
	}
	var report verify.Report
	if err := json.Unmarshal(out.Bytes(), &report); err != nil || len(report.Subjects) != 1 {
		h.Fatalf("verify %v: %v\n%s%s", args, err, &out, &errs)
	}
	return report.Subjects[0], errs.String()
}

// TestOlderReleases guards that the images of older revisions of this project stay verifiable:
// the newest program verifies three releases, between which the entrypoint has changed, and
// does not do so if the label of one leads to something else than its release.
func TestOlderReleases(t *testing.T) {
	need.Minutes(t, "compiles this program three times")
	h := newHistory(t)
	const main = "entrypoint/main.go"
	source, err := os.ReadFile(filepath.Join(h.project.Dir, main))
	if err != nil {
		t.Fatal(err)
	}
	change := func(text string) {
		write(t, filepath.Join(h.project.Dir, main), string(source)+text)
	}
	var versions []string
	for _, text := range []string{"\nfunc init() { println(\"the first entrypoint\") }\n", "\nfunc init() { println(\"the second entrypoint\") }\n"} {
		change(text)
		versions = append(versions, h.releases(""))
	}
	change("")
	newest, err := exec.LookPath("build")
	if err != nil {
		t.Fatal(err)
	}
	versions = append(versions, h.releases(newest))
	t.Log(versions)
	for i, version := range versions {
		s, _ := h.verify(cli.ExitOK, h.ref(version))
		switch {
		case s.Verdict != verify.Verified || !strings.HasSuffix(version, "-r"+string(rune('0'+i))):
			t.Errorf("%s: %s", version, s.Verdict)
		case i == len(versions)-1 && s.Builder != nil:
			t.Errorf("%s: was built by %s, and this program makes the same", version, s.Builder.Name())
		case i < len(versions)-1 && (s.Builder == nil || s.Builder.Tag != version || s.Builder.Sum == "" || strings.Join(s.Builder.Otherwise, " ") != "entrypoint"):
			t.Errorf("%s: was built by %+v", version, s.Builder)
		}
	}
	old := versions[0]
	if s, _ := h.verify(cli.ExitDiffers, "--this-program", h.ref(old)); s.Builder != nil || s.Verdict != verify.Differs {
		t.Errorf("--this-program: %s by %+v", s.Verdict, s.Builder)
	}

	// As with the image of a fork, which has no such tag.
	refused := func(t *testing.T, says string, args ...string) {
		t.Helper()
		s, stderr := h.verify(cli.ExitFailed, append(args, h.ref(old))...)
		if s.Verdict != verify.Unverified || !strings.Contains(s.Error, says) || !strings.Contains(stderr, "\nhint: for the image of a fork, ") {
			t.Errorf("%s, says %q, want %q\n%s", s.Verdict, s.Error, says, stderr)
		}
	}
	t.Run("no such tag", func(t *testing.T) {
		h.project.Untag(t, old)
		refused(t, old+" is no release of this project: ")
	})
	t.Run("a tag of another commit", func(t *testing.T) {
		h.project.Tag(t, old)
		refused(t, old+" is no release of this project: its "+lock.File+" is of "+versions[2])
	})
	t.Run("a branch", func(t *testing.T) {
		h.project.Untag(t, old)
		h.project.Branch(t, old)
		h.project.Origin = true
		refused(t, "the module proxy has it from \"refs/heads/"+old+"\", which is not that tag")
	})
	t.Run("an older image under the name of a newer one", func(t *testing.T) {
		s, _ := h.verify(cli.ExitOK, h.ref(versions[1]))
		other := h.ref("1.996.0")
		ref, err := name.NewTag(other)
		if err == nil {
			var from name.Digest
			if from, err = name.NewDigest(h.registry.Repository("derper") + "@" + s.Digest); err == nil {
				var desc *remote.Descriptor
				if desc, err = remote.Get(from); err == nil {
					err = remote.Tag(ref, desc)
				}
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		if s, _ := h.verify(cli.ExitDiffers, other); s.Builder != nil || len(s.Explanations) == 0 || !strings.Contains(s.Explanations[0].Text, "the tag is 1.996.0, and the image claims to be "+versions[1]) {
			t.Errorf("%s: %+v", s.Verdict, s.Explanations)
		}
	})
}
