// Package gobinary reads what compiled Go programs are made of: sections, functions, and
// what each package that is linked takes of the file.
//
// A program may come from anywhere. What takes one apart runs as a [Job], in a process with
// bounds, and errors and names are harmless on a terminal.
package gobinary

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"debug/gosym"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/xavieralpha/derper/entrypoint/printable"
)

// A File is a compiled program.
type File struct {
	Data []byte
	ELF  *elf.File
	Info *debug.BuildInfo
}

// Parse parses a program of which nothing is known: debug/elf and debug/buildinfo do not
// promise not to panic.
func Parse(data []byte) (f *File, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("malformed: %v", r)
		}
	}()
	f = &File{Data: data}
	if f.ELF, err = elf.NewFile(bytes.NewReader(data)); err != nil {
		return nil, err
	}
	if f.Info, err = buildinfo.Read(bytes.NewReader(data)); err != nil {
		return nil, errors.New("no Go build information in it")
	}
	return f, nil
}

// A Part is a section or a function of a program.
type Part struct {
	Kind string // of a section
	Addr uint64
	Size uint64
	Data []byte // as far as the program has it
}

// Sections are the sections of a program by name.
func (f *File) Sections() map[string]Part {
	m := map[string]Part{}
	for i := len(f.ELF.Sections) - 1; i >= 0; i-- { // of one name, the first counts
		s := f.ELF.Sections[i]
		var data []byte
		if s.Type != elf.SHT_NOBITS {
			data = f.Data[min(s.Offset, uint64(len(f.Data))):]
			data = data[:min(s.FileSize, uint64(len(data)))]
		}
		if s.Type != elf.SHT_NULL {
			m[s.Name] = Part{s.Type.String(), s.Addr, s.Size, data}
		}
	}
	return m
}

// table is the table of functions. Programs are stripped, but it is needed at run time and
// always there.
func table(sections map[string]Part) (name string, data []byte) {
	for _, name := range []string{".gopclntab", ".data.rel.ro.gopclntab"} {
		if data := sections[name].Data; data != nil {
			return name, data
		}
	}
	return "", nil
}

// symbols are the functions of a program with these sections, in the order of its table.
func symbols(sections map[string]Part) ([]gosym.Func, error) {
	text, ok := sections[".text"]
	_, table := table(sections)
	if !ok || len(table) < 16 {
		return nil, errors.New("no .text or no .gopclntab")
	}
	// debug/gosym believes what the table says of its length. Each function has two
	// numbers of 4 bytes there.
	if n := functionCount(table); uint64(n)*8 > uint64(len(table)) {
		return nil, fmt.Errorf("its .gopclntab of %d bytes says that it has %d functions", len(table), n)
	}
	symbols, err := gosym.NewTable(nil, gosym.NewLineTable(table, text.Addr))
	if err != nil {
		return nil, err
	}
	return symbols.Funcs, nil
}

// within reports whether a function lies in the program's code.
func within(fn gosym.Func, text Part) bool {
	return fn.Sym != nil && fn.Entry >= text.Addr && fn.Entry <= fn.End && fn.End <= text.Addr+uint64(len(text.Data))
}

// Functions are the functions of a program with these sections, by name.
func Functions(sections map[string]Part) (map[string]Part, error) {
	list, err := symbols(sections)
	if err != nil {
		return nil, err
	}
	m, text := map[string]Part{}, sections[".text"]
	for _, fn := range list {
		if within(fn, text) {
			m[fn.Name] = Part{"", fn.Entry, fn.End - fn.Entry, text.Data[fn.Entry-text.Addr : fn.End-text.Addr]}
		}
	}
	if len(m) == 0 {
		return nil, errors.New("it names no function")
	}
	return m, nil
}

// orderOf is the byte order that a table of functions names, which need not be that of the
// ELF file that it is in.
func orderOf(table []byte) binary.ByteOrder {
	if table[0] == 0xff { // the magic number is 0xfffffff0 to 0xfffffffb
		return binary.BigEndian
	}
	return binary.LittleEndian
}

// functionCount is how many functions a Go program's table says that it has, as debug/gosym
// reads it: in the byte order and with the size of a pointer that the table names.
//
// Source: debug/gosym, (*LineTable).parsePclnTab.
func functionCount(table []byte) uint32 {
	if len(table) < 16 {
		return 0
	}
	if table[7] == 4 {
		return orderOf(table).Uint32(table[8:])
	}
	return uint32(orderOf(table).Uint64(table[8:]))
}

// short is a value for a message: printable, and not endless.
func short(s string) string {
	const limit = 200
	if len(s) > limit {
		s = s[:limit] + "…"
	}
	return printable.Line(s)
}
