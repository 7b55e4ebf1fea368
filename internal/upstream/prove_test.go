package upstream

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	modzip "golang.org/x/mod/zip"

	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/modproxy"
)

// Annotated tags are objects of their own; the commit is what counts.
func TestTags(t *testing.T) {
	w := newWorld(t)
	head := func() string { return w.Git(t, "rev-parse", "HEAD") }
	for version, tag := range map[string]func(){
		"v1.104.0": func() { w.Tag(t, "v1.104.0") },
		"v1.104.1": func() { w.TagAnnotated(t, "v1.104.1") },
		"v1.104.2": func() { // an annotated tag of an annotated tag
			w.TagAnnotated(t, "inner")
			w.Git(t, "tag", "--annotate", "--message=outer", "v1.104.2", "inner")
		},
	} {
		w.Commit(t, map[string]string{"VERSION.txt": version})
		w.PublishModule(t, version)
		tag()
		want := head()
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
	w.Git(t, "tag", "v1.104.3", "HEAD^{tree}")
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
			w.SetInfo("v1.104.0", w.update(Wish{Channel: lock.Stable}).New.Tailscale.Time, w.Git(t, "rev-parse", "HEAD"))
			w.Git(t, "commit", "--quiet", "--amend", "--allow-empty", "--message=the same, but not quite")
		}, isAbout("commit"), "module proxy says"},
		{"and only the lock tells", func(w *world) {
			w.Inputs = w.update(Wish{Channel: lock.Stable}).New
			w.Git(t, "commit", "--quiet", "--amend", "--allow-empty", "--message=the same, but not quite")
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
	w.Git(t, "rm", "--quiet", "cmd/derper/backdoor.go")
	w.Git(t, "commit", "--quiet", "--amend", "--allow-empty", "--message=what is to be seen")
	w.Tag(t, "v1.104.0")
	if err := w.refused(Wish{Channel: lock.Stable}, "tailscale.com@v1.104.0: sum does not match", "checksum database", w.Git(t, "rev-parse", "HEAD")); !isSum(err) {
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
		{func(l *lock.Tailscale) { l.Commit = w.Git(t, "rev-parse", "HEAD") }, isAbout("commit")},
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
	in, err := w.source.Inputs(t.Context(), w.Inputs.Tailscale.Version)
	if err != nil {
		t.Fatal(err)
	}
	want := w.Inputs
	want.Platforms = lock.Known
	if len(changes(in, want)) > 0 || in.Tailscale != want.Tailscale || !slices.Equal(in.Platforms, want.Platforms) || in.Roots != want.Roots {
		t.Errorf("%+v, want %+v", in, want)
	}
}

// TestUserGit surrounds git with a user's settings that would change what it does.
// The module's zip is still what zip.CreateFromVCS makes where there are none.
func TestUserGit(t *testing.T) {
	w := newWorld(t)
	w.next("v1.104.0", map[string]string{"crlf.txt": "a\r\nb\n", ".gitattributes": "go.mod filter=go-mod\n*.txt text\nid ident\n", "id": "$Id$\n"})
	commit := w.Git(t, "rev-parse", "HEAD")
	var want bytes.Buffer
	if err := modzip.CreateFromVCS(&want, releaseModule("v1.104.0"), w.Dir, commit, ""); err != nil {
		t.Fatal(err)
	}
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
	c, remove, err := w.source.clone(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer remove()
	if err := c.fetch(t.Context(), w.source, "v1.104.0"); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := c.moduleZip(t.Context(), &got, releaseModule("v1.104.0"), commit); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Errorf("the zip is another one: %d bytes, want %d", got.Len(), want.Len())
	}
	if u := w.update(Wish{Channel: lock.Stable}); u.New.Tailscale.Commit != commit {
		t.Errorf("%+v", u.New.Tailscale)
	}
}

// A repository may be a folder, named from where the program runs.
func TestFolderAsRepository(t *testing.T) {
	w := newWorld(t)
	w.next("v1.104.0", nil)
	t.Chdir(filepath.Dir(w.Dir))
	for _, name := range []string{w.Dir, filepath.Base(w.Dir), "file://" + w.Dir} {
		w.source.Repository = name
		if u := w.update(Wish{Channel: lock.Stable}); u.New.Tailscale.Version != "v1.104.0" {
			t.Errorf("%s: %+v", name, u.New.Tailscale)
		}
	}
}

func TestNoGit(t *testing.T) {
	w := newWorld(t)
	t.Setenv("PATH", t.TempDir())
	if err := w.refused(Wish{Channel: lock.Stable}, "git"); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("%#v", err)
	}
}

// What a repository's name may do is fetch, and no more.
func TestHostileRepository(t *testing.T) {
	w := newWorld(t)
	mark := filepath.Join(t.TempDir(), "mark")
	for _, name := range []string{"ext::touch " + mark, "--upload-pack=touch " + mark, "ssh://-oProxyCommand=touch " + mark + "/x"} {
		w.source.Repository = name
		if err := w.refused(Wish{Channel: lock.Stable}); !errors.Is(err, ErrRepository) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(mark); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a command ran: %v", err)
	}
}
