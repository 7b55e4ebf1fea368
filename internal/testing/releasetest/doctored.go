package releasetest

import (
	"archive/zip"
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/module"

	"github.com/xavieralpha/derper/internal/lock"
)

// Doctored serves the real release of the lock in root with another source: edit gets its
// files by their paths in the module, and changes them. Everything else is the real thing,
// from the real module proxy, with the sums that the go.sum files of the release and of this
// repository have.
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
	doctored, files := rewritten(t, r.get(t, "/"+m.Path+"/@v/"+m.Version+".zip"), m.String()+"/", edit)
	own, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	roots := module.Version{Path: lock.RootsModule, Version: inputs.Roots.Version}
	inputs.Tailscale.Sum = hashZip(t, doctored)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Inputs = inputs
	clear(r.zips)
	clear(r.mods)
	r.zips[m], r.mods[m], r.sums[m] = doctored, []byte(files["go.mod"]), inputs.Tailscale.Sum
	r.sums[roots] = inputs.Roots.Sum
	r.lines = map[module.Version]string{roots: roots.Path + " " + roots.Version + " " + inputs.Roots.Sum + "\n"}
	for line := range strings.Lines(files["go.sum"] + string(own)) {
		if f := strings.Fields(line); len(f) == 3 {
			m := module.Version{Path: f[0], Version: strings.TrimSuffix(f[1], "/go.mod")}
			if !strings.Contains(r.lines[m], line) {
				r.lines[m] += line
			}
		}
	}
	return r
}

// get reads a file of the real module proxy.
func (r *Release) get(t testing.TB, path string) []byte {
	t.Helper()
	resp, err := http.Get(r.realURL + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %v", path, resp.Status, err)
	}
	return data
}

// rewritten is a module's zip with other files, and these. All paths in it have the prefix.
func rewritten(t testing.TB, data []byte, prefix string, edit func(map[string]string)) ([]byte, map[string]string) {
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
	return b.Bytes(), files
}
