package gobinary

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/xavieralpha/derper/internal/limit"
)

// A Weight is what a program weighs, part by part. The parts are the whole file.
type Weight struct {
	// Name is the program's, the last element of the path of its package.
	Name string `json:"name"`
	// Go is the toolchain that compiled it.
	Go    string      `json:"go"`
	Bytes int64       `json:"bytes"`
	Parts []Component `json:"parts"` // the heaviest first
}

// A Component is a package that is linked, or what is left of a section of the file: a
// stripped program does not say whose strings, types and data those are.
type Component struct {
	// Name is the path of the package, or that of the section, which begins with a dot.
	Name string `json:"name"`
	// Module is the package's module, std for the standard library; "" for a section.
	Module string `json:"module,omitempty"`
	Bytes  int64  `json:"bytes"`
	// Code and Table are the functions of a package and what the table of functions, which
	// Go needs for stack traces and to collect garbage, has of them.
	Code  int64 `json:"codeBytes,omitempty"`
	Table int64 `json:"tableBytes,omitempty"`
}

// Std is the module of packages of the standard library.
const Std = "std"

var weighing = NewJob("weigh", func(r io.Reader) (*Weight, error) {
	data, err := limit.ReadAll(r, MaxProgram)
	if err != nil {
		return nil, err
	}
	return weigh(data)
})

// Weigh weighs a program that r gives.
func Weigh(ctx context.Context, r io.Reader) (*Weight, error) { return weighing.Run(ctx, r) }

func weigh(data []byte) (w *Weight, err error) {
	f, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("not a program that Go compiled: %w", err)
	}
	defer func() {
		if r := recover(); r != nil { // debug/gosym and tableBytes, on what is malformed
			err = fmt.Errorf("malformed: %v", r)
		}
	}()
	sections := f.Sections()
	functions, err := symbols(sections)
	if err != nil {
		return nil, err
	}
	text := sections[".text"]
	tableName, table := table(sections)
	entries := tableBytes(table)
	packages := map[string]*Component{}
	var code, listed int64
	for i, fn := range functions {
		if !within(fn, text) {
			continue
		}
		name := strings.ReplaceAll(fn.PackageName(), "%2e", ".") // as the linker writes the last element
		if name == "" {
			continue // made by the compiler or the linker
		}
		if name == "main" {
			name = f.Info.Path
		}
		p := packages[name]
		if p == nil {
			p = &Component{Name: short(name), Module: short(moduleOf(f.Info, name))}
			packages[name] = p
		}
		n := int64(fn.End - fn.Entry)
		p.Code, code = p.Code+n, code+n
		if i < len(entries) {
			p.Table, listed = p.Table+entries[i], listed+entries[i]
		}
	}
	if len(packages) == 0 {
		return nil, errors.New("it names no function")
	}
	w = &Weight{Name: short(path.Base(f.Info.Path)), Go: short(f.Info.GoVersion), Bytes: int64(len(data))}
	for _, p := range packages {
		p.Bytes = p.Code + p.Table
		w.Parts = append(w.Parts, *p)
	}
	rest := w.Bytes
	for name, s := range sections {
		n := int64(len(s.Data))
		rest -= n
		switch name {
		case ".text":
			n -= code
		case tableName:
			n -= listed
		}
		if n > 0 {
			w.Parts = append(w.Parts, Component{Name: "." + short(strings.TrimPrefix(name, ".")), Bytes: n})
		}
	}
	if rest > 0 {
		w.Parts = append(w.Parts, Component{Name: ".headers", Bytes: rest})
	}
	Sort(w.Parts)
	return w, nil
}

// Sort puts the heaviest first.
func Sort(parts []Component) {
	slices.SortFunc(parts, func(a, b Component) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), strings.Compare(a.Name, b.Name))
	})
}

// moduleOf is the module that a package of a program is of.
func moduleOf(info *debug.BuildInfo, name string) string {
	first, _, _ := strings.Cut(name, "/")
	longest := ""
	for _, m := range append([]*debug.Module{&info.Main}, info.Deps...) {
		if (name == m.Path || strings.HasPrefix(name, m.Path+"/")) && len(m.Path) > len(longest) {
			longest = m.Path
		}
	}
	if longest == "" && !strings.Contains(first, ".") {
		return Std
	}
	return longest
}

// tableBytes is what a table of functions has of each of them: its two numbers in the list
// of functions, its record, its name, and the tables that give a line and the like for an
// address. Functions share these; the first that has one counts it. Nothing is known of
// tables in another form than that of Go 1.20.
//
// Source: runtime, type pcHeader and type _func; cmd/link/internal/ld/pcln.go.
func tableBytes(table []byte) (sizes []int64) {
	order, pointer := orderOf(table), int(table[7])
	if order.Uint32(table) != 0xfffffff1 || pointer != 4 && pointer != 8 {
		return nil
	}
	word := func(i int) uint64 {
		if pointer == 4 {
			return uint64(order.Uint32(table[8+4*i:]))
		}
		return order.Uint64(table[8+8*i:])
	}
	names, programs, list := table[word(3):], table[word(6):word(7)], table[word(7):]
	number := func(b []byte, at int) uint32 { return order.Uint32(b[at:]) }
	const record = 44
	counted := map[uint32]bool{0: true} // which stands for none
	var offsets [][]uint32              // of the tables that a function is the first to have
	all := []uint32{0, uint32(len(programs))}
	for i := range int(word(0)) {
		r := list[number(list, 8*i+4):]
		pcdata, funcdata := int(number(r, 28)), int(r[43])
		name := names[number(r, 4):]
		sizes = append(sizes, int64(8+record+4*pcdata+4*funcdata+slices.Index(name, 0)+1))
		var first []uint32
		for n := range 3 + pcdata {
			at := 16 + 4*n // pcsp, pcfile, pcln
			if n >= 3 {
				at = record + 4*(n-3)
			}
			if offset := number(r, at); !counted[offset] {
				counted[offset] = true
				first, all = append(first, offset), append(all, offset)
			}
		}
		offsets = append(offsets, first)
	}
	// They follow on each other: one ends where the next begins.
	slices.Sort(all)
	for i, first := range offsets {
		for _, offset := range first {
			if n, _ := slices.BinarySearch(all, offset); n+1 < len(all) {
				sizes[i] += int64(all[n+1] - offset)
			}
		}
	}
	return sizes
}

// A Change is what a component weighs in one program, and what it weighed before in another;
// 0 where it is not there.
type Change struct {
	Component
	Before int64 `json:"beforeBytes,omitempty"`
}

// Growth is how much heavier it is now.
func (c Change) Growth() int64 { return c.Bytes - c.Before }

// Changes are the components that weigh more or less than before, the largest growth first.
func Changes(before, after []Component) (list []Change) {
	was := map[string]Component{}
	for _, c := range before {
		was[c.Name] = c
	}
	for _, c := range after {
		list = append(list, Change{c, was[c.Name].Bytes})
		delete(was, c.Name)
	}
	for _, c := range was {
		list = append(list, Change{Component{Name: c.Name, Module: c.Module}, c.Bytes})
	}
	list = slices.DeleteFunc(list, func(c Change) bool { return c.Growth() == 0 })
	slices.SortFunc(list, func(a, b Change) int {
		return cmp.Or(cmp.Compare(b.Growth(), a.Growth()), strings.Compare(a.Name, b.Name))
	})
	return list
}

// ByModule adds up the packages of each module; sections stay as they are.
func ByModule(parts []Component) (modules []Component) {
	of := map[string]int{}
	for _, p := range parts {
		if p.Module == "" {
			modules = append(modules, p)
			continue
		}
		i, ok := of[p.Module]
		if !ok {
			i = len(modules)
			of[p.Module], modules = i, append(modules, Component{Name: p.Module, Module: p.Module})
		}
		m := &modules[i]
		m.Bytes, m.Code, m.Table = m.Bytes+p.Bytes, m.Code+p.Code, m.Table+p.Table
	}
	Sort(modules)
	return modules
}
