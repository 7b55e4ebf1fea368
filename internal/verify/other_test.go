package verify

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/revision"
	"github.com/xavieralpha/derper/internal/testing/hostile"
	"github.com/xavieralpha/derper/internal/testing/need"
)

// stub is a program that builds by giving out the layout that is in it. OUTPUT is replaced with what
// it does once that is written.
const stub = `package main

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

//go:embed all:layout
var layout embed.FS

var _ = []any{errors.New, fmt.Sprint, net.Dial, exec.Command, filepath.Join, strings.Repeat, time.Sleep}

func main() {
	if len(os.Args) != 7 || os.Args[1] != "--lock" || os.Args[3] != "--platform" || os.Args[4] != "linux/amd64" || os.Args[5] != "--output" {
		fail(fmt.Sprintf("arguments %q", os.Args))
	}
	for _, v := range os.Environ() {
		if !slices.Contains([]string{"PATH", "HOME", "XDG_CACHE_HOME", "TMPDIR", "LANG", "GOPROXY"}, strings.SplitN(v, "=", 2)[0]) {
			fail("has " + v)
		}
	}
	output := os.Args[6]
	sub, _ := fs.Sub(layout, "layout")
	write := func() {
		if err := os.CopyFS(output, sub); err != nil {
			fail(err.Error())
		}
	}
	_ = write
	OUTPUT
}

func fail(what string) {
	fmt.Fprintln(os.Stderr, "stub: " + what)
	os.Exit(1)
}
`

// checkout is a checkout of a project whose program is the stub.
func checkout(t *testing.T, layout, output string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module github.com/xavieralpha/derper\n\ngo 1.26.0\n", "go.sum": "", "cmd/build/main.go": strings.Replace(stub, "OUTPUT", output, 1),
	} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, name, []byte(text))
	}
	if err := os.CopyFS(filepath.Join(dir, "cmd/build/layout"), os.DirFS(layout)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestOthers guards that an image whose entrypoint is of another revision of this project is
// compared with what that revision makes, and that no program passes by doing anything else.
func TestOthers(t *testing.T) {
	t.Setenv("SECRET", "of a release")
	f := newFixture(t, "linux/amd64")
	// What another revision has made: it has another entrypoint.
	older := f.layout(t, f.platforms, f.with(f.edit(t, "entrypoint", hostile.Replace("entrypoint", func(b []byte) []byte { return append(b, 0) }))))
	good := f.layoutOf(t, f.index)
	verify := func(t *testing.T, ref, builder string) *Subject {
		t.Helper()
		v := f.verifier(t)
		v.Others = &Others{Checkout: builder, Shared: []string{"toolchain", "go-build"}}
		s := f.run(t, v, ref)
		if left, err := os.ReadDir(f.cache.Temp()); err != nil || len(left) > 0 {
			t.Errorf("left in the cache: %v, %v", left, err)
		}
		return s
	}
	t.Run("what the revision makes", func(t *testing.T) {
		s := verify(t, older, checkout(t, older, "write()"))
		wantVerified(t, s)
		if s.Builder == nil || strings.Join(s.Builder.Otherwise, ",") != "entrypoint" {
			t.Fatalf("%+v", s.Builder)
		}
		wantCheck(t, s.Inputs, "builder", Skip, "which nobody vouches for here")
		for _, want := range []string{"\n  built by the program in ", "that this program makes the same: entrypoint is what the source of"} {
			if says := strings.Join(strings.Fields(text(s)), " "); !strings.Contains(says, strings.TrimSpace(want)) {
				t.Errorf("does not say %q:\n%s", want, text(s))
			}
		}
	})
	t.Run("what this program makes", func(t *testing.T) {
		if s := verify(t, good, t.TempDir()); s.Verdict != Verified || s.Builder != nil {
			t.Errorf("%s, by %+v", s.Verdict, s.Builder)
		}
	})
	t.Run("another program of upstream's", func(t *testing.T) {
		evil := f.layout(t, f.platforms, f.with(f.edit(t, "derper", hostile.Replace(derperFile, func(b []byte) []byte { return append(b, 0) }))))
		s := verify(t, evil, checkout(t, evil, "write()"))
		wantFirst(t, s, LevelBinary, derperFile)
		if s.Builder != nil {
			t.Error("it is for another revision to say what upstream's programs are")
		}
	})
	// What cannot be found out: it is said that the image differs from what this program makes.
	unknown := func(t *testing.T, s *Subject, says string) {
		t.Helper()
		if s.Verdict != Unverified || s.Builder != nil || s.Means != nil || !strings.Contains(s.Error, "this program makes entrypoint otherwise") || !strings.Contains(s.Error, says) {
			t.Errorf("%s, says %q, want %q", s.Verdict, s.Error, says)
		}
	}
	t.Run("no checkout", func(t *testing.T) {
		s := verify(t, older, t.TempDir())
		if unknown(t, s, "is no checkout of this project"); !errors.Is(s.Err, revision.ErrNoSource) {
			t.Error(s.Err)
		}
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	victim := filepath.Join(t.TempDir(), "victim")
	for name, test := range map[string]struct{ output, says string }{
		"no layout":             {``, "it has written no layout"},
		"a failure":             {`write(); fail("no")`, "exit status 1: stub: no"},
		"words without end":     {`for range 10000 { fmt.Println(strings.Repeat("a", 1000)) }; fail("no")`, "stub: no"},
		"the image by a link":   {`os.Symlink("` + older + `", output)`, "its layout is no folder"},
		"a file by a link":      {`write(); os.Remove(output+"/index.json"); os.Symlink("` + older + `/index.json", output+"/index.json")`, "its layout has /index.json, which is no file"},
		"no index":              {`os.MkdirAll(output, 0o755)`, "its layout: "},
		"other bytes in a blob": {`write(); filepath.WalkDir(output+"/blobs", func(name string, d fs.DirEntry, err error) error { if i, _ := d.Info(); i.Mode().IsRegular() && i.Size() > 100_000 { b, _ := os.ReadFile(name); b[len(b)-1] ^= 1; os.Chmod(name, 0o644); os.WriteFile(name, b, 0o644) }; return nil })`, "corrupt"},
	} {
		t.Run(name, func(t *testing.T) { unknown(t, verify(t, older, checkout(t, older, test.output)), test.says) })
	}
	// What it does besides changes nothing, or is kept from it.
	for name, output := range map[string]string{
		"a file elsewhere":         `os.WriteFile("` + victim + `", nil, 0o644)`,
		"a file of the verifier's": `os.RemoveAll("` + f.cache.Dir() + `/blobs")`,
		"a connection":             `if c, err := net.Dial("tcp", "` + listener.Addr().String() + `"); err == nil { c.Write([]byte("secret")) }`,
	} {
		t.Run(name, func(t *testing.T) {
			s := verify(t, older, checkout(t, older, output+"; write()"))
			if s.Builder == nil || !s.Builder.Closed {
				need.Missing(t, "Landlock and user namespaces", "use a newer kernel, or one that allows both")
			}
			wantVerified(t, s)
			if _, err := os.Stat(victim); err == nil {
				t.Error("it has written elsewhere")
			}
		})
	}
	t.Run("what this program makes, for another image", func(t *testing.T) {
		s := verify(t, older, checkout(t, good, "write()"))
		wantFirst(t, s, LevelBinary, "entrypoint")
		if says := text(s); s.Builder == nil || strings.Contains(says, "most likely made by another revision") {
			t.Errorf("blames yet another revision:\n%s", says)
		}
	})
	t.Run("an image for another platform", func(t *testing.T) {
		img := f.with(f.edit(t, "entrypoint", hostile.Replace("entrypoint", func(b []byte) []byte { return append(b, 1) })))[0]
		other := filepath.Join(t.TempDir(), "other")
		if _, err := image.WriteLayout(other, "test", f.indexOf(t, f.platforms, []v1.Image{img}), false); err != nil {
			t.Fatal(err)
		}
		wantFirst(t, verify(t, older, checkout(t, other, "write()")), LevelBinary, "entrypoint")
	})
}
