// Package elftest makes programs that harm whoever takes them apart, of programs that Go
// compiled for a machine of 64 bits, for tests.
package elftest

import (
	"bytes"
	"debug/elf"
	"slices"
	"testing"
)

// Functions is a program whose table of functions says that it has n of them: debug/gosym
// asks for 104 bytes and more for each.
func Functions(t testing.TB, program []byte, n uint32) []byte {
	t.Helper()
	return change(t, program, func(f *elf.File, _, table []byte) { f.ByteOrder.PutUint32(table[8:], n) })
}

// Names is a program in which the name of each function has 40 MiB.
func Names(t testing.TB, program []byte) []byte {
	t.Helper()
	long := append(bytes.Repeat([]byte("a"), 40<<20), 0)
	program = append(bytes.Clone(program), long...)
	return change(t, program, func(f *elf.File, program, table []byte) {
		// The table is the rest of the file, and the names are the end of it, less some for
		// where in the names each begins.
		i := slices.IndexFunc(f.Sections, func(s *elf.Section) bool { return s.Name == ".gopclntab" })
		at := f.Sections[i].Offset
		head := program[f.ByteOrder.Uint64(program[40:]):][i*int(f.ByteOrder.Uint16(program[58:])):] // e_shoff, e_shentsize
		f.ByteOrder.PutUint64(head[32:], uint64(len(program))-at)                                    // sh_size
		f.ByteOrder.PutUint64(table[8+3*8:], uint64(len(program)-len(long))-at)
	})
}

// Sections is a program with another number of sections.
func Sections(t testing.TB, program []byte, n uint16) []byte {
	t.Helper()
	return change(t, program, func(f *elf.File, program, _ []byte) { f.ByteOrder.PutUint16(program[60:], n) }) // e_shnum
}

// change changes a copy of a program, and its table of functions in it.
func change(t testing.TB, program []byte, edit func(f *elf.File, program, table []byte)) []byte {
	t.Helper()
	program = bytes.Clone(program)
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		t.Fatal(err)
	}
	s := f.Section(".gopclntab")
	if s == nil || f.Class != elf.ELFCLASS64 {
		t.Fatal("not a program of 64 bits with a .gopclntab")
	}
	edit(f, program, program[s.Offset:][:s.FileSize])
	return program
}
