package verify

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
	"github.com/xavieralpha/derper/internal/pipeline"
	"github.com/xavieralpha/derper/internal/plan"
	"github.com/xavieralpha/derper/internal/progress"
	"github.com/xavieralpha/derper/internal/testing/hostile"
	"github.com/xavieralpha/derper/internal/testing/releasetest"
)

// fixture is a small release and the images that were built of it.
type fixture struct {
	t         *testing.T
	release   *releasetest.Release
	cache     *cache.Cache
	modules   *modproxy.Client
	platforms []lock.Platform
	images    []v1.Image
	// attestations are those of images.
	attestations []v1.Image
	index        v1.ImageIndex
	output       *lock.Output
	// good is all of it, to be attacked.
	good *hostile.Good
}

func newFixture(t *testing.T, platforms ...lock.Platform) *fixture {
	t.Helper()
	return buildFixture(t, releasetest.New(t, "../.."), platforms...)
}

func buildFixture(t *testing.T, r *releasetest.Release, platforms ...lock.Platform) *fixture {
	t.Helper()
	if len(platforms) == 0 {
		platforms = []lock.Platform{"linux/amd64", "linux/arm64"}
	}
	r.Inputs.Platforms = platforms
	c, err := cache.Open(releasetest.CacheDir(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.Warn = t.Logf
	f := &fixture{t: t, release: r, cache: c, platforms: platforms}
	f.modules = &modproxy.Client{Proxies: r.Proxy, SumDB: r.SumDB, Dir: filepath.Join(c.Dir(), "sumdb"), Temp: c.Temp()}
	built, err := f.builder().Build(t.Context(), platforms)
	if err != nil {
		t.Fatal(err)
	}
	f.images, f.attestations, f.index, f.output = built.Images, built.Attestations, built.Index, built.Output
	f.good = hostile.NewGood(t, r.Inputs, built.Index)
	f.good.Images = f.images // so that they are known by what they are
	return f
}

func (f *fixture) builder() *pipeline.Builder {
	display := progress.New(io.Discard)
	f.t.Cleanup(display.Close)
	return &pipeline.Builder{Inputs: f.release.Inputs, Cache: f.cache, Modules: f.modules, Display: display}
}

// lock is the lock at hand, as it is in a checkout.
func (f *fixture) lock() *lock.Lock {
	return &lock.Lock{Schema: lock.SchemaVersion, Inputs: f.release.Inputs, Outputs: map[string]*lock.Output{lock.Default: f.output}}
}

func (f *fixture) verifier(t *testing.T) *Verifier {
	display := progress.New(io.Discard)
	t.Cleanup(display.Close)
	return &Verifier{Cache: f.cache, Modules: f.modules, Display: display, Lock: f.lock()}
}

// verify verifies one image with the lock at hand.
func (f *fixture) verify(t *testing.T, ref string) *Subject {
	t.Helper()
	return f.run(t, f.verifier(t), ref)
}

func (f *fixture) run(t *testing.T, v *Verifier, ref string) *Subject {
	t.Helper()
	r, err := v.References(t.Context(), []string{ref})
	if err != nil {
		t.Fatal(err)
	}
	if r.Verdict != r.Subjects[0].Verdict {
		t.Errorf("the report's verdict is %q, its only subject's %q", r.Verdict, r.Subjects[0].Verdict)
	}
	return r.Subjects[0]
}

// with is the list of images with another in place of the first.
func (f *fixture) with(img v1.Image) []v1.Image {
	return append([]v1.Image{img}, f.images[1:]...)
}

// layout writes images as a layout, with an index made for them.
func (f *fixture) layout(t *testing.T, platforms []lock.Platform, images []v1.Image) string {
	t.Helper()
	return f.layoutOf(t, f.indexOf(t, platforms, images))
}

// indexOf makes an index of images as a build does, with attestations of what they are.
func (f *fixture) indexOf(t *testing.T, platforms []lock.Platform, images []v1.Image) v1.ImageIndex {
	t.Helper()
	return f.good.IndexOf(t, platforms, images)
}

func (f *fixture) layoutOf(t *testing.T, index v1.ImageIndex) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "layout")
	if _, err := image.WriteLayout(dir, "test", index, false); err != nil {
		t.Fatal(err)
	}
	return dir
}

// edit is the first image with the entries of one layer changed.
func (f *fixture) edit(t *testing.T, layer string, change func([]hostile.Part) []hostile.Part) v1.Image {
	t.Helper()
	return f.good.Edit(t, layer, change)
}

// compile compiles derper for the first platform with another command than the
// plan's: with another Go, or with other settings or flags.
func (f *fixture) compile(t *testing.T, goTool string, env []string, ldflags, pkg string) []byte {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command(goTool, "install", "-trimpath", "-buildvcs=false", "-ldflags="+ldflags, pkg)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GOPATH=" + dir, "GOBIN=" + filepath.Join(dir, "out"), "GOMODCACHE=" + filepath.Join(dir, "mod"),
		"GOCACHE=" + goEnv(t, "GOCACHE"), "GOFLAGS=-modcacherw", "GOPROXY=" + f.release.Proxy, "GOSUMDB=" + f.release.SumDB}, plan.Settings(f.platforms[0])...)
	cmd.Env = append(cmd.Env, "GOFLAGS=-modcacherw")
	cmd.Env = append(cmd.Env, env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	var program []byte
	err := filepath.WalkDir(filepath.Join(dir, "out"), func(name string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			program, err = os.ReadFile(name)
		}
		return err
	})
	if err != nil || program == nil {
		t.Fatalf("no program: %v", err)
	}
	return program
}

func goEnv(t *testing.T, name string, env ...string) string {
	t.Helper()
	cmd := exec.Command("go", "env", name)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// ldflags are those that the plan links derper with.
func (f *fixture) ldflags() string {
	for _, arg := range plan.InstallArgs(f.release.Inputs, f.release.Inputs.Programs[0]) {
		if flags, ok := strings.CutPrefix(arg, "-ldflags="); ok {
			return flags
		}
	}
	panic("no -ldflags")
}

// wantVerified checks that a verification passed in all that it looked at.
func wantVerified(t *testing.T, s *Subject) {
	t.Helper()
	if s.Verdict != Verified || s.Error != "" || len(s.Explanations) > 0 {
		t.Errorf("verdict is %q, want %q:\n%s", s.Verdict, Verified, text(s))
	}
}

// wantFirst checks that something differs, and that the first that is named is this.
func wantFirst(t *testing.T, s *Subject, level Level, words ...string) {
	t.Helper()
	if s.Verdict != Differs || len(s.Explanations) == 0 {
		t.Fatalf("verdict is %q, want %q with an explanation:\n%s", s.Verdict, Differs, text(s))
	}
	e := s.Explanations[0]
	if e.Level != level {
		t.Errorf("what differs first is the %s, want the %s:\n%s", e.Level, level, text(s))
	}
	all := e.Text + "\n" + strings.Join(e.Details, "\n")
	for _, word := range words {
		if !strings.Contains(all, word) {
			t.Errorf("the explanation does not say %q:\n%s", word, all)
		}
	}
	if strings.Contains(all, "%!") {
		t.Errorf("a message is malformed: %s", all)
	}
}

// wantOnly checks that nothing else differs by itself.
func wantOnly(t *testing.T, s *Subject) {
	t.Helper()
	if len(s.Explanations) > 1 {
		t.Errorf("more is named than the one thing that was changed:\n%s", text(s))
	}
}

func text(s *Subject) string {
	var b strings.Builder
	if err := writeText(&b, "subject", s); err != nil {
		return err.Error()
	}
	return b.String()
}
