package registry

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
)

// TestIsPath guards that the form of a word, and not the files that are here, says what is read.
//
// The mistake it guards: a folder named like the reference was read in place of the registry.
func TestIsPath(t *testing.T) {
	for source, want := range map[string]bool{
		".": true, "..": true, "./dist": true, "../dist": true, "./": true, "/tmp/dist": true, "/": true,
		"image.tar": true, "sub/image.tar": true, ".//x": true, "./a:b@c": true,
		"dist": false, "dist/": false, "a/b": false, "camllia/derper:latest": false, "localhost:5000/derper": false, "": false,
		".dist": false, "..dist/x": false, "~/dist": false, "a/../b": false, "http://localhost/derper": false,
		"derper@sha256:0000000000000000000000000000000000000000000000000000000000000000": false,
	} {
		if got := IsPath(source); got != want {
			t.Errorf("%q is a path: %v", source, got)
		}
		if !IsPath(Path(source)) {
			t.Errorf("Path(%q) is no path", source)
		}
	}
}

// TestCheckReference guards whoever leaves out the ./ before a folder, and the registry against
// a folder that has the name of a reference.
func TestCheckReference(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, dir := range []string{"dist", "My Layout", "camllia/derper", "localhost:5000/derper"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile("archive", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for source, want := range map[string]string{
		"dist":                         "dist is a reference by its form; the folder is ./dist",
		"dist/":                        "dist/ is a reference by its form; the folder is ./dist/",
		"My Layout":                    "My Layout is a reference by its form; the folder is ./My Layout",
		"archive":                      "archive is a reference by its form; the file is ./archive",
		"camllia/derper":               "", // is one, whatever folders there are
		"localhost:5000/derper":        "",
		"nothing":                      "",
		"registry.example.com/derper":  "",
		"registry.example.com/derper:": "", // Split says why
	} {
		err := CheckReference(source)
		if want == "" && err != nil || want != "" && (err == nil || err.Error() != want || !errors.Is(err, ErrReference)) {
			t.Errorf("%q: %v, want %q", source, err, want)
		}
	}
	_, err := OpenImage(t.Context(), "dist", authn.DefaultKeychain)
	if !errors.Is(err, ErrReference) {
		t.Errorf("dist is opened: %v", err)
	}
	for source, want := range map[string]string{
		"./dist": "", "dist": "the folder is ./dist", "nothing": "the path of a layout begins with ./, ../ or /",
	} {
		if err := CheckPath(source); want == "" && err != nil || want != "" && (err == nil || !strings.HasSuffix(err.Error(), want)) {
			t.Errorf("layout %q: %v, want %q", source, err, want)
		}
	}
}

// TestDescribe guards that a result says which of a folder and a registry was read.
func TestDescribe(t *testing.T) {
	archive := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(archive, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	digest := "@sha256:" + strings.Repeat("0", 64)
	for source, want := range map[string]string{
		"./dist":                                "layout ./dist",
		archive:                                 "archive " + archive,
		"derper":                                "registry docker.io/library/derper:latest",
		"camllia/derper:1.102.3":                "registry docker.io/camllia/derper:1.102.3",
		"http://localhost:5000/derper" + digest: "registry http://localhost:5000/derper" + digest,
		"NO":                                    "NO",
	} {
		if got := Describe(source); got != want {
			t.Errorf("%q is %q, want %q", source, got, want)
		}
	}
}
