package diff

import (
	"debug/elf"
	"debug/gosym"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// code compares two programs section by section, and function by function.
func (d *differ) code(w, g *program) {
	defer func() {
		if r := recover(); r != nil { // debug/elf and debug/gosym, on what is malformed
			d.detail("the image's program is malformed: %s", short(fmt.Sprint(r)))
			d.set("The image's program is malformed.")
		}
	}()
	want, got := sectionsOf(w), sectionsOf(g)
	sections := parts("section", want, got)
	functions := functions(want, got)
	// Symbols and debugging information are there by the linker's flags.
	var debugging []string
	for _, s := range g.elf.Sections {
		if w.elf.Section(s.Name) == nil && (s.Name == ".symtab" || strings.HasPrefix(s.Name, ".debug_") || strings.HasPrefix(s.Name, ".zdebug_")) {
			debugging = append(debugging, short(s.Name))
		}
	}
	if len(debugging) > 0 {
		d.set("The image's program has symbols or debugging information (%s), which the rebuilt one was linked without: it was built with other flags, not -ldflags='-s -w'.", strings.Join(debugging[:min(len(debugging), listed)], ", "))
	}
	d.list(functions, "function")
	d.list(sections, "section")
	switch {
	case len(functions) > 0:
		d.set("Both programs say that they were built by the same Go, from the same modules, with the same settings, and yet their code differs (%s). The image's program was changed after it was compiled, or its source or its compiler was.", functions[0])
	case len(sections) > 0:
		d.set("Both programs say that they were built by the same Go, from the same modules, with the same settings, and their functions are the same, but not their data (%s). The image's program was changed after it was compiled, or was linked with other flags or from other embedded files.", sections[0])
	default:
		n, at := count(w.data, g.data)
		d.detail("outside of all sections: %s, the first at offset %#x of the file", Plural(n, "byte"), at)
		d.set("All sections of the two programs are the same; what is outside of them differs (%s, the first at offset %#x of the file). The image's program was changed after it was linked.", Plural(n, "byte"), at)
	}
}

// part is a section or a function of a program.
type part struct {
	kind string // of a section
	addr uint64
	size uint64
	data []byte // as far as the program has it
}

// parts lists how the parts of two programs differ.
func parts(what string, want, got map[string]part) (lines []string) {
	var kinds [4][]string // only in the image, only in the rebuilt, of another size, of other content
	moved := false
	for name, g := range got {
		w, ok := want[name]
		line := func(kind int, format string, args ...any) {
			kinds[kind] = append(kinds[kind], fmt.Sprintf("%s %s: ", what, short(name))+fmt.Sprintf(format, args...))
		}
		switch {
		case !ok:
			line(0, "only in the image, %d bytes", g.size)
		case w.size != g.size:
			line(2, "image %d bytes, rebuilt %d", g.size, w.size)
		case w.kind != g.kind:
			line(2, "image %s, rebuilt %s", g.kind, w.kind)
		case what == "function" && w.addr != g.addr:
			// What lies elsewhere calls and loads by other distances: it differs
			// because others do.
			moved = true
		default:
			if n, at := count(w.data, g.data); n > 0 {
				how := "code, " + Plural(n, "byte")
				if what == "section" {
					how = fmt.Sprintf("content, %d of %s", n, Plural(int(w.size), "byte"))
				}
				line(3, "other %s, the first at %#x", how, w.addr+uint64(at))
			}
		}
	}
	for name, w := range want {
		if _, ok := got[name]; !ok {
			kinds[1] = append(kinds[1], fmt.Sprintf("%s %s: only in the rebuilt, %d bytes", what, short(name), w.size))
		}
	}
	if moved && len(kinds[0])+len(kinds[1])+len(kinds[2]) > 0 {
		// Then also those that did not move differ by where the others are.
		kinds[3] = nil
	}
	for _, list := range kinds {
		lines = append(lines, slices.Sorted(slices.Values(list))...)
	}
	return lines
}

func sectionsOf(p *program) map[string]part {
	m := map[string]part{}
	for _, s := range slices.Backward(p.elf.Sections) { // of one name, the first counts
		var data []byte
		if s.Type != elf.SHT_NOBITS {
			data = p.data[min(s.Offset, uint64(len(p.data))):]
			data = data[:min(s.FileSize, uint64(len(data)))]
		}
		if s.Type != elf.SHT_NULL {
			m[s.Name] = part{s.Type.String(), s.Addr, s.Size, data}
		}
	}
	return m
}

// functions lists how the functions of two programs of one machine differ. Programs are
// stripped, but Go's table of functions is needed at run time and always there.
func functions(w, g map[string]part) []string {
	want, err := functionsOf(w)
	if err != nil {
		return nil
	}
	got, err := functionsOf(g)
	if err != nil {
		return []string{"no table of functions in the image's program: " + short(err.Error())}
	}
	return parts("function", want, got)
}

// count counts the bytes that differ, and those that one has beyond the other, and says
// where the first is.
func count(a, b []byte) (n, first int) {
	for i := range max(len(a), len(b)) {
		if i >= len(a) || i >= len(b) || a[i] != b[i] {
			if n == 0 {
				first = i
			}
			n++
		}
	}
	return n, first
}

func functionsOf(sections map[string]part) (map[string]part, error) {
	text, ok := sections[".text"]
	table := sections[".gopclntab"].data
	if table == nil {
		table = sections[".data.rel.ro.gopclntab"].data
	}
	if !ok || len(table) < 16 {
		return nil, errors.New("no .text or no .gopclntab")
	}
	// debug/gosym believes what the table says of its length. Each function has two
	// numbers of 4 bytes there.
	if n := functionCount(table); uint64(n)*8 > uint64(len(table)) {
		return nil, fmt.Errorf("its .gopclntab of %d bytes says that it has %d functions", len(table), n)
	}
	symbols, err := gosym.NewTable(nil, gosym.NewLineTable(table, text.addr))
	if err != nil {
		return nil, err
	}
	m := map[string]part{}
	end := text.addr + uint64(len(text.data))
	for _, fn := range symbols.Funcs {
		if fn.Sym != nil && fn.Entry >= text.addr && fn.Entry <= fn.End && fn.End <= end {
			m[fn.Name] = part{"", fn.Entry, fn.End - fn.Entry, text.data[fn.Entry-text.addr : fn.End-text.addr]}
		}
	}
	if len(m) == 0 {
		return nil, errors.New("it names no function")
	}
	return m, nil
}
