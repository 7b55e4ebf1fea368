package gobinary

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xavieralpha/derper/internal/testing/elftest"
)

// compiled is a program that Go compiled for a platform, with these flags of the linker.
func compiled(t *testing.T, arch, ldflags string) []byte {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":   "module example.com/a\ngo 1.24\n",
		"a.go":     "package main\nimport (\"encoding/json\"; \"os\"; \"example.com/a/v.2\")\nfunc main() { json.NewEncoder(os.Stdout).Encode(v.V()) }\n",
		"v.2/v.go": "package v\n//go:noinline\nfunc V() int { return 2 }\n",
	} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "build", "-buildvcs=false", "-ldflags="+ldflags, "-o", "a", ".")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOOS=linux", "GOARCH="+arch, "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	data, err := os.ReadFile(filepath.Join(dir, "a"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestWeigh weighs a stripped program, and compares with the symbols of one that is not.
func TestWeigh(t *testing.T) {
	data := compiled(t, "amd64", "-s -w")
	w, err := Weigh(t.Context(), bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	parts := map[string]Component{}
	var sum int64
	for i, p := range w.Parts {
		sum += p.Bytes
		parts[p.Name] = p
		if i > 0 && p.Bytes > w.Parts[i-1].Bytes {
			t.Errorf("%s is behind %s, and heavier", p.Name, w.Parts[i-1].Name)
		}
		if p.Bytes < 0 || p.Code+p.Table > p.Bytes {
			t.Errorf("%+v", p)
		}
	}
	if sum != int64(len(data)) || w.Bytes != sum {
		t.Errorf("parts of %d bytes, and %d, of a file of %d", sum, w.Bytes, len(data))
	}
	f, err := elf.NewFile(bytes.NewReader(compiled(t, "amd64", "")))
	if err != nil {
		t.Fatal(err)
	}
	symbols, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	code := map[string]int64{}
	for _, s := range symbols {
		for _, name := range []string{"encoding/json", "runtime", "example.com/a/v.2"} {
			if elf.ST_TYPE(s.Info) == elf.STT_FUNC && strings.HasPrefix(strings.ReplaceAll(s.Name, "%2e", "."), name+".") {
				code[name] += int64(s.Size)
			}
		}
	}
	for name, n := range code {
		p := parts[name]
		// Functions are aligned, so each has some bytes more than its symbol says.
		if p.Code < n || p.Code > n*12/10+100 || p.Table == 0 {
			t.Errorf("%s: %+v, its symbols have %d bytes of code", name, p, n)
		}
	}
	for name, module := range map[string]string{"runtime": Std, "encoding/json": Std, ".rodata": "", "example.com/a": "example.com/a", "example.com/a/v.2": "example.com/a"} {
		if p, ok := parts[name]; !ok || p.Module != module {
			t.Errorf("%s is of module %q, not %q", name, p.Module, module)
		}
	}
	// Most of the table is some package's, or what tableBytes knows of its form is wrong.
	if rest, all := parts[".gopclntab"].Bytes, int64(f.Section(".gopclntab").Size); rest > all/2 {
		t.Errorf("%d of %d bytes of the table of functions are no package's", rest, all)
	}
}

// FuzzWeigh guards against programs that are made to harm whoever weighs them: parts that are
// more than the file, and names that steer a terminal.
func FuzzWeigh(f *testing.F) {
	f.Add(elftest.SmallTable, elftest.SmallInfo)
	f.Add(bytes.Replace(elftest.SmallTable, []byte("runtime"), []byte("\x1b[2Jxxx"), 1), elftest.SmallInfo)
	f.Add(elftest.SmallTable, bytes.Replace(elftest.SmallInfo, []byte("cmd/derper"), []byte("cmd/\x1b[2J"), 1))
	f.Fuzz(func(t *testing.T, table, info []byte) {
		w, err := weigh(elftest.Small(table, info))
		if err != nil {
			return
		}
		names := w.Name + w.Go
		for _, p := range w.Parts {
			names += p.Name + p.Module
			if p.Bytes < 0 {
				t.Errorf("%+v", p)
			}
		}
		if strings.ContainsAny(names, "\x1b\n\r\u202e") {
			t.Errorf("steers a terminal: %q", names)
		}
	})
}
