package upstream

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"golang.org/x/mod/sumdb/dirhash"
	modzip "golang.org/x/mod/zip"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
	"github.com/xavieralpha/derper/internal/testing/need"
)

// Annotated tags are objects of their own; the commit is what counts.
func TestTags(t *testing.T) {
	w := newWorld(t)
	for version, tag := range map[string]func(){
		"v1.104.0": func() { w.Tag(t, "v1.104.0") },
		"v1.104.1": func() { w.TagAnnotated(t, "v1.104.1") },
		"v1.104.2": func() { // an annotated tag of an annotated tag
			w.Annotate(t, "v1.104.2", w.Annotate(t, "inner", w.Head(t)))
		},
	} {
		w.Commit(t, map[string]string{"VERSION.txt": version})
		w.PublishModule(t, version)
		tag()
		want := w.Head(t).String()
		u := w.update(Wish{Channel: lock.Stable, Version: version})
		if u.New.Tailscale.Commit != want {
			t.Errorf("%s: commit is %s, want %s", version, u.New.Tailscale.Commit, want)
		}
		if err := w.source.Prove(t.Context(), u.New.Tailscale); err != nil {
			t.Errorf("%s: %v", version, err)
		}
	}
	// A tag of something that is no commit.
	w.Commit(t, nil)
	w.PublishModule(t, "v1.104.3")
	commit, err := w.Git.CommitObject(w.Head(t))
	if err != nil {
		t.Fatal(err)
	}
	w.TagObject(t, "v1.104.3", commit.TreeHash)
	w.refused(Wish{Channel: lock.Stable}, "git: ")
}

// TestRetagged moves a release's tag after the proxy has seen it, in each of the
// ways that something can tell.
func TestRetagged(t *testing.T) {
	for _, test := range []struct {
		name    string
		move    func(w *world)
		refused func(err error) bool
		text    string
	}{
		{"to another tree", func(w *world) { w.Commit(t, map[string]string{"evil.go": "package evil\n"}) }, isSum, "git commit "},
		{"to another time", func(w *world) { w.Commit(t, nil) }, isAbout("commit time"), "sources disagree on its commit time"},
		{"and only the origin tells", func(w *world) {
			w.SetInfo("v1.104.0", w.update(Wish{Channel: lock.Stable}).New.Tailscale.Time, w.Head(t).String())
			w.Amend(t)
		}, isAbout("commit"), "module proxy says"},
		{"and only the lock tells", func(w *world) {
			w.Inputs = w.update(Wish{Channel: lock.Stable}).New
			w.Amend(t)
		}, isAbout("commit"), "lock says"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.next("v1.104.0", nil)
			test.move(w)
			w.Tag(t, "v1.104.0")
			for _, wish := range []Wish{{Channel: lock.Stable}, {Channel: lock.Stable, Version: "v1.104.0"}} {
				if err := w.refused(wish, "v1.104.0", test.text); !test.refused(err) {
					t.Errorf("%#v", err)
				}
			}
		})
	}
}

func isSum(err error) bool {
	var sum *modproxy.SumError
	return errors.As(err, &sum) && sum.WantFrom == "checksum database"
}

func isAbout(what string) func(error) bool {
	return func(err error) bool {
		var d *Disagreement
		return errors.As(err, &d) && d.What == what
	}
}

// The proxy and the checksum database agree, and have not what the tag has.
func TestZipIsNotTheTree(t *testing.T) {
	w := newWorld(t)
	w.Commit(t, map[string]string{"cmd/derper/backdoor.go": "package main\n"})
	w.PublishModule(t, "v1.104.0")
	if err := os.Remove(filepath.Join(w.Dir, "cmd/derper/backdoor.go")); err != nil {
		t.Fatal(err)
	}
	w.Amend(t)
	w.Tag(t, "v1.104.0")
	if err := w.refused(Wish{Channel: lock.Stable}, "tailscale.com@v1.104.0: sum does not match", "checksum database", w.Head(t).String()); !isSum(err) {
		t.Errorf("%#v", err)
	}
}

// TestProve changes each thing that a lock says of its release.
func TestProve(t *testing.T) {
	w := newWorld(t)
	good := w.Inputs.Tailscale
	if err := w.source.Prove(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	w.Commit(t, nil)
	for _, test := range []struct {
		change  func(l *lock.Tailscale)
		refused func(error) bool
	}{
		{func(l *lock.Tailscale) { l.Commit = w.Head(t).String() }, isAbout("commit")},
		{func(l *lock.Tailscale) { l.Time = l.Time.Add(1e9) }, isAbout("commit time")},
		{func(l *lock.Tailscale) { l.Sum = w.Inputs.Roots.Sum }, func(err error) bool {
			var sum *modproxy.SumError
			return errors.As(err, &sum) && sum.WantFrom == "lock"
		}},
	} {
		changed := good
		test.change(&changed)
		if err := w.source.Prove(t.Context(), changed); !test.refused(err) {
			t.Errorf("%+v: %#v", changed, err)
		}
	}
}

func TestInputsFromNothing(t *testing.T) {
	w := newWorld(t)
	want := w.Inputs
	w.Inputs = lock.Inputs{Platforms: lock.Known}
	in := w.update(Wish{Version: want.Tailscale.Version}).New
	want.Platforms = lock.Known
	if len(changes(in, want)) > 0 || in.Tailscale != want.Tailscale || !slices.Equal(in.Platforms, want.Platforms) || in.Roots != want.Roots {
		t.Errorf("%+v, want %+v", in, want)
	}
}

// proven is the sum of the module that a tag's commit is, without the checksum
// database's word.
func (w *world) proven(version string) (string, error) {
	w.Helper()
	r, err := w.source.open(w.Context())
	if err == nil {
		defer r.close()
		err = r.fetch(w.Context(), version)
	}
	if err != nil {
		w.Fatal(err)
	}
	commit, err := r.commit(version)
	if err != nil {
		w.Fatal(err)
	}
	return w.source.sum(r, version, commit)
}

// attributed are files that git's attributes are about.
var attributed = map[string]string{"crlf.txt": "a\r\nb\n", ".gitattributes": "go.mod filter=go-mod\n*.txt text\nid -ident\n", "id": "$Id$\n"}

// hashOf is the module hash of the zip that create writes.
func (w *world) hashOf(create func(io.Writer) error) string {
	w.Helper()
	var b bytes.Buffer
	if err := create(&b); err != nil {
		w.Fatal(err)
	}
	sum, err := dirhash.HashZip(w.write("module.zip", b.String()), dirhash.Hash1)
	if err != nil {
		w.Fatal(err)
	}
	return sum
}

// TestSameAsGit compares the module's zip with what git itself makes of the commit.
func TestSameAsGit(t *testing.T) {
	need.Program(t, "git", "git")
	w := newWorld(t)
	w.next("v1.104.0", attributed)
	want := w.hashOf(func(to io.Writer) error {
		return modzip.CreateFromVCS(to, releaseModule("v1.104.0"), w.Dir, w.Head(t).String(), "")
	})
	if got, err := w.proven("v1.104.0"); err != nil || got != want {
		t.Errorf("%s, git makes %s: %v", got, want, err)
	}
}

// TestUserGit surrounds the program with a user's git settings that would change what
// git does. The module's zip is still what zip.CreateFromDir makes of the folder.
func TestUserGit(t *testing.T) {
	w := newWorld(t)
	w.next("v1.104.0", attributed)
	commit := w.Head(t).String()
	want := w.hashOf(func(to io.Writer) error { return modzip.CreateFromDir(to, releaseModule("v1.104.0"), w.Dir) })
	home := t.TempDir()
	config := "[filter \"go-mod\"]\n\tsmudge = sed s/1.26/1.99/\n\trequired = true\n[core]\n\tautocrlf = true\n\tattributesFile = " +
		w.write("attributes", "* export-ignore\n") + "\n[url \"http://127.0.0.1:1/\"]\n\tinsteadOf = http://\n"
	if err := os.WriteFile(filepath.Join(home, ".gitconfig"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"HOME": home, "XDG_CONFIG_HOME": home, "GIT_DIR": t.TempDir(), "GIT_INDEX_FILE": "none", "GIT_OBJECT_DIRECTORY": t.TempDir(),
		"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.attributesFile", "GIT_CONFIG_VALUE_0": filepath.Join(home, ".gitconfig"),
		"GIT_TRACE": "1", "LANG": "de_DE.UTF-8", "LANGUAGE": "de",
	} {
		t.Setenv(name, value)
	}
	got, err := w.proven("v1.104.0")
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("the zip is another one: %s, zip.CreateFromDir makes %s", got, want)
	}
	if u := w.update(Wish{Channel: lock.Stable}); u.New.Tailscale.Commit != commit {
		t.Errorf("%+v", u.New.Tailscale)
	}
}

// TestTree has everything in a tree that the go command leaves out of a module, or
// that is no plain file.
func TestTree(t *testing.T) {
	w := newWorld(t)
	w.Commit(t, map[string]string{
		"nested/go.mod":           "module tailscale.com/nested\n",
		"nested/LICENSE":          "of the nested module\n",
		"nested/deep/a.go":        "package deep\n",
		"vendor/modules.txt":      "# none\n",
		"vendor/example.com/a.go": "package a\n",
		"pkg/vendor/vendor.go":    "package vendor\n",
		"pkg/vendor/x/x.go":       "package x\n",
		"a/.gitattributes":        "*.go -export-ignore !export-subst -ident eol=lf\n",
		".hg_archival.txt":        "not a module's\n",
		"empty":                   "",
		"testdata/-rf":            "a name\n",
		"run.sh":                  "#!/bin/sh\n",
	})
	if err := os.Symlink("LICENSE", filepath.Join(w.Dir, "LICENCE")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("cmd", filepath.Join(w.Dir, "folder")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(w.Dir, "run.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	w.Amend(t)
	w.Publish(t, "v1.104.0") // by zip.CreateFromDir
	u := w.update(Wish{Channel: lock.Stable})
	if u.New.Tailscale.Commit != w.Head(t).String() {
		t.Errorf("%+v", u.New.Tailscale)
	}
	// A submodule is not followed. It is not in the folder, so that a commit with it
	// has the same sum.
	commit, err := w.Git.CommitObject(w.Head(t))
	if err != nil {
		t.Fatal(err)
	}
	tree, err := commit.Tree()
	if err != nil {
		t.Fatal(err)
	}
	tree.Entries = append(tree.Entries, object.TreeEntry{Name: "zz", Mode: filemode.Submodule, Hash: commit.Hash})
	w.TagObject(t, "v1.104.1", w.commitTree(commit, tree))
	w.PublishModule(t, "v1.104.1")
	got, err := w.proven("v1.104.1")
	if err != nil {
		t.Fatal(err)
	}
	if want, err := w.source.Modules.Sum(t.Context(), releaseModule("v1.104.1")); err != nil || got != want {
		t.Errorf("with a submodule, the sum is %s, want %s: %v", got, want, err)
	}
	// Names that reach out of the tree, and modes that are none.
	licence, err := commit.File("LICENSE")
	if err != nil {
		t.Fatal(err)
	}
	w.source.Repository = w.Dir // a server would not have these objects
	missing := plumbing.NewHash(strings.Repeat("12", 20))
	for _, test := range []struct {
		name string
		mode filemode.FileMode
		hash plumbing.Hash
		want string
	}{
		{"../evil.go", filemode.Regular, licence.Hash, `malformed file path "../evil.go"`},
		{"zz\\evil.go", filemode.Regular, licence.Hash, "malformed file path"},
		{strings.Repeat("z", maxPath+1), filemode.Regular, licence.Hash, "more files, bytes or levels than a module has"},
		{"zz", filemode.Regular, missing, "zz: object not found"},
		{"zz", filemode.Dir, missing, "object not found"},
		{"zz", filemode.Dir, licence.Hash, "object not found"},
	} {
		bad := *tree
		bad.Entries = append(slices.Clone(tree.Entries[:len(tree.Entries)-1]), object.TreeEntry{Name: test.name, Mode: test.mode, Hash: test.hash})
		sort.Sort(object.TreeEntrySorter(bad.Entries))
		w.TagObject(t, "v1.104.2", w.commitTree(commit, &bad))
		sum, err := w.proven("v1.104.2")
		if err == nil {
			t.Fatalf("a tree with %q is taken: %s", test.name, sum)
		}
		w.contains(err.Error(), test.want)
	}
}

// commitTree makes a commit as another one, with a tree of its own.
func (w *world) commitTree(like *object.Commit, tree *object.Tree) plumbing.Hash {
	w.Helper()
	commit := *like
	store := func(o interface {
		Encode(plumbing.EncodedObject) error
	}) plumbing.Hash {
		e := w.Git.Storer.NewEncodedObject()
		if err := o.Encode(e); err != nil {
			w.Fatal(err)
		}
		h, err := w.Git.Storer.SetEncodedObject(e)
		if err != nil {
			w.Fatal(err)
		}
		return h
	}
	commit.TreeHash = store(tree)
	return store(&commit)
}

// A tree is refused when its attributes make git archive leave out files, or write
// something else into them.
func TestAttributes(t *testing.T) {
	w := newWorld(t)
	for name, lines := range map[string]string{
		"export-ignore":                "a export-ignore\n",
		"export-subst":                 "# a comment\n*.go\tdiff=golang   export-subst\r\n",
		"ident":                        "\"a b\" ident\n",
		"working-tree-encoding=UTF-16": "*.txt text working-tree-encoding=UTF-16\n",
		"eol=crlf":                     "[attr]dos text eol=crlf\n*.bat dos\n",
	} {
		for _, file := range []string{".gitattributes", "deep/below/.gitattributes"} {
			w.Commit(t, map[string]string{file: lines})
			w.Publish(t, "v1.104.0")
			w.refused(Wish{Channel: lock.Stable}, "v1.104.0: git commit "+w.Head(t).String(), file+": "+name+": ")
			w.Commit(t, map[string]string{file: ""})
		}
	}
	w.Commit(t, map[string]string{".gitattributes": "\"\"\n\"\n-\n!\n=\n[attr]\nexport-ignore text\n# a export-ignore\n"})
	w.Publish(t, "v1.104.1")
	w.update(Wish{Channel: lock.Stable})
}

// A repository may be a folder, named from where the program runs.
func TestFolderAsRepository(t *testing.T) {
	w := newWorld(t)
	w.TagAnnotated(t, "v1.103.0")
	w.next("v1.104.0", nil)
	w.TagAnnotated(t, "v1.104.0")
	t.Chdir(filepath.Dir(w.Dir))
	for _, name := range []string{w.Dir, filepath.Base(w.Dir), "file://" + w.Dir} {
		w.source.Repository = name
		if u := w.update(Wish{Channel: lock.Stable}); u.New.Tailscale.Version != "v1.104.0" {
			t.Errorf("%s: %+v", name, u.New.Tailscale)
		}
	}
}

// What is read from a folder is what its hash says. A commit with another tree under
// the same hash would have the right sum, and be another commit.
func TestCorruptFolder(t *testing.T) {
	w := newWorld(t)
	w.next("v1.104.0", nil)
	w.source.Repository = w.Dir
	w.update(Wish{Channel: lock.Stable})
	object := func(h plumbing.Hash) string {
		return filepath.Join(w.Dir, ".git", "objects", h.String()[:2], h.String()[2:])
	}
	head := w.Head(t)
	w.Amend(t)
	if err := os.Rename(object(w.Head(t)), object(head)); err != nil {
		t.Fatal(err)
	}
	w.refused(Wish{Channel: lock.Stable}, "object "+head.String()+" is corrupt")
}

// TestNoGit has no program at all to run, neither for a URL nor for a folder.
func TestNoGit(t *testing.T) {
	w := newWorld(t)
	w.next("v1.104.0", nil)
	t.Setenv("PATH", t.TempDir())
	for _, repository := range []string{w.URL, w.Dir} {
		w.source.Repository = repository
		u := w.update(Wish{Channel: lock.Stable})
		if err := w.source.Prove(t.Context(), u.New.Tailscale); err != nil || u.New.Tailscale.Version != "v1.104.0" {
			t.Errorf("%s: %+v: %v", repository, u.New.Tailscale, err)
		}
	}
}

// TestRealServer fetches from git's own server.
func TestRealServer(t *testing.T) {
	path, err := exec.Command(need.Program(t, "git", "git"), "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	w.next("v1.104.0", nil)
	w.TagAnnotated(t, "v1.104.0")
	server := httptest.NewServer(&cgi.Handler{
		Path:   filepath.Join(strings.TrimSpace(string(path)), "git-http-backend"),
		Stderr: t.Output(),
		Env:    []string{"GIT_PROJECT_ROOT=" + filepath.Dir(w.Dir), "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull},
	})
	t.Cleanup(server.Close)
	w.source.Repository = server.URL + "/" + filepath.Base(w.Dir)
	u := w.update(Wish{Channel: lock.Stable})
	if err := w.source.Prove(t.Context(), u.New.Tailscale); err != nil || u.New.Tailscale.Commit != w.Head(t).String() {
		t.Errorf("%+v: %v", u.New.Tailscale, err)
	}
}

// A server that knows no shallow fetch sends everything.
func TestWholeHistory(t *testing.T) {
	w := newWorld(t)
	w.next("v1.104.0", nil)
	var sizes [2]int
	for i := range sizes {
		w.Whole = i == 1
		r, err := w.source.open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer r.close()
		if err := r.fetch(t.Context(), "v1.104.0"); err != nil {
			t.Fatal(err)
		}
		objects, err := r.objects.IterEncodedObjects(plumbing.CommitObject)
		if err != nil {
			t.Fatal(err)
		}
		_ = objects.ForEach(func(plumbing.EncodedObject) error { sizes[i]++; return nil })
		w.update(Wish{Channel: lock.Stable})
	}
	if sizes != [2]int{1, 3} {
		t.Errorf("%d commits are fetched, and %d from a server that knows no shallow fetch", sizes[0], sizes[1])
	}
}

// What a repository's name may do is fetch, and no more.
func TestHostileRepository(t *testing.T) {
	w := newWorld(t)
	mark := filepath.Join(t.TempDir(), "mark")
	for _, name := range []string{"ext::touch " + mark, "--upload-pack=touch " + mark, "ssh://-oProxyCommand=touch " + mark + "/x", "git://127.0.0.1:1/x", "http://127.0.0.1:port/", "http://%zz/"} {
		w.source.Repository = name
		if err := w.refused(Wish{Channel: lock.Stable}); !errors.Is(err, ErrRepository) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(mark); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a command ran: %v", err)
	}
}

// TestHostileServer has servers that send what they should not.
func TestHostileServer(t *testing.T) {
	endless := func(rw http.ResponseWriter, text string) {
		for {
			if _, err := io.WriteString(rw, strings.Repeat(text, 1000)); err != nil {
				return
			}
		}
	}
	for _, test := range []struct {
		name   string
		answer func(w *world, rw http.ResponseWriter, req *http.Request)
		want   string
	}{
		{"a page", func(_ *world, rw http.ResponseWriter, _ *http.Request) { io.WriteString(rw, "<html>log in") }, ""},
		{"an error with a page", func(_ *world, rw http.ResponseWriter, _ *http.Request) {
			http.Error(rw, "<html>\x1b[2J", http.StatusForbidden)
		}, "git: 403 Forbidden;"},
		{"a page without end", func(_ *world, rw http.ResponseWriter, _ *http.Request) {
			rw.WriteHeader(http.StatusNotFound)
			endless(rw, "not here")
		}, "git: 404 Not Found;"},
		{"references without end", func(_ *world, rw http.ResponseWriter, _ *http.Request) {
			io.WriteString(rw, "001e# service=git-upload-pack\n00000040"+strings.Repeat("1", 40)+" refs/heads/abcdef\x00\n")
			endless(rw, "003e"+strings.Repeat("1", 40)+" refs/heads/abcdef")
		}, "too much: more than 64 MiB"},
		{"a redirect to another scheme", func(_ *world, rw http.ResponseWriter, req *http.Request) {
			http.Redirect(rw, req, "file:///etc"+req.URL.Path+"?"+req.URL.RawQuery, http.StatusFound)
		}, "unsupported"},
		{"a redirect of what is fetched", func(w *world, rw http.ResponseWriter, req *http.Request) {
			if req.Method == http.MethodPost {
				http.Redirect(rw, req, w.URL+"/git-upload-pack", http.StatusTemporaryRedirect)
				return
			}
			w.ServeHTTP(rw, req)
		}, "redirect on non-initial request"},
		{"nothing", func(_ *world, _ http.ResponseWriter, req *http.Request) { <-req.Context().Done() }, "nothing moved for 1s"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.next("v1.104.0", nil)
			front := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
				if strings.HasPrefix(req.URL.Path, "/upstream.git/") {
					test.answer(w, rw, req)
					return
				}
				w.ServeHTTP(rw, req)
			}))
			t.Cleanup(front.Close)
			w.source.Repository = front.URL + "/upstream.git"
			if test.name == "nothing" { // others answer, however slowly on a busy machine
				w.source.Modules.Patience = time.Second
			}
			if err := w.refused(Wish{Channel: lock.Stable}, test.want); !errors.Is(err, ErrRepository) {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestRedirect follows a repository that has moved, and sends its password no
// further.
func TestRedirect(t *testing.T) {
	w := newWorld(t)
	w.next("v1.104.0", nil)
	var first, second []string
	w.Intercept(func(_ http.ResponseWriter, req *http.Request) bool {
		if strings.HasPrefix(req.URL.Path, "/upstream.git/") {
			second = append(second, req.Header.Get("Authorization"))
		}
		return false
	})
	front := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		first = append(first, req.Header.Get("Authorization"))
		http.Redirect(rw, req, w.URL+req.URL.Path+"?"+req.URL.RawQuery, http.StatusFound)
	}))
	t.Cleanup(front.Close)
	w.source.Repository = strings.Replace(front.URL, "http://", "http://user:secret@", 1)
	w.update(Wish{Channel: lock.Stable})
	if len(first) != 1 || first[0] == "" || !slices.Equal(second, []string{"", ""}) {
		t.Errorf("the first server was sent %q, the second %q", first, second)
	}
}
