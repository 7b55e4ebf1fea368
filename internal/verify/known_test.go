package verify

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestKnownFolder guards the files that come by pull request, and the examples that they are
// copied from.
func TestKnownFolder(t *testing.T) {
	folder := filepath.Join("../..", KnownFolder)
	if _, err := ReadKnown(folder); err != nil {
		t.Error(err)
	}
	page, err := os.ReadFile(filepath.Join(folder, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile("(?s)`([a-z]+)\\.json`[^`]*```json\n(.*?)```").FindAllSubmatch(page, -1)
	if len(examples) != 2 {
		t.Fatalf("README.md has %d examples: expected one with a key, one of a workflow", len(examples))
	}
	dir := t.TempDir()
	for _, e := range examples {
		if err := os.WriteFile(filepath.Join(dir, string(e[1])+".json"), e[2], 0o644); err != nil {
			t.Fatal(err)
		}
	}
	list, err := ReadKnown(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || list[0].Identity == "" || list[1].Key == "" {
		t.Errorf("the examples: %+v", list)
	}
}

// TestKnownRefused guards against a rebuilder who is left out unseen, or is somebody else than
// the file seems to say.
func TestKnownRefused(t *testing.T) {
	const good = `{"name": "alice", "since": "2026-12-01", "key": "k", "repository": "ghcr.io/alice/derper"}`
	for _, tt := range []struct{ name, file, old, new, want string }{
		{"good", "alice.json", "", "", ""},
		{"another name", "bob.json", "", "", `bob.json: name is "alice": expected "bob", as the file`},
		{"no .json", "alice.jsn", "", "", "alice.jsn: expected a file NAME.json"},
		{"unknown key", "alice.json", `"key"`, `"keys"`, `alice.json: line 1, column 42: unknown key "keys"`},
		{"another case", "alice.json", `"key"`, `"Key"`, `unknown key "Key"`},
		{"twice", "alice.json", `"since": "2026-12-01"`, `"name": "eve"`, `duplicate key "name"`},
		{"not JSON", "alice.json", "{", "", "alice.json: line 1"},
		{"no day", "alice.json", "-12-01", "", `since is "2026": expected a day`},
		{"a name", "alice.json", `"alice"`, `"a\u001b"`, `name is "a\x1b": expected up to 39`},
		{"nobody", "alice.json", `"key": "k"`, `"issuer": "https://i"`, "expected either key, or identity and issuer"},
		{"two", "alice.json", `"key": "k"`, `"key": "k", "issuer": "https://i"`, "key cannot be combined"},
		{"a tag", "alice.json", `alice/derper"`, `alice/derper:1"`, "alice.json: repository: "},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, tt.file), []byte(strings.Replace(good, tt.old, tt.new, 1)), 0o644); err != nil {
			t.Fatal(err)
		}
		list, err := ReadKnown(dir)
		if tt.want == "" {
			if err != nil || len(list) != 1 || list[0].Name != "alice" {
				t.Errorf("%s: %+v, %v", tt.name, list, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}
