package registry

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// IsPath reports whether what names an image is the path of a layout or an archive. Its form
// decides, and not what files there are: a path begins with ./, ../ or /, or ends in .tar,
// and everything else is a reference in a registry.
func IsPath(source string) bool {
	first, _, _ := strings.Cut(filepath.ToSlash(source), "/")
	return first == "." || first == ".." || filepath.IsAbs(source) || strings.HasSuffix(source, ".tar")
}

// Path is the name of a file as a path by its form.
func Path(name string) string {
	if IsPath(name) {
		return name
	}
	return "./" + name
}

// ErrReference says that a word is a reference by its form, and a path was meant.
var ErrReference = errors.New("is a reference by its form")

// CheckReference refuses a word that names no place in a registry as it is, and that is a
// folder or a file here: that was meant.
func CheckReference(source string) error {
	if _, _, err := Split(source); err == nil && strings.ContainsAny(source, "/:@") && !strings.HasSuffix(source, "/") {
		return nil
	}
	info, err := os.Stat(source)
	if err != nil {
		return nil // it is what it looks like
	}
	what := "file"
	if info.IsDir() {
		what = "folder"
	}
	return fmt.Errorf("%s %w; the %s is %s", source, ErrReference, what, Path(source))
}

// CheckPath refuses what is no path of a layout.
func CheckPath(source string) error {
	if IsPath(source) {
		return nil
	}
	if err := CheckReference(source); err != nil {
		return err
	}
	return fmt.Errorf("%s %w; the path of a layout begins with ./, ../ or /", source, ErrReference)
}

// Describe says what is read where an image is named so: "layout ./dist", "archive x.tar",
// or "registry docker.io/camllia/derper:latest".
func Describe(source string) string {
	if IsPath(source) {
		if info, err := os.Stat(source); err == nil && !info.IsDir() {
			return "archive " + source
		}
		return "layout " + source
	}
	r, err := parse(source)
	if err != nil {
		return source
	}
	separator := ":"
	if strings.Contains(r.ref.Identifier(), ":") {
		separator = "@"
	}
	return "registry " + r.String() + separator + r.ref.Identifier()
}
