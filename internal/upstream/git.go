package upstream

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/module"
	modzip "golang.org/x/mod/zip"
)

// gitEnviron is the environment that git runs in, built from nothing: no
// configuration of the user or the system, no credentials, no questions. Only the
// way to the network is the caller's.
func gitEnviron(home string) []string {
	env := []string{
		"HOME=" + home, // .netrc, too, would be looked for there
		"PATH=" + os.Getenv("PATH"),
		"LC_ALL=C",
		"GIT_CONFIG_NOSYSTEM=1",
		"GIT_CONFIG_GLOBAL=" + os.DevNull,
		"GIT_ATTR_NOSYSTEM=1",
		"GIT_TERMINAL_PROMPT=0",
		"GIT_ALLOW_PROTOCOL=file:http:https",
	}
	// libcurl's names for what Go takes in capitals too, and git's for the roots.
	for ours, names := range map[string][]string{
		"https_proxy":    {"HTTPS_PROXY", "https_proxy"},
		"http_proxy":     {"HTTP_PROXY", "http_proxy"},
		"no_proxy":       {"NO_PROXY", "no_proxy"},
		"GIT_SSL_CAINFO": {"SSL_CERT_FILE"},
		"GIT_SSL_CAPATH": {"SSL_CERT_DIR"},
	} {
		for _, name := range names {
			if value := os.Getenv(name); value != "" {
				env = append(env, ours+"="+value)
				break
			}
		}
	}
	return env
}

// A clone is a repository of ours with some of upstream's commits.
type clone struct{ dir string }

// clone makes an empty one, which remove removes.
func (s *Source) clone(ctx context.Context) (c *clone, remove func(), err error) {
	dir, err := os.MkdirTemp(s.Modules.Temp, "git-")
	if err != nil {
		return nil, nil, err
	}
	c = &clone{dir: dir}
	remove = func() { _ = os.RemoveAll(dir) }
	if _, err := c.git(ctx, "init", "--quiet", "--bare", "--template=", "."); err != nil {
		remove()
		return nil, nil, err
	}
	return c, remove, nil
}

// git runs a git command and returns what it prints. Its error is git's own.
func (c *clone) git(ctx context.Context, args ...string) ([]byte, error) {
	// A server that is silent for a minute is one that cannot be reached.
	args = append([]string{"-c", "http.lowSpeedLimit=1", "-c", "http.lowSpeedTime=60", "-c", "gc.auto=0"}, args...)
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = c.dir
	cmd.Env = gitEnviron(c.dir)
	cmd.WaitDelay = 5 * time.Second // for what git has started
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err == nil {
		return stdout.Bytes(), nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if lines := strings.FieldsFunc(stderr.String(), func(r rune) bool { return r == '\n' || r == '\r' }); len(lines) > 0 {
		// What git itself says comes before what its helpers do.
		i := max(0, slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, "fatal: ") }))
		err = errors.New(strings.TrimPrefix(lines[i], "fatal: "))
	}
	return nil, fmt.Errorf("git: %w", err)
}

// remote makes an error of a command that asks the repository one that says so.
func (s *Source) remote(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, exec.ErrNotFound) {
		return err
	}
	shown := s.Shown()
	return fmt.Errorf("%w: %s: %s", ErrRepository, shown, strings.ReplaceAll(err.Error(), s.Repository, shown))
}

// Shown is the repository as it may be printed: without a password in its URL.
func (s *Source) Shown() string {
	if u, err := url.Parse(s.Repository); err == nil && u.User != nil {
		return u.Redacted()
	}
	return s.Repository
}

// location is the repository as git takes it in any folder.
func (s *Source) location() string {
	if strings.Contains(s.Repository, "://") {
		return s.Repository
	}
	if dir, err := filepath.Abs(s.Repository); err == nil {
		return dir
	}
	return s.Repository
}

// tags are the tags of the repository that can be releases, with their commits. An
// annotated tag is peeled: the object that it names counts.
// Source: git-ls-remote(1); ^{} as in gitrevisions(7).
func (s *Source) tags(ctx context.Context, patterns ...string) (map[string]string, error) {
	c, remove, err := s.clone(ctx)
	if err != nil {
		return nil, err
	}
	defer remove()
	out, err := c.git(ctx, append([]string{"ls-remote", "--tags", "--", s.location()}, patterns...)...)
	if err != nil {
		return nil, s.remote(ctx, err)
	}
	tags := map[string]string{}
	for _, line := range strings.Split(string(out), "\n") {
		hash, ref, _ := strings.Cut(line, "\t")
		name, peeled := strings.CutSuffix(strings.TrimPrefix(ref, "refs/tags/"), "^{}")
		if _, have := tags[name]; isRelease(name) && (peeled || !have) {
			tags[name] = hash
		}
	}
	return tags, nil
}

// fetch gets the commits of tags, without those below them.
func (c *clone) fetch(ctx context.Context, s *Source, versions ...string) error {
	args := []string{"fetch", "--quiet", "--depth=1", "--no-tags", "--no-write-fetch-head", "--", s.location()}
	for _, v := range versions {
		args = append(args, "+refs/tags/"+v+":refs/tags/"+v)
	}
	if _, err := c.git(ctx, args...); err != nil {
		return s.remote(ctx, err)
	}
	return nil
}

// commit is the commit that a fetched tag names, and its time.
func (c *clone) commit(ctx context.Context, version string) (hash string, t time.Time, err error) {
	out, err := c.git(ctx, "show", "--no-patch", "--no-show-signature", "--format=%H %ct", "refs/tags/"+version+"^{commit}", "--")
	if err != nil {
		return "", time.Time{}, err
	}
	hash, seconds, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	unix, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("git: commit time of %s: %w", version, err)
	}
	return hash, time.Unix(unix, 0).UTC(), nil
}

// archive is what a commit has, or some paths of it, as git hands it out.
func (c *clone) archive(ctx context.Context, commit string, paths ...string) ([]modzip.File, error) {
	out, err := c.git(ctx, append([]string{"-c", "core.autocrlf=input", "-c", "core.eol=lf",
		"archive", "--format=zip", "-0", commit, "--"}, paths...)...)
	if err != nil {
		return nil, err
	}
	r, err := zip.NewReader(bytes.NewReader(out), int64(len(out)))
	if err != nil {
		return nil, fmt.Errorf("git: archive of %s: %w", commit, err)
	}
	var files []modzip.File
	for _, f := range r.File {
		if !strings.HasSuffix(f.Name, "/") {
			files = append(files, archived{f})
		}
	}
	return files, nil
}

// moduleZip writes the zip that a module proxy makes of a commit. It is
// [modzip.CreateFromVCS], which runs git in the environment of this process, where
// GIT_DIR or a filter of the user's would change what comes.
func (c *clone) moduleZip(ctx context.Context, w io.Writer, m module.Version, commit string) error {
	files, err := c.archive(ctx, commit)
	if err != nil {
		return err
	}
	return modzip.Create(w, m, files)
}

// archived is a file of an archive.
type archived struct{ f *zip.File }

func (a archived) Path() string                 { return a.f.Name }
func (a archived) Lstat() (fs.FileInfo, error)  { return a.f.FileInfo(), nil }
func (a archived) Open() (io.ReadCloser, error) { return a.f.Open() }
