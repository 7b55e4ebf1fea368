package release

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/github"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/testing/githubtest"
	"github.com/xavieralpha/derper/internal/testing/registrytest"
	"github.com/xavieralpha/derper/internal/testing/vextest"
)

// locked writes the lock of this repository to a file, changed by edit.
func locked(t *testing.T, edit func(l *lock.Lock)) (name string, l *lock.Lock) {
	t.Helper()
	l, err := lock.Read("../../" + lock.File)
	if err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		edit(l)
	}
	name = filepath.Join(t.TempDir(), lock.File)
	if err := l.Write(name); err != nil {
		t.Fatal(err)
	}
	return name, l
}

// fake is a release of the repository's lock whose tools do nothing but say that they
// were used.
func fake(t *testing.T, lockFile string) (r *Release, used *[]string) {
	used = new([]string)
	use := func(what string) error { *used = append(*used, what); return nil }
	r = &Release{
		Folder: filepath.Join(t.TempDir(), "release"), LockFile: lockFile, Repositories: []string{"registry.example.com/derper"}, Program: "p", Runner: "native", Log: io.Discard,
		Tools: Tools{
			Compile: func(_ context.Context, _ string, variants []string, _ string) error {
				return use("compile " + strings.Join(variants, "+"))
			},
			Build: func(context.Context, string, string, string) error { return use("build") },
			Scan: func(_ context.Context, lockFile, scans string) error {
				l, err := lock.Read(lockFile)
				if err == nil {
					err = vextest.Scans(l.Inputs).Write(scans)
				}
				return err
			},
			Test: func(_ context.Context, layout string, p []lock.Platform, report string) (tests []attest.Tests, err error) {
				for _, p := range p {
					use("test " + filepath.Base(layout) + " " + string(p) + " " + filepath.Base(report))
					tests = append(tests, attest.Tests{Platform: p, Digest: filepath.Base(layout), Passed: []string{"whole"}})
				}
				return tests, nil
			},
			Verify: func(_ context.Context, _ *lock.Lock, refs []string) error {
				for _, ref := range refs {
					use("verify " + ref)
				}
				return nil
			},
		},
	}
	r.Recorder = LocalRecorder{r}
	return r, used
}

// TestOrder guards that a step runs only for an image that every step before was done for.
func TestOrder(t *testing.T) {
	name, l := locked(t, secondVariant)
	r, used := fake(t, name)
	var order *OrderError
	for _, s := range Steps[1:] {
		if _, err := r.Run(t.Context(), s); !errors.As(err, &order) {
			t.Errorf("%s, and nothing was done before: %v", s.Name, err)
		}
	}
	run := func(step string) error {
		_, err := r.Run(t.Context(), Named(step))
		return err
	}
	for _, step := range []string{"update", "build"} {
		if err := run(step); err != nil {
			t.Fatal(err)
		}
	}
	if err := run("push"); !errors.As(err, &order) || order.Step != "scan" {
		t.Errorf("neither scanned nor tested: %v", err)
	}
	// A machine scans meanwhile, for which nobody waits but who comes after both.
	if err := run("scan"); err != nil {
		t.Fatal(err)
	}
	if err := run("push"); !errors.As(err, &order) || order.Step != "test default linux/amd64" {
		t.Errorf("untested: %v", err)
	}
	// Three machines test: a platform here, all others there, and another variant.
	r.Variants, r.Platforms = []string{lock.Default}, []lock.Platform{"linux/amd64"}
	if err := run("test"); err != nil {
		t.Fatal(err)
	}
	if err := run("push"); !errors.As(err, &order) || order.Step != "test default linux/386" {
		t.Errorf("tested in part: %v", err)
	}
	r.Platforms = nil
	if err := run("test"); err != nil {
		t.Fatal(err)
	}
	if err := run("push"); !errors.As(err, &order) || order.Step != "test nonroot linux/amd64" {
		t.Errorf("one variant of two is tested: %v", err)
	}
	r.Variants = []string{"nonroot"}
	if err := run("test"); err != nil {
		t.Fatal(err)
	}
	// A journal that comes from elsewhere skips nothing.
	if want := 2*len(l.Inputs.Platforms) + 2; len(*used) != want || (*used)[1] != "test dist linux/amd64 test-default-linux-amd64.xml" || (*used)[want-len(l.Inputs.Platforms)] != "test dist-nonroot linux/amd64 test-nonroot.xml" {
		t.Errorf("build, one platform, all platforms, the other variant: %q", *used)
	}
	r.Variants = []string{"debug"}
	if err := run("test"); err == nil || !strings.Contains(err.Error(), `no variant "debug": it has default, nonroot`) {
		t.Errorf("no such variant: %v", err)
	}
	r.Variants = nil
	// What was pushed elsewhere was not pushed here.
	entry := entry{Images: digestsOf(l), Repositories: []string{"registry.example.com/other"}}
	if err := r.journal.put("push", Part{}, entry); err != nil {
		t.Fatal(err)
	}
	if err := run("verify"); !errors.As(err, &order) || order.Step != "push" {
		t.Errorf("pushed to another repository: %v", err)
	}
	entry.Repositories = append(entry.Repositories, r.Repositories...)
	if err := r.journal.put("push", Part{}, entry); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := run("verify"); err != nil {
			t.Fatal(err)
		}
	}
	both := references("verify ", l)
	if n := len(*used); !slices.Equal((*used)[n-4:n-2], both) || !slices.Equal((*used)[n-2:], both) {
		t.Errorf("verified twice: %q", *used)
	}
	r.Variants = []string{"nonroot"}
	if err := run("verify"); err != nil || (*used)[len(*used)-1] != both[1] || (*used)[len(*used)-2] != both[1] {
		t.Errorf("one variant: %v, %q", err, *used)
	}
	r.Variants = nil
	// The image is another one: nothing was done for it.
	r.Images = Digests{lock.Default: "sha256:" + strings.Repeat("0", 64)}
	var mismatch *MismatchError
	if err := run("test"); !errors.As(err, &mismatch) || !strings.Contains(err.Error(), l.Output().Index) {
		t.Errorf("another image: %v", err)
	}
	r.Images = nil
	l.Withdrawn = []string{l.Inputs.Tailscale.Version}
	if err := l.Write(r.path(lockName)); err != nil {
		t.Fatal(err)
	}
	if err := run("test"); err == nil || !strings.Contains(err.Error(), "was withdrawn") {
		t.Errorf("withdrawn: %v", err)
	}
	l.Withdrawn, l.Output().Index = nil, "sha256:"+strings.Repeat("0", 64)
	if err := l.Write(r.path(lockName)); err != nil {
		t.Fatal(err)
	}
	if err := run("push"); !errors.As(err, &order) || order.Step != "build" {
		t.Errorf("another lock: %v", err)
	}
}

// testSigner is a signer that notes the results of tests that it gets.
type testSigner struct {
	Signer
	signed map[string][]attest.Tests // by layout
}

func (*testSigner) String() string  { return "key" }
func (*testSigner) Command() string { return "build verify-signature" }

func (s *testSigner) Sign(_ context.Context, _, layout string, found Findings, _ []string) error {
	s.signed[filepath.Base(layout)] = found.Tests
	return nil
}

// TestResultsAreSigned guards that what machines found that test, each some platforms, is what
// is signed, of each variant its own, and that nothing is signed that has none.
func TestResultsAreSigned(t *testing.T) {
	name, l := locked(t, secondVariant)
	r, _ := fake(t, name)
	signer := &testSigner{signed: map[string][]attest.Tests{}}
	run := func(step string) error {
		r.Signer = nil
		if step == "sign" {
			r.Signer = signer
		}
		_, err := r.Run(t.Context(), Named(step))
		return err
	}
	must := func(step string) {
		t.Helper()
		if err := run(step); err != nil {
			t.Fatal(err)
		}
	}
	must("update")
	must("build")
	must("scan")
	for _, variant := range l.Inputs.VariantNames() {
		for _, platforms := range [][]lock.Platform{l.Inputs.Platforms[:1], l.Inputs.Platforms[1:]} {
			r.Variants, r.Platforms = []string{variant}, platforms
			must("test")
		}
	}
	r.Variants, r.Platforms = nil, nil
	if err := r.journal.put("push", Part{}, entry{Images: digestsOf(l), Repositories: r.Repositories}); err != nil {
		t.Fatal(err)
	}
	must("verify")
	must("sign")
	for _, v := range l.Inputs.Variants {
		layout := layoutName + v.Suffix
		var platforms []lock.Platform
		for _, found := range signer.signed[layout] {
			platforms = append(platforms, found.Platform)
			if found.Digest != layout || !slices.Equal(found.Passed, []string{"whole"}) {
				t.Errorf("%s: signed: %+v", layout, found)
			}
		}
		if !slices.Equal(platforms, l.Inputs.Platforms) {
			t.Errorf("%s: results of %q are signed, not of %q", layout, platforms, l.Inputs.Platforms)
		}
	}
	clear(signer.signed)
	part := Part{lock.Default, l.Inputs.Platforms[1]}
	if err := r.journal.put("test", part, entry{Images: digestsOf(l)}); err != nil {
		t.Fatal(err)
	}
	if err := run("sign"); err == nil || !strings.Contains(err.Error(), "no results of the step test for "+part.String()) || len(signer.signed) > 0 {
		t.Errorf("no results of %s: %v, signed %v", part, err, signer.signed)
	}
}

// references are the images of a lock in the repository of fake, each after what.
func references(what string, l *lock.Lock) (refs []string) {
	for _, v := range l.Inputs.Variants {
		refs = append(refs, what+"registry.example.com/derper@"+l.Outputs[v.Name].Index)
	}
	return refs
}

// secondVariant adds a variant with the programs of the first one to a lock.
func secondVariant(l *lock.Lock) {
	l.Inputs.Variants = slices.Clone(l.Inputs.Variants[:1])
	v := l.Inputs.Variants[0]
	v.Name, v.Suffix, v.User = "nonroot", "-nonroot", "65532"
	l.Inputs.Variants = append(l.Inputs.Variants, v)
	output := *l.Output()
	output.Index = "sha256:" + strings.Repeat("1", 64)
	l.Outputs = map[string]*lock.Output{lock.Default: l.Output(), v.Name: &output}
}

// TestCompileStep guards what jobs of a workflow take from the first one: which variants
// there are, and which have something to compile. Who compiles ahead does it for a lock
// that records nothing yet, and nothing depends on it.
func TestCompileStep(t *testing.T) {
	name, _ := locked(t, func(l *lock.Lock) { secondVariant(l); l.Outputs = nil })
	r, used := fake(t, name)
	result, err := r.Run(t.Context(), Named("update"))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(result.Variants, []string{lock.Default, "nonroot"}) || !slices.Equal(result.Compiling, []string{lock.Default}) {
		t.Errorf("variants %q, to compile %q", result.Variants, result.Compiling)
	}
	if !slices.Contains(result.Tags, "latest") || !slices.Contains(result.Tags, "latest-nonroot") {
		t.Errorf("tags %q", result.Tags)
	}
	r.Variants = result.Compiling
	if _, err := r.Run(t.Context(), Named("compile")); err != nil || !slices.Equal(*used, []string{"compile default"}) {
		t.Errorf("%v, %q", err, *used)
	}
}

func TestInterrupted(t *testing.T) {
	name, _ := locked(t, nil)
	r, used := fake(t, name)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Run(ctx, Named("build")); !errors.Is(err, context.Canceled) || len(*used) > 0 {
		t.Errorf("%v, and ran %q after the release was interrupted", err, *used)
	}
}

// TestUpdateStep guards what the step update keeps of an earlier run.
func TestUpdateStep(t *testing.T) {
	name, l := locked(t, func(l *lock.Lock) { l.Outputs = nil })
	r, _ := fake(t, name)
	r.Renew = true
	next := *l
	next.Inputs.Tailscale.Version = "v1.104.0"
	flags := []string{"-new-flag is new"}
	r.Tools.Update = func(_ context.Context, base *lock.Lock) (*lock.Lock, []string, error) {
		n := next
		return &n, flags, nil
	}
	update := func(needed bool) *lock.Lock {
		t.Helper()
		result, err := r.Run(t.Context(), Steps[0])
		if err != nil {
			t.Fatal(err)
		}
		if result.Needed != needed {
			t.Errorf("needed: %v", result.Needed)
		}
		got, err := r.lock()
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	got := update(true)
	if got.Inputs.Tailscale.Version != "v1.104.0" || got.Outputs != nil {
		t.Errorf("%+v", got)
	}
	_, real := locked(t, nil)
	got.Outputs = real.Outputs
	got.Inputs.Revision++ // as the step build sets it
	if err := r.journal.put("build", Part{}, entry{Program: r.Program}); err != nil {
		t.Fatal(err)
	}
	if err := got.Write(r.path(lockName)); err != nil {
		t.Fatal(err)
	}
	flags = nil // a later run finds nothing new in them
	if again := update(true); again.Outputs == nil || again.Inputs.Revision != got.Inputs.Revision {
		t.Errorf("the outputs of the same inputs are lost, or not of revision %d: %+v", got.Inputs.Revision, again.Inputs)
	}
	if got := r.journal.entries["update"].Changes; len(got) != 1 {
		t.Errorf("what changed in the flags is lost: %q", got)
	}
	if l, err := lock.Read(name); err != nil || l.Inputs.Tailscale.Version == "v1.104.0" {
		t.Errorf("the lock of the checkout changed before the release: %v", err)
	}
	next.Withdrawn = []string{"v1.104.0"}
	update(false)
}

func TestRecorderOnGitHub(t *testing.T) {
	name, l := locked(t, func(l *lock.Lock) { l.Outputs = nil })
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	server := githubtest.New(t, map[string]string{lock.File: string(content)})
	_, l = locked(t, nil)
	t.Chdir(filepath.Dir(name))
	g := GitHubRecorder{&github.Client{API: server.URL, Repository: githubtest.Repository, Token: githubtest.Token}, lock.File, "main", "", "release"}
	recorded := func(want bool) {
		t.Helper()
		if got, err := g.Recorded(t.Context(), l); got != want || err != nil {
			t.Errorf("recorded: %v, %v", got, err)
		}
	}
	recorded(false)
	pages := map[string][]byte{"docs/variables.md": []byte("page\n")}
	for range 2 { // the second time it is all there
		if err := g.Record(t.Context(), l, pages, "what is new\n"); err != nil {
			t.Fatal(err)
		}
	}
	recorded(true)
	want, err := l.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if got := server.File(lock.File); got != string(want) {
		t.Errorf("main has another lock:\n%s", got)
	}
	if got := server.File("docs/variables.md"); got != "page\n" {
		t.Errorf("main has another page: %q", got)
	}
	if got := server.Commits(); len(got) != 2 || got[0] != "lock: tailscale "+l.Inputs.Version() {
		t.Errorf("commits %q", got)
	}
	r := server.Releases()
	if len(r) != 1 || r[0].Tag != l.Inputs.Version() || r[0].Prerelease || !strings.Contains(r[0].Body, "what is new") {
		t.Errorf("releases %+v", r)
	}

	// The unstable channel's first: there is no such lock yet.
	l.Inputs.Tailscale.Version, g.LockFile = "v1.105.7", lock.Unstable.File()
	if err := g.Record(t.Context(), l, pages, "what is new\n"); err != nil {
		t.Fatal(err)
	}
	if r := server.Releases(); len(r) != 2 || r[1].Tag != "1.105.7-r"+fmt.Sprint(l.Inputs.Revision) || !r[1].Prerelease || r[1].Latest {
		t.Errorf("releases %+v", r)
	}
	if server.File(g.LockFile) == "" || len(server.Commits()) != 3 {
		t.Errorf("commits %q", server.Commits())
	}

	// Somebody changed the lock while the release was under way.
	if err := server.Push(map[string]string{lock.File: "theirs"}); err != nil {
		t.Fatal(err)
	}
	g.LockFile, l.Inputs.Tailscale.Version = lock.File, "v1.104.0"
	if err := g.Record(t.Context(), l, pages, ""); !errors.Is(err, github.ErrChanged) || !strings.Contains(err.Error(), "versions.json on main: somebody else changed it") {
		t.Errorf("%v", err)
	}
	if server.File(lock.File) != "theirs" || len(server.Releases()) != 2 {
		t.Errorf("main has %q", server.File(lock.File))
	}
}

func TestLocalRecorder(t *testing.T) {
	name, _ := locked(t, func(l *lock.Lock) { l.Outputs = nil })
	r, _ := fake(t, name)
	if _, err := r.Run(t.Context(), Steps[0]); err != nil {
		t.Fatal(err)
	}
	_, l := locked(t, func(l *lock.Lock) { l.Published = &lock.Published{Revision: l.Inputs.Revision, Index: l.Indexes()} })
	if got, err := r.Recorder.Recorded(t.Context(), l); got || err != nil {
		t.Errorf("recorded: %v, %v", got, err)
	}
	if err := os.WriteFile(r.path(notesName), []byte(l.Output().Index), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.Recorder.Record(t.Context(), l, nil, ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.journal.put("record", Part{}, entry{Images: digestsOf(l), Repositories: r.Repositories}); err != nil {
		t.Fatal(err)
	}
	if got, err := r.Recorder.Recorded(t.Context(), l); !got || err != nil {
		t.Errorf("recorded: %v, %v", got, err)
	}
	// Somebody changed it while the release was under way.
	l.Withdrawn = []string{"v1.102.2"}
	if err := l.Write(name); err != nil {
		t.Fatal(err)
	}
	l.Withdrawn = nil
	if err := r.Recorder.Record(t.Context(), l, nil, ""); !errors.Is(err, github.ErrChanged) {
		t.Errorf("%v", err)
	}
}

func TestDigests(t *testing.T) {
	d := Digests{lock.Default: "sha256:aa", "debug": "sha256:bb"}
	got, err := ParseDigests(d.String())
	if err != nil || !maps.Equal(got, d) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "{}", `{"debug":"sha256:aa"}`, `["sha256:aa"]`, "sha256:aa"} {
		if _, err := ParseDigests(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestJournal(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	j, err := openJournal(dir)
	if err != nil {
		t.Fatal(err)
	}
	e := entry{Images: Digests{lock.Default: "sha256:aa"}, Repositories: []string{"a", "b"}, Program: "p", With: "native"}
	if err := j.put("test", Part{"debug", "linux/arm/v7"}, e); err != nil {
		t.Fatal(err)
	}
	if j, err = openJournal(dir); err != nil {
		t.Fatal(err)
	}
	edited := func(edit func(*entry)) entry { n := e; edit(&n); return n }
	for what, test := range map[string]struct {
		now  entry
		want bool
	}{
		"the same":               {e, true},
		"fewer repositories":     {edited(func(e *entry) { e.Repositories = []string{"b"} }), true},
		"one repository more":    {edited(func(e *entry) { e.Repositories = []string{"b", "c"} }), false},
		"another image":          {edited(func(e *entry) { e.Images = Digests{lock.Default: "sha256:bb"} }), false},
		"one variant more":       {edited(func(e *entry) { e.Images = Digests{lock.Default: "sha256:aa", "debug": "sha256:bb"} }), false},
		"another program":        {edited(func(e *entry) { e.Program = "q" }), false},
		"another container host": {edited(func(e *entry) { e.With = "docker" }), false},
	} {
		if got := j.has("test", Part{"debug", "linux/arm/v7"}, test.now); got != test.want {
			t.Errorf("%s: %v", what, got)
		}
	}
	if j.has("test", Part{"debug", "linux/arm/v6"}, e) || j.has("test", Part{lock.Default, "linux/arm/v7"}, e) || j.has("verify", Part{}, e) {
		t.Error("another step, platform or variant was done")
	}
	if err := os.WriteFile(filepath.Join(dir, "verify.json"), []byte(`{"images": {`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := openJournal(dir); err == nil || !strings.Contains(err.Error(), "remove it to start from the beginning") {
		t.Errorf("a corrupt entry: %v", err)
	}
}

// TestPushCorrupt guards against a layout with a blob whose content is wrong and whose
// size and time are right: it is found while it is pushed, and built anew.
func TestPushCorrupt(t *testing.T) {
	server, built := registrytest.Memory(t, registrytest.Options{}), registrytest.NewRelease(t, "v1.102.3", 1000)
	r, used := fake(t, built.LockFile)
	r.Repositories, r.Registry = []string{server.Repository("derper")}, &registry.Client{}
	if err := os.MkdirAll(r.Folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Symlink(built.Dir, r.path(layoutName)), os.Symlink(built.LockFile, r.path(lockName))); err != nil {
		t.Fatal(err)
	}
	blob := filepath.Join(built.Dir, "blobs", "sha256", strings.TrimPrefix(built.Lock.Output().Platforms[0].Layers[1].Digest, "sha256:"))
	whole, err := os.ReadFile(blob)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(blob)
	if err != nil {
		t.Fatal(err)
	}
	corrupt := slices.Clone(whole)
	corrupt[len(corrupt)/2] ^= 1
	if err := errors.Join(os.WriteFile(blob, corrupt, 0o644), os.Chtimes(blob, info.ModTime(), info.ModTime())); err != nil {
		t.Fatal(err)
	}
	r.Tools.Build = func(context.Context, string, string, string) error {
		*used = append(*used, "build")
		if _, err := os.Stat(blob); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the corrupt blob is there: %v", err)
		}
		return os.WriteFile(blob, whole, 0o644)
	}
	// A machine that runs this step alone has the right to push, and compiles nothing.
	if err := r.push(t.Context(), built.Lock, nil); !errors.Is(err, image.ErrCorrupt) || len(*used) > 0 {
		t.Errorf("%v, used %v", err, *used)
	}
	r.whole = true
	if err := r.push(t.Context(), built.Lock, nil); err != nil || !slices.Equal(*used, []string{"build"}) {
		t.Errorf("%v, used %v", err, *used)
	}
}
