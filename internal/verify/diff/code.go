package diff

import (
	"fmt"
	"slices"
	"strings"

	"github.com/xavieralpha/derper/internal/gobinary"
)

// code compares two programs section by section, and function by function.
func (d *differ) code(w, g *gobinary.File) {
	defer func() {
		if r := recover(); r != nil { // debug/elf and debug/gosym, on what is malformed
			d.detail("the image's program is malformed: %s", short(fmt.Sprint(r)))
			d.set("The image's program is malformed.")
		}
	}()
	want, got := w.Sections(), g.Sections()
	sections := parts("section", want, got)
	functions := functions(want, got)
	// Symbols and debugging information are there by the linker's flags.
	var debugging []string
	for _, s := range g.ELF.Sections {
		if w.ELF.Section(s.Name) == nil && (s.Name == ".symtab" || strings.HasPrefix(s.Name, ".debug_") || strings.HasPrefix(s.Name, ".zdebug_")) {
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
		n, at := count(w.Data, g.Data)
		d.detail("outside of all sections: %s, the first at offset %#x of the file", Plural(n, "byte"), at)
		d.set("All sections of the two programs are the same; what is outside of them differs (%s, the first at offset %#x of the file). The image's program was changed after it was linked.", Plural(n, "byte"), at)
	}
}

// parts lists how the parts of two programs differ.
func parts(what string, want, got map[string]gobinary.Part) (lines []string) {
	var kinds [4][]string // only in the image, only in the rebuilt, of another size, of other content
	moved := false
	for name, g := range got {
		w, ok := want[name]
		line := func(kind int, format string, args ...any) {
			kinds[kind] = append(kinds[kind], fmt.Sprintf("%s %s: ", what, short(name))+fmt.Sprintf(format, args...))
		}
		switch {
		case !ok:
			line(0, "only in the image, %d bytes", g.Size)
		case w.Size != g.Size:
			line(2, "image %d bytes, rebuilt %d", g.Size, w.Size)
		case w.Kind != g.Kind:
			line(2, "image %s, rebuilt %s", g.Kind, w.Kind)
		case what == "function" && w.Addr != g.Addr:
			// What lies elsewhere calls and loads by other distances: it differs
			// because others do.
			moved = true
		default:
			if n, at := count(w.Data, g.Data); n > 0 {
				how := "code, " + Plural(n, "byte")
				if what == "section" {
					how = fmt.Sprintf("content, %d of %s", n, Plural(int(w.Size), "byte"))
				}
				line(3, "other %s, the first at %#x", how, w.Addr+uint64(at))
			}
		}
	}
	for name, w := range want {
		if _, ok := got[name]; !ok {
			kinds[1] = append(kinds[1], fmt.Sprintf("%s %s: only in the rebuilt, %d bytes", what, short(name), w.Size))
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

// functions lists how the functions of two programs of one machine differ. Programs are
// stripped, but Go's table of functions is needed at run time and always there.
func functions(w, g map[string]gobinary.Part) []string {
	want, err := gobinary.Functions(w)
	if err != nil {
		return nil
	}
	got, err := gobinary.Functions(g)
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
