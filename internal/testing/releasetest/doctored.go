package releasetest

import (
	"archive/zip"
	"bytes"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/module"

	"github.com/xavieralpha/derper/internal/lock"
)

// Doctored serves the real release of the lock in root with another source: edit gets its
// files by their paths in the module, and changes them. Everything else is the real thing,
// from the user's module proxy.
func Doctored(t testing.TB, root string, edit func(files map[string]string)) *Release {
	t.Helper()
	r := New(t, root)
	l, err := lock.Read(filepath.Join(root, lock.File))
	if err != nil {
		t.Fatal(err)
	}
	inputs, err := l.Inputs.Of(lock.Default)
	if err != nil {
		t.Fatal(err)
	}
	m := module.Version{Path: lock.TailscaleModule, Version: inputs.Tailscale.Version}
	doctored, goMod := rewritten(t, r.get(m, ".zip"), m.String()+"/", edit)
	inputs.Tailscale.Sum = hashZip(t, doctored)
	r.Forward("")
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Inputs = inputs
	for of := range r.zips { // the small ones
		delete(r.zips, of)
		delete(r.sums, of)
	}
	r.zips[m], r.mods[m], r.sums[m] = doctored, goMod, inputs.Tailscale.Sum
	return r
}

// rewritten is a module's zip with other files, and its go.mod. All paths in it have the prefix.
func rewritten(t testing.TB, data []byte, prefix string, edit func(map[string]string)) (archive, goMod []byte) {
	t.Helper()
	old, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, f := range old.File {
		rc, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(rc)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimPrefix(f.Name, prefix)] = string(content)
	}
	edit(files)
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, content := range files {
		f, err := w.Create(prefix + name)
		if err == nil {
			_, err = io.WriteString(f, content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), []byte(files["go.mod"])
}
