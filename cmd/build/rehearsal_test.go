package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/mod/module"

	"github.com/xavieralpha/derper/internal/githubtest"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/registrytest"
	"github.com/xavieralpha/derper/internal/releasetest"
	"github.com/xavieralpha/derper/internal/sigstoretest"
	"github.com/xavieralpha/derper/internal/suite"
	"github.com/xavieralpha/derper/internal/workflowtest"
)

// Variables by which the program of a rehearsal learns where things are. The program
// itself has no such variables.
const (
	testUpstream = "DERPER_TEST_UPSTREAM" // tailscale's git repository
	testSigstore = "DERPER_TEST_SIGSTORE" // trusted root and signing config
)

// rehearse makes this program the one that a rehearsal's workflows run. It differs
// from the real one in three things. Where tailscale's repository, the checksum
// database and Sigstore are is the rehearsal's. build test looks whether the images
// are whole, and runs none of them: what the small release has for a relay only
// prints its name. build verify starts with the toolchain and the compiled standard
// library of the machine's cache, which has nothing else.
func rehearse() {
	repository := os.Getenv(testUpstream)
	if repository == "" {
		return
	}
	upstreamRepository = repository
	publicSigstore.root, publicSigstore.config, _ = strings.Cut(os.Getenv(testSigstore), string(os.PathListSeparator))
	for i := range commands {
		switch run := commands[i].run; commands[i].name {
		case "test":
			commands[i].run = lookOnly
		case "verify":
			commands[i].run = func(ctx context.Context, args []string, stdout, stderr io.Writer) error {
				return run(ctx, append(slices.Clone(args), "--trust-cache"), stdout, stderr)
			}
		}
	}
}

// lookOnly is build test without containers.
func lookOnly(_ context.Context, args []string, stdout, _ io.Writer) error {
	justParse = true
	if err := runTest(context.Background(), args, stdout, io.Discard); !errors.Is(err, errParsed) {
		return err
	}
	index, err := openLayout(args[len(args)-1])
	if err != nil {
		return err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return err
	}
	images := 0
	for _, d := range manifest.Manifests {
		if _, ok := image.Attests(d); ok {
			continue
		}
		images++
		img, err := index.Image(d.Digest)
		if err != nil {
			return err
		}
		if err := suite.Ours(img); err != nil {
			return fmt.Errorf("%s: %w", d.Platform, err)
		}
	}
	fmt.Fprintf(stdout, "%d images\n", images)
	return nil
}

// A stage is all that a release meets: a GitHub, tailscale's repository, the module
// proxy, two registries, Sigstore, and the runner of the workflows.
type stage struct {
	*testing.T
	github   *githubtest.Server
	upstream *releasetest.Repository
	one, two *registrytest.Proxy
	sigstore *sigstoretest.Sigstore
	runner   *workflowtest.Runner
	commands []string // that were run, as job: step
	writes   int      // to the registries, by the last run
}

const releaseTitle = "The release of the stable channel failed"

func newStage(t *testing.T) *stage {
	files, err := workflowtest.Load("../..")
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{
		T:        t,
		upstream: releasetest.NewRepository(t, releasetest.New(t, "../..")),
		one:      registrytest.NewProxy(t, registrytest.Docker(t, registrytest.Options{})),
		two:      registrytest.NewProxy(t, registrytest.Memory(t, registrytest.Options{})),
	}
	s.upstream.Commit(t, map[string]string{
		"go.sum":                 "",
		"cmd/tailscaled/main.go": "package main\n\nimport \"tailscale.com/version\"\n\nfunc main() { println(version.Short(), version.Commit()) }\n",
		"version/version.go":     "package version\n\nvar shortStamp, longStamp, gitCommitStamp string\n\nfunc Long() string { return longStamp }\nfunc Commit() string { return gitCommitStamp }\nfunc Short() string { return shortStamp }\n",
	})
	platforms := []lock.Platform{"linux/amd64", "linux/arm64"}
	stable := &lock.Lock{Schema: lock.SchemaVersion, Inputs: s.upstream.Inputs}
	stable.Inputs.Platforms = platforms
	content, err := stable.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	s.github = githubtest.New(t, map[string]string{lock.File: string(content), ".ci/prepare": "#!/bin/sh\n", "README.md": "rehearsal\n"})
	s.sigstore = sigstoretest.New(t, "https://git.example.com/"+githubtest.Repository+"/.github/workflows/sign.yml@refs/heads/main")
	for _, r := range []*registrytest.Proxy{s.one, s.two} {
		r.Hook(func(q registrytest.Request) {
			if q.Method != http.MethodGet && q.Method != http.MethodHead {
				s.writes++
			}
		})
	}
	s.runner = &workflowtest.Runner{
		Files:   files,
		Dir:     t.TempDir(),
		Secrets: map[string]any{},
		Vars:    map[string]any{"IMAGES": fmt.Sprintf("[%q, %q]", s.one.Repository("derper"), s.two.Repository("me/derper"))},
		GitHub: map[string]any{
			"repository": githubtest.Repository, "actor": "somebody", "ref": "refs/heads/main", "ref_name": "main",
		},
		Checkout: func(dir string) error {
			if out, err := exec.Command("git", "clone", "--quiet", s.github.Dir, dir).CombinedOutput(); err != nil {
				return fmt.Errorf("git clone: %w: %s", err, out)
			}
			return nil
		},
		Token:   s.github.Grant,
		Job:     s.machine,
		Running: s.running,
	}
	return s
}

// machine is another machine for each job: an empty cache, but for the toolchain and
// the compiled standard library.
func (s *stage) machine(dir string, grants map[string]string) ([]string, error) {
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		return nil, err
	}
	program, err := exec.LookPath("build")
	if err != nil {
		return nil, err
	}
	script := "#!/bin/sh\n[ \"$1 $2\" = 'run ./cmd/build' ] || { echo \"go: not in a rehearsal: $*\" >&2; exit 1; }\nshift 2\nexec " + program + " \"$@\"\n"
	if err := os.WriteFile(filepath.Join(bin, "go"), []byte(script), 0o755); err != nil {
		return nil, err
	}
	cache := filepath.Join(dir, "home", ".cache", "derper")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	releasetest.ShareInto(s.T, cache)
	env := []string{
		"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + filepath.Join(dir, "home"), "TMPDIR=" + dir, "LANG=C.UTF-8",
		"GOPROXY=" + s.upstream.Proxy, testSumDB + "=" + s.upstream.SumDB, testUpstream + "=" + s.upstream.URL,
		testSigstore + "=" + s.sigstore.TrustedRoot + string(os.PathListSeparator) + s.sigstore.SigningConfig,
		"GITHUB_ACTIONS=true", "GITHUB_API_URL=" + s.github.URL, "GITHUB_SERVER_URL=https://git.example.com",
		"GITHUB_REPOSITORY=" + githubtest.Repository, "GITHUB_REF_NAME=main", "GITHUB_RUN_ID=42", "GITHUB_RUN_ATTEMPT=1",
		"GITHUB_WORKFLOW_REF=" + githubtest.Repository + "/.github/workflows/release.yml@refs/heads/main",
	}
	if grants["id-token"] == "write" {
		env = append(env, "ACTIONS_ID_TOKEN_REQUEST_URL="+s.sigstore.TokenURL, "ACTIONS_ID_TOKEN_REQUEST_TOKEN="+s.sigstore.Bearer)
	}
	return env, nil
}

// running tells GitHub how the jobs stand.
func (s *stage) running(jobs []*workflowtest.Job) {
	var list []githubtest.Job
	for _, j := range jobs {
		list = append(list, githubtest.Job{Name: j.Name, Conclusion: j.Result, Steps: j.Steps, Failed: j.Failed, Log: j.Log})
	}
	s.github.SetJobs(list)
}

// run carries out release.yml and returns the jobs that failed.
func (s *stage) run() (failed []string, jobs []*workflowtest.Job) {
	s.Helper()
	return s.dispatch(map[string]any{})
}

// dispatch is run with inputs, as by hand.
func (s *stage) dispatch(inputs map[string]any) (failed []string, jobs []*workflowtest.Job) {
	s.Helper()
	s.commands, s.writes = nil, 0
	before, after := s.runner.Before, s.runner.After
	defer func() { s.runner.Before, s.runner.After = before, after }()
	s.runner.Before = func(step workflowtest.Step) error {
		s.commands = append(s.commands, step.String())
		if before != nil {
			return before(step)
		}
		return nil
	}
	jobs, err := s.runner.Run(s.Context(), "release.yml", inputs)
	if err != nil {
		s.Fatal(err)
	}
	for _, j := range jobs {
		if j.Result != "success" {
			failed = append(failed, j.Name)
		}
	}
	return failed, jobs
}

// mustRun carries out release.yml, which must succeed.
func (s *stage) mustRun() {
	s.Helper()
	if failed, jobs := s.run(); len(failed) > 0 {
		s.Fatalf("failed: %q\n%s", failed, logs(jobs))
	}
}

func logs(jobs []*workflowtest.Job) string {
	var b strings.Builder
	for _, j := range jobs {
		if j.Result != "success" {
			fmt.Fprintf(&b, "== %s: %s\n%s", j.Name, j.Failed, j.Log)
		}
	}
	return b.String()
}

// tags are the tags of both repositories and where they point. Those that hold
// signatures where a registry has no API for them are left out.
func (s *stage) tags() map[string]string {
	s.Helper()
	all := map[string]string{}
	for _, r := range []string{s.one.Repository("derper"), s.two.Repository("me/derper")} {
		repository, err := name.NewRepository(r)
		if err != nil {
			s.Fatal(err)
		}
		list, err := remote.List(repository)
		if err != nil && !strings.Contains(err.Error(), "NAME_UNKNOWN") {
			s.Fatal(err)
		}
		for _, tag := range list {
			if strings.HasPrefix(tag, "sha256-") {
				continue
			}
			d, err := remote.Head(repository.Tag(tag))
			if err != nil {
				s.Fatal(err)
			}
			all[repository.RepositoryStr()+":"+tag] = d.Digest.String()
		}
	}
	return all
}

// lockOn is a lock on main.
func (s *stage) lockOn(file string) *lock.Lock {
	s.Helper()
	l, err := lock.Parse([]byte(s.github.File(file)))
	if err != nil {
		s.Fatal(err)
	}
	return l
}

// isReleased checks everything that a release of the stable channel leaves.
func (s *stage) isReleased(version string) {
	s.Helper()
	l := s.lockOn(lock.File)
	if l.Inputs.Tailscale.Version != version || l.Outputs == nil {
		s.Fatalf("main's lock is of %s, not %s, or has no outputs", l.Inputs.Tailscale.Version, version)
	}
	short := strings.TrimPrefix(version, "v")
	minor := short[:strings.LastIndex(short, ".")]
	tags := s.tags()
	for _, repository := range []string{"derper", "me/derper"} {
		for _, tag := range []string{version, short, minor, "latest"} {
			if got := tags[repository+":"+tag]; got != l.Outputs.Index {
				s.Errorf("%s:%s is %s, not %s", repository, tag, got, l.Outputs.Index)
			}
		}
	}
	var found *githubtest.Release
	for _, r := range s.github.Releases() {
		if r.Tag == version {
			found = &r
		}
	}
	switch {
	case found == nil:
		s.Errorf("GitHub has no release %s", version)
	case found.Prerelease, !found.Latest, !strings.Contains(found.Body, l.Outputs.Index), !strings.Contains(found.Body, "/sign.yml@refs/heads/main"):
		s.Errorf("GitHub's release: %+v", found)
	}
	at, err := exec.Command("git", "-C", s.github.Dir, "show", found.Commit+":"+lock.File).Output()
	if err != nil || string(at) != s.github.File(lock.File) {
		s.Errorf("the release's commit %s has another lock: %v", found.Commit, err)
	}
	for _, r := range []string{s.one.Repository("derper"), s.two.Repository("me/derper")} {
		var out, errs strings.Builder
		if code := run(s.Context(), []string{"verify-signature", "--trusted-root", s.sigstore.TrustedRoot, "--issuer", sigstoretest.Issuer,
			"--identity", s.sigstore.Identity, r + "@" + l.Outputs.Index}, &out, &errs); code != exitOK {
			s.Errorf("%s: signatures: exit code %d: %s", r, code, errs.String())
		}
	}
}

// isQuiet checks that a day without news asks, and does nothing.
func (s *stage) isQuiet() {
	s.Helper()
	tags, commits := s.tags(), s.github.Commits()
	s.mustRun()
	want := []string{
		"stable / update: look for a new release of tailscale", "stable / update: look whether the lock's release is published",
		"unstable / update: look for a new release of tailscale", "unstable / update: look whether the lock's release is published",
	}
	if !slices.Equal(s.commands, want) {
		s.Errorf("nothing new, and yet it did %q", s.commands)
	}
	if s.writes > 0 || !maps.Equal(s.tags(), tags) || len(s.github.Commits()) != len(commits) {
		s.Errorf("nothing new, and yet something was written: %d requests", s.writes)
	}
}

// next publishes a release of tailscale.
func (s *stage) next(version string) {
	s.Helper()
	s.upstream.Commit(s.T, map[string]string{"VERSION.txt": version})
	s.upstream.Publish(s.T, version)
}

// TestRehearsal carries out release.yml, as it is, against a module proxy, git
// repositories, registries, a GitHub and a Sigstore on loopback: from nothing
// published through a release to nothing new, and through a failure at each step.
func TestRehearsal(t *testing.T) {
	s := newStage(t)
	s.next("v1.104.0")
	s.next("v1.105.0-pre")
	began := time.Now()
	s.mustRun()
	t.Logf("from nothing published: %d commands, %v", len(s.commands), time.Since(began).Round(time.Second))
	s.isReleased("v1.104.0")
	u := s.lockOn(unstableLock)
	if u.Inputs.Tailscale.Version != "v1.105.0-pre" || !slices.Equal(u.Inputs.Platforms, lock.Known) || s.tags()["derper:unstable"] != u.Outputs.Index {
		t.Errorf("unstable: %+v", u.Inputs)
	}
	var steps []string // of the stable channel, each once
	for _, step := range s.commands {
		if strings.HasPrefix(step, "stable / ") && !slices.Contains(steps, step) {
			steps = append(steps, step)
		}
	}
	began = time.Now()
	s.isQuiet()
	t.Logf("nothing new: %v", time.Since(began).Round(10*time.Millisecond))
	if t.Failed() {
		return
	}

	s.theFork()
	count := 0
	for _, step := range steps {
		for _, lost := range []bool{false, true} {
			if _, name, _ := strings.Cut(step, ": "); lost && slices.Contains(leavesNothing, name) {
				continue
			}
			count++
			s.failAt(step, lost, fmt.Sprintf("v1.106.%d", count))
			if t.Failed() {
				t.Fatalf("after a failure at %s, lost %v", step, lost)
			}
		}
	}
	s.isQuiet()
	s.again()
	t.Logf("%d failures, at %d steps: after each, the next run released", count, len(steps))
}

const unstableLock = "versions-unstable.json"

// leavesNothing are the steps of which nothing is left outside of their machine: it
// is the same whether they failed or their machine was lost.
var leavesNothing = []string{
	"look whether the lock's release is published", "build all platforms, compare with the lock",
	"make the runner ready for containers of all platforms", "test the image", "rebuild it and compare",
}

// theFork checks that somebody else's registries and GitHub get what the lock has,
// though there is no new release.
func (s *stage) theFork() {
	s.Helper()
	before := s.lockOn(lock.File)
	own := registrytest.NewProxy(s.T, registrytest.Memory(s.T, registrytest.Options{}))
	images := s.runner.Vars["IMAGES"]
	s.runner.Vars["IMAGES"] = fmt.Sprintf("[%q]", own.Repository("fork"))
	defer func() { s.runner.Vars["IMAGES"] = images }()
	s.github.DeleteReleases()
	s.mustRun()
	repository, err := name.NewRepository(own.Repository("fork"))
	if err != nil {
		s.Fatal(err)
	}
	d, err := remote.Head(repository.Tag("latest"))
	if err != nil || d.Digest.String() != before.Outputs.Index {
		s.Errorf("the fork's latest is %v, %v, not %s", d, err, before.Outputs.Index)
	}
	if l := s.lockOn(lock.File); l.Outputs.Index != before.Outputs.Index {
		s.Errorf("the lock has another index: %s", l.Outputs.Index)
	}
}

// again checks that a run by hand goes through everything and changes nothing.
func (s *stage) again() {
	s.Helper()
	tags, commits, releases := s.tags(), s.github.Commits(), s.github.Releases()
	if failed, jobs := s.dispatch(map[string]any{"again": true}); len(failed) > 0 {
		s.Fatalf("failed: %q\n%s", failed, logs(jobs))
	}
	if !slices.Contains(s.commands, "stable / record: publish the release notes") {
		s.Errorf("it did only %q", s.commands)
	}
	if !maps.Equal(s.tags(), tags) || len(s.github.Commits()) != len(commits) || len(s.github.Releases()) != len(releases) || s.writes > 0 {
		s.Errorf("something was published anew: %d requests", s.writes)
	}
}

// A fault makes a step fail.
type fault struct {
	begin, end func()
	// says is part of what the issue says of it.
	says string
}

// faults are what can happen to each step, named as in publish.yml and sign.yml.
func (s *stage) faults(version string) map[string]fault {
	refuse := func(p *registrytest.Proxy, f registrytest.Fault, match func(registrytest.Request) bool) fault {
		return fault{func() { p.Refuse(f, match) }, func() { p.Arm(0, "", false) }, p.Host}
	}
	writes := func(q registrytest.Request) bool { return q.Method != http.MethodGet && q.Method != http.MethodHead }
	push := func(path, content string) {
		if err := s.github.Push(map[string]string{path: content}); err != nil {
			s.Fatal(err)
		}
	}
	nobody := func() {}
	return map[string]fault{
		"look for a new release of tailscale": {
			func() {
				s.upstream.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
					if !strings.HasSuffix(req.URL.Path, "/@v/list") {
						return false
					}
					http.Error(w, "no", http.StatusForbidden)
					return true
				})
			},
			func() { s.upstream.Intercept(nil) }, "403 Forbidden",
		},
		"look whether the lock's release is published": {func() { s.github.Fail(githubtest.Refused) }, nobody, "403 Forbidden"},
		"build all platforms, record what came out": {
			func() { s.upstream.Tamper(s.T, module.Version{Path: lock.TailscaleModule, Version: version}) },
			func() { s.upstream.PublishModule(s.T, version) }, "checksum mismatch",
		},
		// Nothing but the machine can fail here.
		"build all platforms, compare with the lock": {},
		"make the runner ready for containers of all platforms": {
			// What is checked out is what is on main when the run begins.
			func() { push(".ci/prepare", "#!/bin/sh\necho no emulators >&2\nexit 1\n") },
			func() { push(".ci/prepare", "#!/bin/sh\n") }, "no emulators",
		},
		"test the image": {},
		"push by digest to all repositories, read it back": refuse(s.two, registrytest.Unauthorized, writes),
		"rebuild it and compare": refuse(s.one, registrytest.Corrupt, func(q registrytest.Request) bool {
			return q.Method == http.MethodGet && strings.Contains(q.Path, "/blobs/")
		}),
		"sign and attest": {
			func() { s.sigstore.Break("/api/v1/timestamp", 1000, "no") },
			func() { s.sigstore.Break("/api/v1/timestamp", 0, "") }, "build: sign: ",
		},
		"move the tags, in all repositories": refuse(s.two, registrytest.Unauthorized, writes),
		"commit the lock": {
			func() {
				l := s.lockOn(lock.File)
				l.Outputs = nil
				content, err := l.Bytes()
				if err != nil {
					s.Fatal(err)
				}
				push(lock.File, string(content))
			},
			nobody, "somebody else changed it",
		},
		"publish the release notes": {func() { s.github.Fail(githubtest.Refused) }, nobody, "403 Forbidden"},
	}
}

// failAt releases a version, in a run that fails at a step and in another one. With
// lost, the machine is gone after it has done the step; else the step meets its fault.
func (s *stage) failAt(step string, lost bool, version string) {
	s.Helper()
	job, name, _ := strings.Cut(step, ": ")
	if name == "look whether the lock's release is published" && !lost {
		version = s.lockOn(lock.File).Inputs.Tailscale.Version // a new lock is known not to be
	} else {
		s.next(version)
	}
	f, known := s.faults(version)[name]
	if !known {
		s.Fatalf("what can happen to %q?", step)
	}
	gone := errors.New("the machine is gone")
	s.runner.Before = func(this workflowtest.Step) error {
		switch {
		case lost || this.String() != step:
		case f.begin == nil:
			return gone
		default:
			f.begin()
		}
		return nil
	}
	s.runner.After = func(this workflowtest.Step) error {
		if lost && this.String() == step {
			return gone
		}
		return nil
	}
	tags, before := s.tags(), s.github.File(lock.File)
	s.github.CloseIssues()
	failed, jobs := s.run()
	s.runner.Before, s.runner.After = nil, nil
	if !lost && f.begin != nil {
		f.end()
	}

	if !slices.Contains(failed, job) {
		s.Errorf("%s did not fail:\n%s", step, logs(jobs))
	}
	tagging := slices.Index(s.commands, "stable / tag: move the tags, in all repositories")
	moved := tagging >= 0 && (lost || !strings.Contains(step, "move the tags"))
	for tag, was := range s.tags() {
		if old := tags[tag]; !moved && old != "" && old != was {
			s.Errorf("%s: %s has moved", step, tag)
		} else if isNew := old == ""; !moved && isNew && tagging < 0 {
			s.Errorf("%s: %s is new", step, tag)
		}
	}
	committed := slices.Contains(s.commands, "stable / record: commit the lock") && (lost || name != "commit the lock")
	if after := s.github.File(lock.File); !committed && name != "commit the lock" && after != before {
		s.Errorf("%s: main has another lock", step)
	}
	said := gone.Error()
	if !lost && f.begin != nil {
		said = f.says
	}
	issues := slices.DeleteFunc(s.github.Issues(), func(i githubtest.Issue) bool { return i.Title != releaseTitle })
	if len(issues) != 1 || !strings.Contains(issues[0].Body, "### "+step+"\n") || !strings.Contains(issues[0].Body, said) {
		s.Errorf("%s: wants an issue that says %q: %+v", step, said, issues)
	}

	s.mustRun()
	s.isReleased(version)
}
