package releasetest

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/module"
	modzip "golang.org/x/mod/zip"

	"github.com/xavieralpha/derper/internal/lock"
)

// repositoryPath is where the server has the git repository.
const repositoryPath = "/upstream.git"

// A Repository is upstream's git repository to a [Release]: a real one, which the
// release's server hands out over HTTP with git's own program.
type Repository struct {
	*Release
	// URL is the repository's, Dir its folder.
	URL, Dir string

	commits int
}

// GoMod is the go.mod of the repository's first release.
const GoMod = "module tailscale.com\n\ngo 1.26.6\n"

// NewRepository makes the repository and publishes the lock's release from it.
func NewRepository(t testing.TB, r *Release) *Repository {
	t.Helper()
	root := t.TempDir()
	u := &Repository{Release: r, URL: r.Proxy + repositoryPath, Dir: filepath.Join(root, repositoryPath)}
	u.Git(t, "init", "--quiet", u.Dir)
	execPath := u.Git(t, "--exec-path")
	r.mu.Lock()
	// The repository is not bare: a module's zip is made of one that is not.
	r.git = &cgi.Handler{
		Path:   filepath.Join(execPath, "git-http-backend"),
		Stderr: io.Discard, // what does not work, git says to its caller too
		Env:    []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull},
	}
	r.mu.Unlock()
	u.Commit(t, map[string]string{
		"go.mod":               GoMod,
		"LICENSE":              "tailscale's licence\n",
		".gitattributes":       "go.mod filter=go-mod\n*.go diff=golang\nleft-out export-ignore\n",
		"left-out":             "not in the archive\n",
		"cmd/derper/derper.go": DerperSource(`flag.String("a", ":443", "address")`, `flag.Bool("dev", false, "development")`, `flag.Duration("tcp-user-timeout", 15*time.Second, "timeout")`),
	})
	version := r.Inputs.Tailscale.Version
	r.Inputs.Tailscale.Commit, r.Inputs.Tailscale.Time = u.Publish(t, version)
	r.Inputs.Tailscale.Sum = r.sums[module.Version{Path: lock.TailscaleModule, Version: version}]
	return u
}

// DerperSource is the source of a derper with flags, given as expressions.
func DerperSource(flags ...string) string {
	return "package main\n\nimport (\n\t\"flag\"\n\t\"time\"\n)\n\nvar (\n\t_ = time.Second\n\t_ = " + strings.Join(flags, "\n\t_ = ") + "\n)\n\nfunc main() { flag.Parse() }\n"
}

// Git runs git in the repository and returns what it prints.
func (u *Repository) Git(t testing.TB, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	if _, err := os.Stat(u.Dir); err == nil {
		cmd.Dir = u.Dir
	}
	date := u.now().Format(time.RFC3339)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull,
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_AUTHOR_DATE=" + date,
		"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com", "GIT_COMMITTER_DATE=" + date,
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, &stderr)
	}
	return strings.TrimSpace(string(out))
}

// now is the time of the newest commit: an hour after the one before.
func (u *Repository) now() time.Time {
	return time.Date(2026, 9, 1, u.commits, 0, 0, 0, time.UTC)
}

// Commit commits files over those that are there.
func (u *Repository) Commit(t testing.TB, files map[string]string) {
	t.Helper()
	for name, content := range files {
		name = filepath.Join(u.Dir, name)
		err := os.MkdirAll(filepath.Dir(name), 0o755)
		if err == nil {
			err = os.WriteFile(name, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	u.commits++
	u.Git(t, "add", "--all", "--force", ".")
	u.Git(t, "commit", "--quiet", "--allow-empty", "--message=change")
}

// Tag puts a tag on the newest commit, or moves it there.
func (u *Repository) Tag(t testing.TB, version string) {
	t.Helper()
	u.Git(t, "tag", "--force", version)
}

// TagAnnotated is Tag with an annotated one, which is an object of its own.
func (u *Repository) TagAnnotated(t testing.TB, version string) {
	t.Helper()
	u.Git(t, "tag", "--force", "--annotate", "--message=release "+version, version)
}

// Publish tags the newest commit and puts it into the module proxy and the checksum
// database.
func (u *Repository) Publish(t testing.TB, version string) (commit string, at time.Time) {
	t.Helper()
	u.Tag(t, version)
	return u.PublishModule(t, version)
}

// PublishModule is Publish without a tag.
func (u *Repository) PublishModule(t testing.TB, version string) (commit string, at time.Time) {
	t.Helper()
	commit = u.Git(t, "rev-parse", "HEAD")
	m := module.Version{Path: lock.TailscaleModule, Version: version}
	var b bytes.Buffer
	if err := modzip.CreateFromVCS(&b, m, u.Dir, commit, ""); err != nil {
		t.Fatal(err)
	}
	goMod, err := os.ReadFile(filepath.Join(u.Dir, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	sum := hashZip(t, b.Bytes())
	u.mu.Lock()
	u.zips[m], u.mods[m], u.sums[m] = b.Bytes(), goMod, sum
	u.mu.Unlock()
	u.SetInfo(version, u.now(), "")
	return commit, u.now()
}

// SetInfo changes what the module proxy tells about a version: its time, and as its
// origin a commit, unless that is empty.
func (u *Repository) SetInfo(version string, at time.Time, commit string) {
	info := fmt.Appendf(nil, `{"Version":%q,"Time":%q}`, version, at.Format(time.RFC3339))
	if commit != "" {
		info = fmt.Appendf(nil, `{"Version":%q,"Time":%q,"Origin":{"VCS":"git","Hash":%q}}`, version, at.Format(time.RFC3339), commit)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.infos[module.Version{Path: lock.TailscaleModule, Version: version}] = info
}

// AddToolchain makes the module proxy have a Go, by name only, for some hosts.
func (r *Release) AddToolchain(version string, hosts ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, host := range hosts {
		r.sums[lock.Go{Version: version}.Module(host)] = "h1:" + base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%-32.32s", version+host))
	}
}
