package releasetest

import (
	"archive/zip"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"golang.org/x/mod/module"
	modzip "golang.org/x/mod/zip"

	"github.com/xavieralpha/derper"
	"github.com/xavieralpha/derper/internal/lock"
)

// A Project is a git repository with this project's source. The release's module proxy has
// every commit of it, and answers for its tags and branches as proxy.golang.org does.
type Project struct {
	Dir string
	Git *git.Repository
	// Origin is set when the proxy says from which reference it has a version.
	Origin bool

	release *Release
	needs   map[string]bool // modules of go.sum, as the protocol names their versions
	modules fs.FS           // what is on this machine of them
	commits int
}

// NewProject makes the repository, with one commit of the source in root. Its program asks the
// release's checksum database: the real one knows nothing of the release. The release gets other
// versions: the program itself needs the real modules of those that it has.
func NewProject(t testing.TB, r *Release, root string) *Project {
	t.Helper()
	r.Inputs.Tailscale.Version = "v1.998.0"
	r.Inputs.Tailscale.Sum = r.rename(t, lock.TailscaleModule, r.Inputs.Tailscale.Version)
	r.Inputs.Roots.Version = "v0.0.0-20260101000000-0123456789ab"
	r.Inputs.Roots.Sum = r.rename(t, lock.RootsModule, r.Inputs.Roots.Version)
	p := &Project{Dir: filepath.Join(t.TempDir(), "project"), release: r, needs: map[string]bool{}}
	m := module.Version{Path: derper.Module, Version: "v0.0.0"}
	archive := filepath.Join(t.TempDir(), "source.zip")
	var b bytes.Buffer
	err := modzip.CreateFromDir(&b, m, root)
	if err == nil {
		err = os.WriteFile(archive, b.Bytes(), 0o644)
	}
	if err == nil {
		err = modzip.Unzip(p.Dir, m, archive)
	}
	if err == nil {
		err = filepath.WalkDir(p.Dir, func(name string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				err = os.Chmod(name, 0o644) // a module is read-only
			}
			return err
		})
	}
	if err == nil {
		err = os.RemoveAll(filepath.Join(p.Dir, ".git")) // the file of a worktree
	}
	if err == nil {
		p.Git, err = git.PlainInit(p.Dir, false)
	}
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("go", "env", "GOMODCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	p.modules = os.DirFS(filepath.Join(strings.TrimSpace(string(out)), "cache", "download"))
	for line := range strings.Lines(string(derper.GoSum)) {
		f := strings.Fields(line)
		path, perr := module.EscapePath(f[0])
		v, verr := module.EscapeVersion(strings.TrimSuffix(f[1], "/go.mod"))
		if err := cmp.Or(perr, verr); err != nil {
			t.Fatal(err)
		}
		p.needs[path+"/@v/"+v] = true
	}
	p.Edit(t, "cmd/build/env.go", "return env{", fmt.Sprintf("return env{sumDB: %q, ", r.SumDB))
	p.Commit(t, "source")
	r.mu.Lock()
	r.project = p
	r.mu.Unlock()
	return p
}

// Edit replaces a text in a file.
func (p *Project) Edit(t testing.TB, name, old, text string) {
	t.Helper()
	name = filepath.Join(p.Dir, name)
	data, err := os.ReadFile(name)
	if err == nil && !bytes.Contains(data, []byte(old)) {
		err = fmt.Errorf("%s has no %q", name, old)
	}
	if err == nil {
		err = os.WriteFile(name, bytes.Replace(data, []byte(old), []byte(text), 1), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Commit commits the folder as it is.
func (p *Project) Commit(t testing.TB, message string) {
	t.Helper()
	p.commits++
	at := time.Date(2026, 10, 1, p.commits, 0, 0, 0, time.UTC)
	w, err := p.Git.Worktree()
	if err == nil {
		err = w.AddWithOptions(&git.AddOptions{All: true})
	}
	if err == nil {
		_, err = w.Commit(message, &git.CommitOptions{Author: &object.Signature{Name: "a", Email: "a@example.com", When: at}, AllowEmptyCommits: true})
	}
	if err != nil {
		t.Fatal(err)
	}
	p.publish(t)
}

// Tag puts a tag on the newest commit, or moves it there.
func (p *Project) Tag(t testing.TB, name string) {
	t.Helper()
	p.refer(t, plumbing.NewTagReferenceName(name))
}

// Branch is Tag of a branch.
func (p *Project) Branch(t testing.TB, name string) {
	t.Helper()
	p.refer(t, plumbing.NewBranchReferenceName(name))
}

func (p *Project) refer(t testing.TB, name plumbing.ReferenceName) {
	t.Helper()
	head, err := p.Git.Head()
	if err == nil {
		err = p.Git.Storer.SetReference(plumbing.NewHashReference(name, head.Hash()))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Untag removes a tag.
func (p *Project) Untag(t testing.TB, name string) {
	t.Helper()
	if err := p.Git.DeleteTag(name); err != nil {
		t.Fatal(err)
	}
}

// serve answers for a name of a version, or for a module that the source needs.
func (p *Project) serve(w http.ResponseWriter, req *http.Request) {
	name, ours := strings.CutPrefix(req.URL.Path, "/"+derper.Module+"/@v/")
	if !ours {
		if file := strings.TrimPrefix(req.URL.Path, "/"); !p.needs[strings.TrimSuffix(file, filepath.Ext(file))] {
			http.NotFound(w, req)
			return
		}
		if _, err := fs.Stat(p.modules, strings.TrimPrefix(req.URL.Path, "/")); err == nil {
			http.ServeFileFS(w, req, p.modules, strings.TrimPrefix(req.URL.Path, "/"))
			return
		}
		p.release.real.ServeHTTP(w, req)
		return
	}
	name, isInfo := strings.CutSuffix(name, ".info")
	commit, ref, err := p.commit(name)
	if err != nil || !isInfo {
		http.Error(w, fmt.Sprintf("not found: unknown revision %s: %v", name, err), http.StatusNotFound)
		return
	}
	info := map[string]any{"Version": version(commit).Version, "Time": commit.Author.When}
	if p.Origin {
		info["Origin"] = map[string]string{"VCS": "git", "URL": "https://" + derper.Module, "Ref": ref, "Hash": commit.Hash.String()}
	}
	_ = json.NewEncoder(w).Encode(info) // whoever asked has gone
}

// commit is the commit that a name means, and the reference of that name.
func (p *Project) commit(name string) (*object.Commit, string, error) {
	for _, ref := range []plumbing.ReferenceName{plumbing.NewTagReferenceName(name), plumbing.NewBranchReferenceName(name)} {
		if r, err := p.Git.Reference(ref, true); err == nil {
			c, err := p.Git.CommitObject(r.Hash())
			return c, ref.String(), err
		}
	}
	return nil, "", plumbing.ErrReferenceNotFound
}

// version is the version of a commit.
func version(c *object.Commit) module.Version {
	return module.Version{Path: derper.Module, Version: module.PseudoVersion("v0", "", c.Author.When, c.Hash.String()[:12])}
}

// publish puts the newest commit into the module proxy and the checksum database.
func (p *Project) publish(t testing.TB) {
	t.Helper()
	head, err := p.Git.Head()
	if err != nil {
		t.Fatal(err)
	}
	commit, err := p.Git.CommitObject(head.Hash())
	if err != nil {
		t.Fatal(err)
	}
	list, err := commit.Files()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	if err := list.ForEach(func(f *object.File) (err error) {
		files[f.Name], err = f.Contents()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	goMod := files["go.mod"]
	delete(files, "go.mod")
	p.release.Add(t, version(commit), goMod, files)
}

// rename gives the only version of a module another name, and returns its sum.
func (r *Release) rename(t testing.TB, path, name string) (sum string) {
	t.Helper()
	r.mu.Lock()
	var old module.Version
	for m := range r.zips {
		if m.Path == path {
			old = m
		}
	}
	data, goMod := r.zips[old], r.mods[old]
	delete(r.zips, old)
	delete(r.mods, old)
	delete(r.sums, old)
	r.mu.Unlock()
	archive, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, f := range archive.File {
		content, err := fs.ReadFile(archive, f.Name)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimPrefix(f.Name, old.String()+"/")] = string(content)
	}
	delete(files, "go.mod")
	m := module.Version{Path: path, Version: name}
	r.Add(t, m, string(goMod), files)
	return r.sums[m]
}
