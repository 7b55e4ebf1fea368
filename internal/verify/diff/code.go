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
func (d *differ) code(w, g *program) (err error) {
	defer func() {
		if r := recover(); r != nil { // debug/elf and debug/gosym, on what is malformed
			d.detail("the image's program is malformed: %s", Printable(fmt.Sprint(r)))
			d.set("The image's program is malformed.")
			err = nil
		}
	}()
	sections, onlyGot, err := d.sections(w, g)
	if err != nil {
		return err
	}
	functions := d.functions(w.elf, g.elf)
	// Symbols and debugging information are there by the linker's flags.
	var debugging []string
	for _, name := range onlyGot {
		if name == ".symtab" || strings.HasPrefix(name, ".debug_") || strings.HasPrefix(name, ".zdebug_") {
			debugging = append(debugging, name)
		}
	}
	if len(debugging) > 0 {
		d.set("The image's program has symbols or debugging information (%s), which the rebuilt one was linked without: it was built with other flags, not -ldflags='-s -w'.", strings.Join(debugging, ", "))
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
	return nil
}

// sections lists how the sections of two programs differ, and names those that only
// the one that was got has.
func (d *differ) sections(w, g *program) (lines, onlyGot []string, err error) {
	for _, s := range w.elf.Sections {
		if err := d.ctx.Err(); err != nil {
			return nil, nil, err
		}
		other, name := g.elf.Section(s.Name), Printable(s.Name)
		switch {
		case s.Type == elf.SHT_NULL:
		case other == nil:
			lines = append(lines, fmt.Sprintf("section %s: only in the rebuilt", name))
		case s.Size != other.Size:
			lines = append(lines, fmt.Sprintf("section %s: image %d bytes, rebuilt %d", name, other.Size, s.Size))
		case s.Type == elf.SHT_NOBITS || other.Type == elf.SHT_NOBITS:
			if s.Type != other.Type {
				lines = append(lines, fmt.Sprintf("section %s: image %s, rebuilt %s", name, other.Type, s.Type))
			}
		default:
			if n, at := count(w.content(s), g.content(other)); n > 0 {
				lines = append(lines, fmt.Sprintf("section %s: other content, %d of %s, the first at %#x", name, n, Plural(int(s.Size), "byte"), s.Addr+uint64(at)))
			}
		}
	}
	for _, s := range g.elf.Sections {
		if s.Type != elf.SHT_NULL && w.elf.Section(s.Name) == nil {
			onlyGot = append(onlyGot, s.Name)
			lines = append(lines, fmt.Sprintf("section %s: only in the image, %d bytes", Printable(s.Name), s.Size))
		}
	}
	return lines, onlyGot, nil
}

// content is that of a section, as far as the program has it.
func (p *program) content(s *elf.Section) []byte {
	rest := p.data[min(s.Offset, uint64(len(p.data))):]
	return rest[:min(s.FileSize, uint64(len(rest)))]
}

// function is one in a program: its code is text[from:to].
type function struct {
	entry    uint64
	from, to uint64
}

// functions lists how the functions of two programs differ. Programs are stripped,
// but Go's table of functions is needed at run time and always there.
func (d *differ) functions(w, g *elf.File) (lines []string) {
	want, wantText, err := functionsOf(w)
	if err != nil {
		return nil
	}
	got, gotText, err := functionsOf(g)
	if err != nil {
		return []string{"no table of functions in the image's program: " + Printable(err.Error())}
	}
	var added, gone, sized, changed []string
	moved := 0
	for name, f := range got {
		o, ok := want[name]
		a := gotText[f.from:f.to]
		switch {
		case !ok:
			added = append(added, fmt.Sprintf("function %s: only in the image, %d bytes", Printable(name), len(a)))
		case len(a) != int(o.to-o.from):
			sized = append(sized, fmt.Sprintf("function %s: image %d bytes, rebuilt %d", Printable(name), len(a), o.to-o.from))
		case f.entry != o.entry:
			// What lies elsewhere calls and loads by other distances: it differs
			// because others do.
			moved++
		default:
			if n, at := count(wantText[o.from:o.to], a); n > 0 {
				changed = append(changed, fmt.Sprintf("function %s: other code, %s, the first at %#x", Printable(name), Plural(n, "byte"), f.entry+uint64(at)))
			}
		}
	}
	for name, f := range want {
		if _, ok := got[name]; !ok {
			gone = append(gone, fmt.Sprintf("function %s: only in the rebuilt, %d bytes", Printable(name), f.to-f.from))
		}
	}
	kinds := [][]string{added, gone, sized, changed}
	if moved > 0 && len(added)+len(gone)+len(sized) > 0 {
		// Then also those that did not move differ by where the others are.
		kinds = kinds[:3]
	}
	for _, list := range kinds {
		slices.Sort(list)
		lines = append(lines, list...)
	}
	return lines
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

// maxText is the most that is read of a program's code or table, in bytes. derper has 8 MB.
const maxText = 256 << 20

func functionsOf(f *elf.File) (map[string]function, []byte, error) {
	text := f.Section(".text")
	table := f.Section(".gopclntab")
	if table == nil {
		table = f.Section(".data.rel.ro.gopclntab")
	}
	if text == nil || table == nil || text.Size > maxText || table.Size > maxText || text.Type == elf.SHT_NOBITS {
		return nil, nil, errors.New("no .text or no .gopclntab, or a huge one")
	}
	code, err := text.Data()
	if err != nil {
		return nil, nil, err
	}
	data, err := table.Data()
	if err != nil {
		return nil, nil, err
	}
	symbols, err := gosym.NewTable(nil, gosym.NewLineTable(data, text.Addr))
	if err != nil {
		return nil, nil, err
	}
	m := map[string]function{}
	end := text.Addr + uint64(len(code))
	for _, fn := range symbols.Funcs {
		if fn.Sym != nil && fn.Entry >= text.Addr && fn.Entry <= fn.End && fn.End <= end {
			m[fn.Name] = function{fn.Entry, fn.Entry - text.Addr, fn.End - text.Addr}
		}
	}
	if len(m) == 0 {
		return nil, nil, errors.New("it names no function")
	}
	return m, code, nil
}
