package flags

import (
	"bytes"
	"errors"
	"fmt"
	"go/build"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A Target is what a program is compiled for.
type Target struct {
	OS, Arch string
	Tags     []string
	// Go is the toolchain, such as go1.26.8: files may be for some of its releases only.
	Go string
}

// A Source gives the Go files of a package's folder, by name; none for a package that it does
// not have, such as one of the standard library.
type Source func(pkg string) (map[string][]byte, error)

// Trees are a source: folders of modules, by module path.
type Trees map[string]string

// Files are the Go files of a package.
func (t Trees) Files(pkg string) (map[string][]byte, error) {
	for module := pkg; module != "."; module = path.Dir(module) {
		tree, ok := t[module]
		if !ok {
			continue
		}
		dir := filepath.Join(tree, filepath.FromSlash(strings.TrimPrefix(pkg, module)))
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // of another module, whose path is shorter
		}
		if err != nil {
			return nil, err
		}
		files := map[string][]byte{}
		for _, e := range entries {
			if !strings.HasSuffix(e.Name(), ".go") || e.IsDir() {
				continue
			}
			if files[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
				return nil, err
			}
		}
		return files, nil
	}
	return nil, nil
}

// Closure are the packages that a program is made of for a target, as far as the source has
// them, each with the files that are compiled.
func Closure(program string, target Target, source Source) (list []Package, err error) {
	context, err := target.context()
	if err != nil {
		return nil, err
	}
	seen, next := map[string]bool{program: true}, []string{program}
	for len(next) > 0 {
		name := next[0]
		next = next[1:]
		files, err := source(name)
		if err != nil {
			return nil, fmt.Errorf("flags: package %s: %w", name, err)
		}
		p, err := compiled(context, name, files)
		if err != nil {
			return nil, fmt.Errorf("flags: package %s: %w", name, err)
		}
		if len(p.Files) > 0 {
			list = append(list, p)
		}
		for _, other := range p.Imports {
			if !seen[other] {
				seen[other] = true
				next = append(next, other)
			}
		}
	}
	if len(list) == 0 || list[0].Path != program {
		return nil, fmt.Errorf("flags: there is no source of %s", program)
	}
	slices.SortFunc(list, func(a, b Package) int { return strings.Compare(a.Path, b.Path) })
	return list, nil
}

// context says which files are compiled.
func (t Target) context() (build.Context, error) {
	minor, err := strconv.Atoi(strings.Split(strings.TrimPrefix(t.Go, "go1."), ".")[0])
	if err != nil {
		return build.Context{}, fmt.Errorf("flags: %q is no release of Go", t.Go)
	}
	c := build.Context{GOOS: t.OS, GOARCH: t.Arch, BuildTags: t.Tags, Compiler: "gc"}
	for n := range minor {
		c.ReleaseTags = append(c.ReleaseTags, fmt.Sprintf("go1.%d", n+1))
	}
	return c, nil
}

// compiled is a package with those of its files that are compiled: neither tests nor those
// for other targets, nor those that need a C compiler.
func compiled(c build.Context, name string, files map[string][]byte) (Package, error) {
	p := Package{Path: name, Open: func(file string) ([]byte, error) { return files[file], nil }}
	imports := map[string]bool{}
	c.JoinPath = path.Join
	c.OpenFile = func(name string) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(files[path.Base(name)])), nil
	}
	for _, file := range slices.Sorted(maps.Keys(files)) {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		match, err := c.MatchFile("", file)
		if err != nil {
			return p, err
		}
		if !match {
			continue
		}
		source, err := parser.ParseFile(token.NewFileSet(), file, files[file], parser.ImportsOnly)
		if err != nil {
			return p, err
		}
		of := map[string]bool{}
		for _, spec := range source.Imports {
			if imported, err := strconv.Unquote(spec.Path.Value); err == nil {
				of[imported] = true
			}
		}
		if of["C"] {
			continue
		}
		p.Name, p.Files = source.Name.Name, append(p.Files, file)
		maps.Copy(imports, of)
	}
	p.Imports = slices.Sorted(maps.Keys(imports))
	return p, nil
}
