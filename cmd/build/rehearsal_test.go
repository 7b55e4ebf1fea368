package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/mod/module"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/cache"
	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/container"
	"github.com/xavieralpha/derper/internal/flags"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/release"
	"github.com/xavieralpha/derper/internal/sign"
	"github.com/xavieralpha/derper/internal/suite"
	"github.com/xavieralpha/derper/internal/testing/githubtest"
	"github.com/xavieralpha/derper/internal/testing/need"
	"github.com/xavieralpha/derper/internal/testing/registrytest"
	"github.com/xavieralpha/derper/internal/testing/releasetest"
	"github.com/xavieralpha/derper/internal/testing/sigstoretest"
	"github.com/xavieralpha/derper/internal/testing/vextest"
	"github.com/xavieralpha/derper/internal/verify"
	"github.com/xavieralpha/derper/internal/vex"
)

// Variables by which the program of a rehearsal learns where things are, and what
// becomes of its tests. The program itself has no such variables.
const (
	testUpstream = "DERPER_TEST_UPSTREAM" // tailscale's git repository
	testSigstore = "DERPER_TEST_SIGSTORE" // trusted root and signing config
	testTests    = "DERPER_TEST_TESTS"    // "fail" or "kill"
	testShared   = "DERPER_TEST_SHARED"   // a cache whose toolchain and compiled packages verify has
	testScans    = "DERPER_TEST_SCANS"    // "fail", or the findings of a scan, in JSON
)

// rehearse makes this program the one that a rehearsal runs. It differs from the real
// one in three things. Where tailscale's repository, the checksum database and Sigstore
// are is the rehearsal's. The step test looks whether the images are whole, and runs
// none of them: what the small release has for a relay only prints its name. The step scan
// finds what it is said to find.
func rehearse(e *env) {
	repository := os.Getenv(testUpstream)
	if repository == "" {
		return
	}
	e.upstream = repository
	e.sigstore = func(ctx context.Context, f sigstoreFiles) (*sign.Sigstore, error) {
		if f == (sigstoreFiles{}) {
			f.root, f.config, _ = strings.Cut(os.Getenv(testSigstore), string(os.PathListSeparator))
		}
		return openSigstore(ctx, f)
	}
	if shared := os.Getenv(testShared); shared != "" {
		e.scratch = func() (dir string, remove func() error, err error) {
			dir, remove, err = verify.Scratch()
			var c *cache.Cache
			if err == nil {
				c, err = cache.Open(dir)
			}
			if err == nil {
				err = c.Close()
				for _, sub := range []string{"toolchain", "go-build"} {
					err = errors.Join(err, os.Symlink(filepath.Join(shared, sub), filepath.Join(dir, sub)))
				}
			}
			return dir, remove, err
		}
	}
	real := e.tools
	e.tools = func(o *releaseOptions) release.Tools {
		t := real(o)
		t.Scan = func(_ context.Context, lockFile, scans string) error {
			var findings []vex.Finding
			l, err := lock.Read(lockFile)
			if text := os.Getenv(testScans); text == "fail" {
				err = errors.New("the database cannot be reached")
			} else if text != "" && err == nil {
				err = json.Unmarshal([]byte(text), &findings)
			}
			if err != nil {
				return err
			}
			return vextest.Scans(l.Inputs, findings...).Write(scans)
		}
		t.Test = func(ctx context.Context, layout string, platforms []lock.Platform, report string) (tests []attest.Tests, err error) {
			switch os.Getenv(testTests) {
			case "fail":
				return nil, errors.New("a case failed")
			case "kill":
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
			var wanted []v1.Platform
			for _, p := range platforms {
				wanted = append(wanted, v1.Platform{OS: p.OS(), Architecture: p.Arch(), Variant: p.Variant()})
			}
			images, err := container.Open(ctx, layout, nil, wanted...)
			for i, img := range images {
				digest, derr := img.Digest()
				err = errors.Join(err, derr, suite.Ours(img))
				tests = append(tests, attest.Tests{
					Digest: digest.String(), Platform: platforms[i], Passed: []string{"whole"},
					TestedBy: attest.TestedBy{Runner: "native", Host: "linux/amd64", Version: "v0.0.0"},
				})
			}
			return tests, errors.Join(err, os.WriteFile(report, []byte("<testsuites/>"), 0o644))
		}
		return t
	}
}

// A stage is all that a release meets: a GitHub, tailscale's repository, the module
// proxy, two registries, and Sigstore.
type stage struct {
	*testing.T
	github   *githubtest.Server
	upstream *releasetest.Repository
	one, two *registrytest.Proxy
	sigstore *sigstoretest.Sigstore
	program  string
	home     string // with a cache

	mu      sync.Mutex
	trigger func(from, request string) bool // kills the program that runs, when true
	cut     bool                            // what was on its way when it was killed does not arrive
	running *os.Process
	writes  int // requests to the registries that write, since the last run began
}

// stagedPrograms and stagedVariants are those of a rehearsal: one variant has a program of
// its own, and one only files and a user.
var (
	stagedPrograms = []lock.Program{
		{Package: lock.TailscaleModule + "/cmd/derper"}, {Package: lock.TailscaleModule + "/cmd/stunc"}, {Package: lock.TailscaleModule + "/cmd/tailscaled"},
	}
	stagedVariants = []lock.Variant{
		{Name: lock.Default, Programs: []string{"tailscaled", "derper"}},
		{Name: "nonroot", Programs: []string{"tailscaled", "derper"}, Suffix: "-nonroot", User: "65532", Files: []lock.Entry{{Path: "var/lib/derper/", Mode: "0755", Owner: 65532}}},
		{Name: "debug", Programs: []string{"tailscaled", "derper", "stunc"}, Suffix: "-debug"},
	}
)

// newStage is a stage whose channel stable begins with the inputs that edit makes of those of
// a rehearsal.
func newStage(t *testing.T, edit ...func(*stage, *lock.Inputs)) *stage {
	s := &stage{
		T:        t,
		upstream: releasetest.NewRepository(t, releasetest.New(t, "../..")),
		one:      registrytest.NewProxy(t, registrytest.Distribution(t, registrytest.Options{})),
		two:      registrytest.NewProxy(t, registrytest.Memory(t, registrytest.Options{})),
	}
	s.upstream.Commit(t, map[string]string{
		"go.sum":                 "",
		"cmd/tailscaled/main.go": "package main\n\nimport \"tailscale.com/version\"\n\nfunc main() { println(version.Short(), version.Commit()) }\n",
		"cmd/stunc/main.go":      "package main\n\nfunc main() { println(\"stunc\") }\n",
		"version/version.go":     "package version\n\nvar shortStamp, longStamp, gitCommitStamp string\n\nfunc Long() string { return longStamp }\nfunc Commit() string { return gitCommitStamp }\nfunc Short() string { return shortStamp }\n",
	})
	stable := &lock.Lock{Schema: lock.SchemaVersion, Inputs: s.upstream.Inputs}
	stable.Inputs.Platforms = []lock.Platform{"linux/amd64", "linux/arm64"}
	stable.Inputs.Source = "https://git.example.com/" + githubtest.Repository
	stable.Inputs.Programs, stable.Inputs.Variants = stagedPrograms, stagedVariants
	for _, f := range edit {
		f(s, &stable.Inputs)
	}
	content, err := stable.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	// Without a lock of its own the channel would have the default variants, whose tools take
	// minutes to compile for all platforms.
	unstable := *stable
	unstable.Inputs.Platforms = []lock.Platform{"linux/386", "linux/amd64", "linux/s390x"} // its own
	more, err := unstable.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	s.github = githubtest.New(t, map[string]string{lock.File: string(content), lock.Unstable.File(): string(more), "README.md": "rehearsal\n"})
	s.github.Immutable()
	s.github.Hook(func(request string) { s.seen("github", request) })
	s.sigstore = sigstoretest.New(t, "https://git.example.com/"+githubtest.Repository+"/.github/workflows/sign.yml@refs/heads/main")
	s.one.Immutable(registrytest.RevisionTags, registrytest.Immutabilities["Docker Hub"])
	s.two.Immutable(registrytest.RevisionTags, registrytest.Immutabilities["ECR"])
	for name, r := range map[string]*registrytest.Proxy{"one": s.one, "two": s.two} {
		r.Hook(func(q registrytest.Request) {
			if isWrite(q) {
				s.mu.Lock()
				s.writes++
				s.mu.Unlock()
			}
			s.seen(name, q.Method+" "+q.Path)
		})
	}
	s.intercept(nil)
	if s.program, err = exec.LookPath("build"); err != nil {
		t.Fatal(err)
	}
	s.home = s.newHome()
	return s
}

// seen kills the program that runs when the request is the one to kill it at.
func (s *stage) seen(from, request string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trigger == nil {
		return
	}
	if s.running != nil && s.trigger(from, request) {
		s.running.Kill() // SIGKILL
		s.running = nil
	}
	if s.cut && s.running == nil {
		panic(http.ErrAbortHandler)
	}
}

// intercept sees what upstream's servers are asked before answer, which may be nil.
func (s *stage) intercept(answer func(http.ResponseWriter, *http.Request) bool) {
	s.upstream.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
		s.seen("upstream", req.Method+" "+req.URL.Path)
		return answer != nil && answer(w, req)
	})
}

func isWrite(q registrytest.Request) bool {
	return q.Method != http.MethodGet && q.Method != http.MethodHead
}

func (s *stage) repositories() []string {
	return []string{s.one.Repository("derper"), s.two.Repository("me/derper")}
}

// A job is what a workflow's job hands on: the step that ran, and its exit code.
type job struct {
	step   string
	code   int // -1 for a program that was killed
	stderr string
}

// env are the variables of a job.
func (s *stage) env(home string, more ...string) []string {
	return append([]string{
		"PATH=/nowhere", "HOME=" + home, "TMPDIR=" + home, "LANG=C.UTF-8",
		"GOPROXY=" + s.upstream.Proxy, testSumDB + "=" + s.upstream.SumDB, testUpstream + "=" + s.upstream.URL,
		testSigstore + "=" + s.sigstore.TrustedRoot + string(os.PathListSeparator) + s.sigstore.SigningConfig,
		"GITHUB_ACTIONS=true", "GITHUB_API_URL=" + s.github.URL, "GITHUB_SERVER_URL=https://git.example.com",
		"GITHUB_REPOSITORY=" + githubtest.Repository, "GITHUB_REF_NAME=main", "GITHUB_RUN_ID=42", "GITHUB_RUN_ATTEMPT=1",
		"GITHUB_WORKFLOW_REF=" + githubtest.Repository + "/.github/workflows/release.yml@refs/heads/main",
	}, more...)
}

// start runs the program in dir.
func (s *stage) start(dir string, env []string, args ...string) (code int, stderr string) {
	s.Helper()
	cmd := exec.Command(s.program, args...)
	var errs, out bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, &out, &errs
	s.mu.Lock()
	err := cmd.Start()
	s.running = cmd.Process
	s.mu.Unlock()
	if err != nil {
		s.Fatal(err)
	}
	_ = cmd.Wait() // the exit code says it
	s.mu.Lock()
	s.running = nil
	s.mu.Unlock()
	return cmd.ProcessState.ExitCode(), out.String() + errs.String()
}

// A workflowRun is a run of the workflow.
type workflowRun struct {
	channel      lock.Channel
	again        bool
	repositories []string
	// env are more variables for the job of one step.
	step string
	env  []string
	// artifact is called with the folder that a job has, before its step.
	artifact func(step, folder string)
	// home is a home folder for all jobs, with its cache; "" for one of its own for each.
	home string
}

// workflow carries out the steps of a release as publish.yml does: each on a machine of
// its own, with a fresh checkout, an empty cache but for the toolchain and the compiled
// standard library, and what the jobs before handed on. It stops at a step that fails.
func (s *stage) workflow(w workflowRun) (jobs []job) {
	s.Helper()
	s.mu.Lock()
	s.writes = 0
	s.mu.Unlock()
	if w.repositories == nil {
		w.repositories = s.repositories()
	}
	artifacts, sha := s.TempDir(), s.github.Revision("main")
	repositories := []string{"--to", strings.Join(w.repositories, ",")}
	var digests []string
	var variants, compiling []string // outputs of the job update
	for _, step := range release.Steps {
		parts := [][]string{nil}
		if step.ByVariant() {
			of := variants
			if step.Ahead {
				of = compiling
			}
			parts = nil
			for _, v := range of {
				parts = append(parts, []string{"--variant", v})
			}
		}
		if step.Name == "test" && w.channel == lock.Stable { // which has these two
			var each [][]string
			for _, part := range parts {
				for _, platform := range []string{"linux/amd64", "linux/arm64"} {
					each = append(each, append(slices.Clone(part), "--platform", platform))
				}
			}
			parts = each
		}
		for _, part := range parts {
			machine := s.TempDir()
			checkout, home := filepath.Join(machine, "checkout"), w.home
			folder := filepath.Join(checkout, "release")
			if err := os.MkdirAll(checkout, 0o755); err != nil {
				s.Fatal(err)
			}
			if home == "" {
				home = s.newHome()
			}
			for _, file := range []string{w.channel.File(), flags.PageFile} { // of the checkout
				if content := s.github.File(file); content != "" {
					name := filepath.Join(checkout, file)
					if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
						s.Fatal(err)
					}
					write(s.T, name, content)
				}
			}
			if _, err := os.Stat(filepath.Join(artifacts, "release")); err == nil {
				copyDir(s.T, filepath.Join(artifacts, "release"), folder)
			}
			if w.artifact != nil {
				w.artifact(step.Name, folder)
			}
			// A cache that is named is trusted, so that each machine need not compile the
			// standard library.
			args := append([]string{"release", "--step", step.Name, "--cache", filepath.Join(home, ".cache", "derper")}, part...)
			env := s.env(home, "GITHUB_OUTPUT="+filepath.Join(machine, "output"), "GITHUB_SHA="+sha)
			if step.Name == "update" {
				args = append(args, "--update", "--channel", string(w.channel), "--lock", w.channel.File(), "--github", fmt.Sprintf("--again=%v", w.again))
			}
			if step.Name == "record" {
				args = append(args, "--lock", w.channel.File(), "--github")
			}
			switch {
			case step.Has(release.Recording):
				env = append(env, "GITHUB_TOKEN="+s.github.Grant(map[string]string{"contents": "write"}))
			case step.Name == "update":
				env = append(env, "GITHUB_TOKEN="+s.github.Grant(map[string]string{"contents": "read"}))
			}
			if step.Has(release.Pull | release.Push) {
				args = append(args, repositories...)
			}
			if step.Has(release.Identity) {
				args = append(args, "--keyless")
				env = append(env, "ACTIONS_ID_TOKEN_REQUEST_URL="+s.sigstore.TokenURL, "ACTIONS_ID_TOKEN_REQUEST_TOKEN="+s.sigstore.Bearer)
			}
			if step.Has(release.Images) {
				args = append(args, digests...)
			}
			if w.step == step.Name {
				env = append(env, w.env...)
			}
			code, stderr := s.start(checkout, env, args...)
			jobs = append(jobs, job{step.Name, code, stderr})
			if code != cli.ExitOK {
				return jobs
			}
			outputs, err := os.ReadFile(filepath.Join(machine, "output"))
			if err != nil {
				s.Fatal(err)
			}
			copyDir(s.T, folder, filepath.Join(artifacts, "release"))
			switch step.Name {
			case "update":
				variants, compiling = listOutput(s.T, outputs, "variants"), listOutput(s.T, outputs, "compiling")
				if !strings.Contains(string(outputs), "release=true\n") {
					return jobs
				}
			case "build":
				_, rest, _ := strings.Cut(string(outputs), "digests=")
				d, _, _ := strings.Cut(rest, "\n")
				digests = []string{"--digests", d}
			}
			os.RemoveAll(machine)
		}
	}
	return jobs
}

// listOutput is an output of a job that is a list in JSON.
func listOutput(t *testing.T, outputs []byte, name string) (list []string) {
	t.Helper()
	for line := range strings.Lines(string(outputs)) {
		if text, ok := strings.CutPrefix(line, name+"="); ok {
			if err := json.Unmarshal([]byte(text), &list); err != nil {
				t.Fatalf("output %s: %v", line, err)
			}
		}
	}
	return list
}

// newHome is a home folder whose cache has the toolchain and the compiled standard
// library.
func (s *stage) newHome() string {
	s.Helper()
	home := s.TempDir()
	s.Cleanup(func() { cache.RemoveAll(home) }) // with the modules in it, which are read-only
	cacheDir := filepath.Join(home, ".cache", "derper")
	if err := os.MkdirAll(cacheDir, 0o755); err != nil {
		s.Fatal(err)
	}
	releasetest.ShareInto(s.T, cacheDir)
	return home
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(from, path)
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		content, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(filepath.Join(to, rel), content, 0o644)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func failed(jobs []job) bool { return jobs[len(jobs)-1].code != cli.ExitOK }

// releases carries out the workflow, which must release.
func (s *stage) releases(w workflowRun) []job {
	s.Helper()
	jobs := s.workflow(w)
	if last := jobs[len(jobs)-1]; failed(jobs) || last.step != "record" {
		s.Fatalf("stopped at %s: exit code %d\n%s", last.step, last.code, last.stderr)
	}
	return jobs
}

// isQuiet checks that a day without news asks, and does nothing.
func (s *stage) isQuiet(c lock.Channel) {
	s.Helper()
	tags, commits := s.tags(), s.github.Commits()
	jobs := s.workflow(workflowRun{channel: c})
	if len(jobs) != 1 || failed(jobs) {
		s.Errorf("nothing new, and yet it did %+v", jobs)
	}
	if s.writes > 0 || !maps.Equal(s.tags(), tags) || len(s.github.Commits()) != len(commits) {
		s.Errorf("nothing new, and yet something was written: %d requests", s.writes)
	}
}

// tags are the tags of both repositories and where they point. Those that hold
// signatures where a registry has no API for them are left out.
func (s *stage) tags() map[string]string {
	s.Helper()
	all := map[string]string{}
	for _, r := range s.repositories() {
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
				continue // a registry may list a tag that it has only begun to write
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
		for _, v := range l.Inputs.Variants {
			names := []string{short + "-r0" + v.Suffix, version + v.Suffix, short + v.Suffix, minor + v.Suffix, "latest" + v.Suffix}
			if v.Suffix != "" {
				names = append(names, v.Name)
			}
			for _, tag := range names {
				if got, want := tags[repository+":"+tag], l.Outputs[v.Name].Index; got != want {
					s.Errorf("%s:%s is %s, not %s", repository, tag, got, want)
				}
			}
		}
	}
	if p := l.Published; p == nil || p.Revision != 0 || !maps.Equal(p.Index, l.Indexes()) {
		s.Errorf("main's lock has as published: %+v", p)
	}
	var found *githubtest.Release
	for _, r := range s.github.Releases() {
		if r.Tag == short+"-r0" {
			found = &r
		}
	}
	if found == nil {
		s.Fatalf("GitHub has no release %s", version)
	}
	if found.Prerelease || !found.Latest || !strings.Contains(found.Body, l.Output().Index) || !strings.Contains(found.Body, "/sign.yml@refs/heads/main") {
		s.Errorf("GitHub's release: %+v", found)
	}
	if drafts := s.github.Drafts(); len(drafts) > 0 {
		s.Errorf("GitHub has drafts: %+v", drafts)
	}
	var assets []string
	for _, a := range found.Assets {
		assets = append(assets, a.Name)
		if a.Name == lock.File && a.Content != s.github.File(lock.File) {
			s.Errorf("the release's lock is another one than main's")
		}
	}
	for _, want := range []string{lock.File, "test-default-linux-arm64.xml", "provenance.json", "index.spdx.json", "nonroot-linux-amd64.spdx.json", "debug-provenance.json"} {
		if !slices.Contains(assets, want) {
			s.Errorf("the release has the files %q, and not %s", assets, want)
		}
	}
	at, err := s.github.FileAt(found.Commit, lock.File)
	if err != nil || at != s.github.File(lock.File) {
		s.Errorf("the release's commit %s has another lock: %v", found.Commit, err)
	}
	for variant, index := range l.Indexes() {
		if !strings.Contains(found.Body, index) {
			s.Errorf("GitHub's release says nothing of %s, %s", variant, index)
		}
		for _, r := range s.repositories() {
			s.isSigned(r + "@" + index)
		}
	}
}

func (s *stage) isSigned(ref string) {
	s.Helper()
	var out, errs strings.Builder
	if code := run(s.Context(), []string{"verify-signature", "--tests", "--trusted-root", s.sigstore.TrustedRoot, "--issuer", sigstoretest.Issuer,
		"--identity", s.sigstore.Identity, ref}, &out, &errs); code != cli.ExitOK {
		s.Errorf("%s: signatures: exit code %d: %s", ref, code, errs.String())
	}
}

// next publishes a release of tailscale.
func (s *stage) next(version string) {
	s.Helper()
	s.upstream.Commit(s.T, map[string]string{"VERSION.txt": version})
	s.upstream.Publish(s.T, version)
}

// A fault is what goes wrong in a step.
type fault struct {
	step, name string
	// begin brings it about, and end puts it right; both may be nil.
	begin, end func()
	// kill is set to kill the program with SIGKILL at the first request that it
	// matches.
	kill func(from, request string) bool
	env  []string
	// artifact changes what the jobs before handed on.
	artifact func(step, folder string)
	// code is the exit code, -1 for a program that was killed; says is part of what
	// the program prints.
	code int
	says string
	// tags are set for a fault in the middle of moving tags.
	tags bool
}

// faults are what can go wrong in each step: in its own way, and by SIGKILL half way.
func (s *stage) faults(version string) []fault {
	refuse := func(step string, p *registrytest.Proxy, match func(registrytest.Request) bool) fault {
		return fault{step: step, name: "registry refuses", begin: func() { p.Refuse(registrytest.Unauthorized, match) }, end: func() { p.Arm(0, "", false) }, code: cli.ExitFailed, says: p.Host}
	}
	nth := func(n int, match func(from, request string) bool) func(string, string) bool {
		return func(from, request string) bool {
			if match(from, request) {
				n--
			}
			return n == 0
		}
	}
	contains := func(in, what string) func(string, string) bool {
		return func(from, request string) bool { return from == in && strings.Contains(request, what) }
	}
	tag := func(from, request string) bool {
		return strings.HasPrefix(request, "PUT ") && strings.Contains(request, "/manifests/") && !strings.Contains(request, "/manifests/sha256")
	}
	refuseGitHub := func() { s.github.Fail(githubtest.Refused) }
	return []fault{
		{step: "update", name: "proxy refuses", begin: func() {
			s.intercept(func(w http.ResponseWriter, req *http.Request) bool {
				if !strings.HasSuffix(req.URL.Path, "/@v/list") {
					return false
				}
				http.Error(w, "no", http.StatusForbidden)
				return true
			})
		}, end: func() { s.intercept(nil) }, code: cli.ExitFailed, says: "403 Forbidden"},
		{step: "update", name: "killed", kill: contains("upstream", "/upstream.git"), code: -1},
		{step: "compile", name: "other source", begin: func() {
			s.upstream.Tamper(s.T, module.Version{Path: lock.TailscaleModule, Version: version})
		}, end: func() { s.upstream.PublishModule(s.T, version) }, code: cli.ExitFailed, says: "checksum mismatch"},
		{step: "compile", name: "killed", kill: contains("upstream", ".zip"), code: -1},
		{step: "build", name: "other artifact", artifact: func(step, folder string) {
			if step != "build" {
				return
			}
			blobs, err := filepath.Glob(filepath.Join(folder, "compiled", "blobs", "*"))
			if err != nil || len(blobs) == 0 {
				s.Fatalf("nothing was compiled ahead: %v", err)
			}
			write(s.T, blobs[0], "another program")
		}, code: cli.ExitFailed, says: "corrupt"},
		{step: "build", name: "killed", kill: contains("upstream", ".zip"), code: -1},
		{step: "scan", name: "no database", env: []string{testScans + "=fail"}, code: cli.ExitFailed, says: "the database cannot be reached"},
		{step: "test", name: "a case fails", env: []string{testTests + "=fail"}, code: cli.ExitFailed, says: "a case failed"},
		{step: "test", name: "killed", env: []string{testTests + "=kill"}, code: -1},
		refuse("push", s.two, isWrite),
		{step: "push", name: "killed", kill: nth(5, func(from, request string) bool {
			return !strings.HasPrefix(request, "GET") && !strings.HasPrefix(request, "HEAD")
		}), code: -1},
		{step: "push", name: "other artifact", artifact: func(step, folder string) {
			if step == "push" {
				s.otherIndex(filepath.Join(folder, lock.File))
			}
		}, code: cli.ExitDiffers, says: "expected the images"},
		{step: "push", name: "untested", artifact: func(step, folder string) {
			if step == "push" {
				os.Remove(filepath.Join(folder, "journal", "test-nonroot-linux-arm64.json"))
			}
		}, code: cli.ExitFailed, says: "step test nonroot linux/arm64 has not been carried out"},
		refuse("verify", s.one, func(q registrytest.Request) bool { return strings.Contains(q.Path, "/blobs/") }),
		{step: "verify", name: "killed", kill: contains("two", "/blobs/"), code: -1},
		{step: "sign", name: "no timestamp", begin: func() { s.sigstore.Break("/api/v1/timestamp", 1000, "no") },
			end: func() { s.sigstore.Break("/api/v1/timestamp", 0, "") }, code: cli.ExitFailed, says: "sign: "},
		{step: "sign", name: "killed", kill: nth(4, func(from, request string) bool { return strings.HasPrefix(request, "PUT ") }), code: -1},
		refuse("tag", s.two, isWrite),
		{step: "tag", name: "killed", kill: nth(16, tag), code: -1, tags: true},
		{step: "record", name: "lock changed", begin: func() {
			l := s.lockOn(lock.File)
			l.Outputs = nil
			content, err := l.Bytes()
			if err == nil {
				err = s.github.Push(map[string]string{lock.File: string(content)})
			}
			if err != nil {
				s.Fatal(err)
			}
		}, code: cli.ExitFailed, says: "somebody else changed it", tags: true},
		{step: "record", name: "GitHub refuses", begin: refuseGitHub, code: cli.ExitFailed, says: "403 Forbidden", tags: true},
		{step: "record", name: "killed", kill: contains("github", "/assets"), code: -1, tags: true}, // the lock is committed, and the release is a draft
	}
}

// otherIndex makes a lock record another index.
func (s *stage) otherIndex(file string) {
	l, err := lock.Read(file)
	if err != nil {
		s.Fatal(err)
	}
	l.Output().Index = "sha256:" + strings.Repeat("0", 64)
	if err := l.Write(file); err != nil {
		s.Fatal(err)
	}
}

// TestRehearsal carries out releases as publish.yml does, step by step on machines of
// their own, against a module proxy, git repositories, registries, a GitHub and a
// Sigstore on loopback: from nothing published, through a new release, to nothing new.
// Then each step fails in its own way and is killed. Each week, each of them happens to a
// release of its own; otherwise a release meets several, one run after the other: a run
// that gets as far as the next fault has got over the one before.
func TestRehearsal(t *testing.T) {
	need.Minutes(t, "a year of releases")
	s := newStage(t)
	s.next("v1.104.0")
	s.next("v1.105.0-pre")
	began := time.Now()
	s.releases(workflowRun{channel: lock.Stable})
	t.Logf("from nothing published: %v", time.Since(began).Round(time.Second))
	s.isReleased("v1.104.0")
	s.releases(workflowRun{channel: lock.Unstable})
	u := s.lockOn(lock.Unstable.File())
	if u.Inputs.Tailscale.Version != "v1.105.0-pre" || len(u.Inputs.Platforms) != 3 || s.tags()["derper:unstable"] != u.Output().Index {
		t.Errorf("unstable: %+v", u.Inputs)
	}
	began = time.Now()
	s.isQuiet(lock.Stable)
	s.isQuiet(lock.Unstable)
	t.Logf("nothing new: %v", time.Since(began).Round(10*time.Millisecond))
	if t.Failed() {
		return
	}
	s.theFork()
	s.theWeekAfter()

	var table strings.Builder
	rows := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(rows, "STEP\tFAULT\tPUBLISHED\tTHE NEXT RUN")
	for i, group := range s.groups() {
		version := fmt.Sprintf("v1.106.%d", i+1)
		s.next(version)
		faults := s.faults(version)
		var failures []failure
		for _, n := range group {
			began := time.Now()
			failures = append(failures, s.failAt(faults[n]))
			t.Logf("%s: %s: %v", faults[n].step, faults[n].name, time.Since(began).Round(time.Second))
			if t.Failed() {
				t.FailNow()
			}
		}
		began := time.Now()
		// Machines with a cache are faster, and the first release had none.
		s.releases(workflowRun{channel: lock.Stable, home: s.home})
		s.isReleased(version)
		t.Logf("%s released: %v", version, time.Since(began).Round(time.Second))
		if t.Failed() {
			t.FailNow()
		}
		for n, f := range failures {
			next := "released " + version
			if n+1 < len(failures) {
				next = "got further"
			}
			fmt.Fprintf(rows, "%s\t%s\t%s\t%s\n", f.step, f.name, s.published(f), next)
		}
	}
	rows.Flush()
	t.Logf("\n%s", &table)
	s.isQuiet(lock.Stable)
	s.again()
	s.withdraw()
}

// groups are the faults that happen to one release after the other, by their places in
// faults.
func (s *stage) groups() (groups [][]int) {
	var step string
	for i, f := range s.faults("") {
		leaves := slices.Contains([]string{"push", "sign", "tag", "record"}, f.step)
		switch {
		case need.HasAWeek(s.T):
			groups = append(groups, []int{i})
			continue
		case f.kill != nil && !leaves:
			continue // it is as if the step had not begun
		case step == "" || f.step == "push" && step != "push" || f.step == "tag" && step != "tag":
			groups = append(groups, nil)
		}
		step = f.step
		groups[len(groups)-1] = append(groups[len(groups)-1], i)
	}
	return groups
}

// A failure is a fault that happened, and the tags before it and after.
type failure struct {
	fault
	before, after map[string]string
}

// moved says whether a tag names another image than before.
func (f failure) moved() bool {
	for tag, digest := range f.after {
		if f.before[tag] != "" && f.before[tag] != digest {
			return true
		}
	}
	return false
}

// failAt has a fault in a run, and checks what that published.
func (s *stage) failAt(f fault) failure {
	s.Helper()
	happened, commits := failure{fault: f, before: s.tags()}, len(s.github.Commits())
	w := workflowRun{channel: lock.Stable, step: f.step, env: f.env, home: s.home}
	if f.step == "build" {
		w.home = "" // else it would find everything in its cache
	}
	w.artifact = func(step, folder string) {
		if f.artifact != nil {
			f.artifact(step, folder)
		}
		if step != f.step {
			return
		}
		if f.begin != nil {
			f.begin()
		}
		s.setTrigger(f.kill)
	}
	jobs := s.workflow(w)
	s.setTrigger(nil)
	if f.end != nil {
		f.end()
	}
	last := jobs[len(jobs)-1]
	if last.step != f.step || last.code != f.code || !strings.Contains(last.stderr, f.says) {
		s.Errorf("%s, %s: stopped at %s with exit code %d, not %d, and says:\n%s", f.step, f.name, last.step, last.code, f.code, last.stderr)
	}
	happened.after = s.tags()
	if happened.moved() && !f.tags {
		s.Errorf("%s, %s: a tag has moved:\n%v\n%v", f.step, f.name, happened.before, happened.after)
	}
	if len(happened.after) > len(happened.before) && f.step != "tag" && !f.tags {
		s.Errorf("%s, %s: a tag is new:\n%v\n%v", f.step, f.name, happened.before, happened.after)
	}
	if len(s.github.Commits()) > commits && f.step != "record" {
		s.Errorf("%s, %s: something was committed", f.step, f.name)
	}
	return happened
}

// published says what a failed run had published of the release that main has now.
func (s *stage) published(f failure) string {
	s.Helper()
	index := s.lockOn(lock.File).Output().Index
	switch {
	case f.after["derper:latest"] == index:
		return "all of it, and tags"
	case slices.Contains(slices.Collect(maps.Values(f.after)), index):
		return "all of it, and tags of the version"
	case slices.Index(stepNames(), f.step) > slices.Index(stepNames(), "push"):
		return "all of it, and no tag"
	case f.step == "push" && f.artifact == nil:
		return "a part of it, and no tag"
	default:
		return "nothing"
	}
}

// theWeekAfter checks that what becomes known of a published image is attached to it, once, and
// moves nothing else.
func (s *stage) theWeekAfter() {
	s.Helper()
	l, tags := s.lockOn(lock.File), s.tags()
	findings := `[{"id":"GO-1","module":"example.com/dep","version":"v1.0.0","level":2}]`
	for _, again := range []bool{false, true} {
		dir := s.newHome()
		write(s.T, filepath.Join(dir, lock.File), s.github.File(lock.File))
		s.mu.Lock()
		s.writes = 0
		s.mu.Unlock()
		for _, args := range [][]string{
			{"release", "--step", "update"}, {"release", "--step", "scan"},
			{"release", "--step", "vex", "--keyless", "--to", strings.Join(s.repositories(), ","), "--digests", release.Digests(l.Indexes()).String()},
		} {
			env := s.env(dir, testScans+"="+findings, "ACTIONS_ID_TOKEN_REQUEST_URL="+s.sigstore.TokenURL, "ACTIONS_ID_TOKEN_REQUEST_TOKEN="+s.sigstore.Bearer)
			if code, said := s.start(dir, env, args...); code != cli.ExitOK {
				s.Fatalf("%q: exit code %d\n%s", args, code, said)
			}
		}
		if wrote := s.writes > 0; wrote == again {
			s.Errorf("again %v: %d requests that write", again, s.writes)
		}
	}
	if !maps.Equal(s.tags(), tags) {
		s.Errorf("tags have moved: %v, %v", tags, s.tags())
	}
	for _, index := range l.Indexes() {
		for _, r := range s.repositories() {
			s.isSigned(r + "@" + index)
			if got := s.documents(r + "@" + index); got != "GO-1 affected" {
				s.Errorf("%s@%s: %q is attached", r, index, got)
			}
		}
	}
}

// documents are the statements of the OpenVEX documents that are attached to an image.
func (s *stage) documents(ref string) (text string) {
	s.Helper()
	repository, err := (&registry.Client{}).Open(s.Context(), ref, registry.Pull)
	if err != nil {
		s.Fatal(err)
	}
	top, err := repository.Resolve(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	bundles, err := sign.Bundles(s.Context(), repository, top.Digest)
	if err != nil {
		s.Fatal(err)
	}
	var list []string
	for _, b := range bundles {
		var bundle struct {
			Envelope struct{ Payload []byte } `json:"dsseEnvelope"`
		}
		var statement struct {
			Type      string `json:"predicateType"`
			Predicate struct {
				Statements []struct {
					Vulnerability struct{ Name string }
					Status        string
				}
			}
		}
		err := json.Unmarshal(b, &bundle)
		if err == nil {
			err = json.Unmarshal(bundle.Envelope.Payload, &statement)
		}
		if err != nil {
			s.Fatal(err)
		}
		if statement.Type != attest.VEX {
			continue
		}
		for _, v := range statement.Predicate.Statements {
			list = append(list, v.Vulnerability.Name+" "+v.Status)
		}
	}
	return strings.Join(list, ", ")
}

// theFork checks that somebody else's registries and GitHub get what the lock has,
// though there is no new release.
func (s *stage) theFork() {
	s.Helper()
	before := s.lockOn(lock.File)
	own := registrytest.NewProxy(s.T, registrytest.Memory(s.T, registrytest.Options{}))
	s.github.DeleteReleases()
	s.releases(workflowRun{channel: lock.Stable, repositories: []string{own.Repository("fork")}, home: s.home})
	repository, err := name.NewRepository(own.Repository("fork"))
	if err != nil {
		s.Fatal(err)
	}
	d, err := remote.Head(repository.Tag("latest"))
	if err != nil || d.Digest.String() != before.Output().Index {
		s.Errorf("the fork's latest is %v, %v, not %s", d, err, before.Output().Index)
	}
	if l := s.lockOn(lock.File); l.Output().Index != before.Output().Index {
		s.Errorf("the lock has another index: %s", l.Output().Index)
	}
}

// again checks that a run by hand goes through everything and changes nothing.
func (s *stage) again() {
	s.Helper()
	tags, commits, releases := s.tags(), s.github.Commits(), s.github.Releases()
	s.releases(workflowRun{channel: lock.Stable, again: true, home: s.home})
	if !maps.Equal(s.tags(), tags) || len(s.github.Commits()) != len(commits) || len(s.github.Releases()) != len(releases) || s.writes > 0 {
		s.Errorf("something was published anew: %d requests", s.writes)
	}
}

// withdraw checks that a release that is withdrawn loses the tags that move, everywhere,
// and stays withdrawn until there is a newer one.
func (s *stage) withdraw() {
	s.Helper()
	l := s.lockOn(lock.File)
	bad := l.Inputs.Tailscale.Version
	tags := s.tags()
	good := fmt.Sprintf("derper:1.106.%d", len(s.groups())-1)
	older := "v1.106.1"
	// The second time it is all done; and what names another release stays there.
	for _, version := range []string{bad, bad, older} {
		checkout := s.TempDir()
		write(s.T, filepath.Join(checkout, lock.File), s.github.File(lock.File))
		if code, said := s.start(checkout, s.env(s.TempDir(), "GITHUB_TOKEN="+githubtest.Token), "release", "--withdraw", version, "--github",
			"--to", strings.Join(s.repositories(), ",")); code != cli.ExitOK {
			s.Fatalf("withdraw: exit code %d\n%s", code, said)
		}
	}
	for tag, digest := range s.tags() {
		want := tags[tag]
		_, name, _ := strings.Cut(tag, ":")
		for _, v := range l.Inputs.Variants {
			if name == "latest"+v.Suffix || name == "1.106"+v.Suffix || name == strings.TrimPrefix(v.Suffix, "-") {
				want = tags[good+v.Suffix]
			}
		}
		if digest != want {
			s.Errorf("withdrawn: %s is %s, not %s", tag, digest, want)
		}
	}
	if r := s.github.Releases(); !strings.HasPrefix(r[len(r)-1].Body, "**Withdrawn.**") {
		s.Errorf("GitHub's release: %+v", r[len(r)-1])
	}
	s.isQuiet(lock.Stable)
	s.github.DeleteReleases() // even if it was never recorded
	s.isQuiet(lock.Stable)
	if jobs := s.workflow(workflowRun{channel: lock.Stable, again: true}); len(jobs) != 1 || failed(jobs) {
		s.Errorf("withdrawn, and released again: %+v", jobs)
	}
	s.next("v1.106.100")
	s.releases(workflowRun{channel: lock.Stable, home: s.home})
	s.isReleased("v1.106.100")
	if w := s.lockOn(lock.File).Withdrawn; !slices.Equal(w, []string{older, bad}) {
		s.Errorf("the lock forgot what was withdrawn: %q", w)
	}
}

// local runs build release as a whole, in one folder, and signs with a key.
func (s *stage) local(dir, key string, more ...string) (code int, said string) {
	s.Helper()
	return s.start(dir, s.env(dir), append([]string{"release", "--update", "--key", key, "--to", strings.Join(s.repositories(), ",")}, more...)...)
}

// newLocal makes a folder for local, with a lock that has been released nowhere.
func (s *stage) newLocal() (dir, key string) {
	s.Helper()
	dir = s.newHome()
	write(s.T, filepath.Join(dir, lock.File), s.github.File(lock.File))
	return dir, newKeyFile(s.T)
}

// TestResume kills a release on one machine in each of its steps. The next run goes on
// where that stopped, and leaves a release with its notes.
func TestResume(t *testing.T) {
	need.Minutes(t, "a release stopped at each step")
	s := newStage(t)
	s.cut = true // tags move side by side: all of them may be on their way
	dir, key := s.newLocal()
	put := 0
	for i, test := range []struct {
		step string
		kill func(from, request string) bool
		done []string // that the next run does not do again
	}{
		{"push", func(_, request string) bool {
			return strings.HasPrefix(request, "PATCH ") || strings.HasPrefix(request, "PUT ")
		}, []string{"test"}},
		{"verify", func(_, request string) bool {
			return s.stepDone(dir, "push") && strings.Contains(request, "/blobs/")
		}, []string{"test"}},
		{"sign", func(_, request string) bool {
			return strings.HasPrefix(request, "PUT ") && s.stepDone(dir, "verify-debug") // the last variant
		}, []string{"test", "verify"}},
		{"tag", func(_, request string) bool {
			if strings.HasPrefix(request, "PUT ") && s.stepDone(dir, "sign") {
				put++
			}
			return put == 3
		}, []string{"test", "verify"}},
		{"record", func(_, request string) bool { return s.stepDone(dir, "tag") }, nil},
	} {
		version := fmt.Sprintf("v1.106.%d", i+1)
		s.next(version)
		os.RemoveAll(filepath.Join(dir, "release", "journal"))
		s.setTrigger(test.kill)
		code, said := s.local(dir, key)
		s.setTrigger(nil)
		if code != -1 {
			t.Fatalf("%s: was not killed: exit code %d\n%s", test.step, code, said)
		}
		if l, err := lock.Read(filepath.Join(dir, lock.File)); err != nil || l.Inputs.Tailscale.Version == version {
			t.Errorf("%s: the lock records a release that is not complete: %v", test.step, err)
		}
		code, said = s.local(dir, key)
		if code != cli.ExitOK {
			t.Fatalf("%s: the next run: exit code %d\n%s", test.step, code, said)
		}
		for _, step := range test.done {
			if !strings.Contains(said, "release: "+step+": was done before") {
				t.Errorf("%s: the next run did %s again:\n%s", test.step, step, said)
			}
		}
		l, err := lock.Read(filepath.Join(dir, lock.File))
		if err != nil || l.Inputs.Tailscale.Version != version || l.Outputs == nil {
			t.Fatalf("%s: the lock does not record %s: %v", test.step, version, err)
		}
		notes, err := os.ReadFile(filepath.Join(dir, "release/notes.md"))
		if err != nil || !strings.Contains(string(notes), l.Output().Index) || i > 0 && !strings.Contains(string(notes), fmt.Sprintf("v1.106.%d...v1.106.%d", i, i+1)) {
			t.Errorf("%s: %v, the notes:\n%s", test.step, err, notes)
		}
		if got := s.tags()["derper:latest"]; got != l.Output().Index {
			t.Errorf("%s: latest is %s", test.step, got)
		}
		if code, said := s.local(dir, key); code != cli.ExitOK || !strings.Contains(said, "nothing to do: ") {
			t.Errorf("%s: once more: exit code %d\n%s", test.step, code, said)
		}
	}
}

func (s *stage) stepDone(dir, step string) bool {
	_, err := os.Stat(filepath.Join(dir, "release", "journal", step+".json"))
	return err == nil
}

func (s *stage) setTrigger(f func(from, request string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trigger = f
}

// TestUnsigned guards that tags which somebody has set do not pass for a release: what
// they name is signed first.
func TestUnsigned(t *testing.T) {
	need.Minutes(t, "a release through all steps")
	s := newStage(t)
	s.next("v1.104.0")
	dir, key := s.newLocal()
	if code, said := s.start(dir, s.env(dir), "release", "--update", "--unsigned", "--to", strings.Join(s.repositories(), ",")); code != cli.ExitOK {
		t.Fatalf("exit code %d\n%s", code, said)
	}
	code, said := s.local(dir, key)
	if code != cli.ExitOK || strings.Contains(said, "nothing to do") || !strings.Contains(said, "is not signed by key") {
		t.Errorf("unsigned: exit code %d\n%s", code, said)
	}
	if code, said := s.local(dir, key); code != cli.ExitOK || !strings.Contains(said, "nothing to do") {
		t.Errorf("signed: exit code %d\n%s", code, said)
	}
	// Another key has not signed it.
	if code, said := s.local(dir, newKeyFile(t)); code != cli.ExitOK || strings.Contains(said, "nothing to do") {
		t.Errorf("signed by another: exit code %d\n%s", code, said)
	}
}

// TestSignalWhileTagsMove sends SIGTERM while tags move: they all do, before the
// program exits. A second signal ends it immediately.
func TestSignalWhileTagsMove(t *testing.T) {
	need.Minutes(t, "several releases")
	s := newStage(t)
	dir, key := s.newLocal()
	for i, second := range []bool{false, true} {
		s.next(fmt.Sprintf("v1.106.%d", i+1))
		moving, goOn := make(chan struct{}), make(chan struct{})
		var once sync.Once
		s.two.Hook(func(q registrytest.Request) {
			if q.Method == http.MethodPut && strings.HasSuffix(q.Path, "/manifests/latest") {
				once.Do(func() { close(moving) })
				<-goOn
			}
		})
		type end struct {
			code int
			said string
		}
		ended := make(chan end, 1)
		go func() {
			code, said := s.local(dir, key)
			ended <- end{code, said}
		}()
		select {
		case <-moving:
		case e := <-ended:
			t.Fatalf("exit code %d\n%s", e.code, e.said)
		}
		before := s.tags()["derper:latest"]
		s.signal(syscall.SIGTERM)
		select {
		case e := <-ended:
			t.Fatalf("it exited while tags moved: exit code %d\n%s", e.code, e.said)
		case <-time.After(4 * time.Second): // it used to take two
		}
		if second {
			s.signal(syscall.SIGTERM)
			if e := <-ended; e.code != -1 {
				t.Errorf("a second signal: exit code %d\n%s", e.code, e.said)
			}
			close(goOn)
			continue
		}
		close(goOn)
		if e := <-ended; e.code != cli.ExitInterrupted {
			t.Errorf("exit code %d\n%s", e.code, e.said)
		}
		tags := s.tags()
		if tags["me/derper:latest"] != tags["derper:latest"] || tags["me/derper:latest"] == before && before != tags["derper:latest"] {
			t.Errorf("tags are half way: %v", tags)
		}
	}
}

func (s *stage) signal(sig os.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil {
		s.running.Signal(sig)
	}
}
