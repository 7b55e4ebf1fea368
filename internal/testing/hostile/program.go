package hostile

import (
	"bytes"
	"debug/elf"
	"debug/gosym"
	"encoding/binary"
	"path"
	"slices"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/testing/elftest"
)

// Derper is the name of derper's program in its layer.
const Derper = "usr/local/bin/derper"

// Programs are attacks on what a program is.
var Programs = []Attack{
	program("one byte of code", func(t testing.TB, b []byte) []byte { return Flip(t, b, "main.main") }),
	program("one byte of data", func(t testing.TB, b []byte) []byte {
		return replaced(t, "all goroutines are asleep", "all goroutines are asleeq")(b)
	}),
	program("bytes behind the program", func(_ testing.TB, b []byte) []byte { return append(b, "evil"...) }),
	program("a script in place of the program", func(testing.TB, []byte) []byte { return []byte("#!/bin/sh\nexec evil\n") }),
	program("no program at all", func(testing.TB, []byte) []byte { return nil }),
	program("half of the program", func(_ testing.TB, b []byte) []byte { return b[:len(b)/2] }),
	program("a header that names 65,535 sections", func(t testing.TB, b []byte) []byte { return elftest.Sections(t, b, 0xffff) }),
	program("sections far behind the end", func(_ testing.TB, b []byte) []byte {
		binary.LittleEndian.PutUint64(b[0x28:], 1<<62) // e_shoff
		return b
	}),
	program("a function table of 2^31 entries", func(t testing.TB, b []byte) []byte { return elftest.Functions(t, b, 1<<31) }),
	program("functions with names of 40 MiB", elftest.Names),
	program("functions whose names are far behind the end", func(t testing.TB, b []byte) []byte {
		at := section(t, b, ".gopclntab").Offset + 32 // funcnameOffset
		binary.LittleEndian.PutUint64(b[at:], 1<<61)
		return b
	}),
	{Name: "another entrypoint", Make: func(t testing.TB, g *Good) *Content {
		return g.With(t, g.Edit(t, "entrypoint", Replace("entrypoint", func(b []byte) []byte { return Flip(t, b, "main.main") })))
	}},
	{Name: "tailscaled in the place of derper", Make: func(t testing.TB, g *Good) *Content {
		var other []byte
		for _, l := range g.Layers(t) {
			if l.Name == "tailscaled" {
				list := Parts(t, l)
				i := slices.IndexFunc(list, func(p Part) bool { return p.Header.Name == path.Join(path.Dir(Derper), l.Name) })
				other = list[i].Content
			}
		}
		return g.With(t, g.Edit(t, "derper", Replace(Derper, func([]byte) []byte { return other })))
	}},
	{Name: "the program of another platform", Make: func(t testing.TB, g *Good) *Content {
		layers := g.Layers(t)
		list, err := g.Images[1].Layers()
		check(t, err)
		other := *layers[2]
		digest, err := list[2].Digest()
		check(t, err)
		diffID, err := list[2].DiffID()
		check(t, err)
		other.Layer.Digest, other.Layer.DiffID, other.Open = digest.String(), diffID.String(), list[2].Compressed
		other.Bytes, err = list[2].Size()
		check(t, err)
		layers[2] = &other
		return g.With(t, g.Image(t, layers))
	}},
	{Name: "all of another platform's image", Make: func(t testing.TB, g *Good) *Content {
		return g.Of(t, g.Platforms[:2], []v1.Image{g.Images[1], g.Images[1]})
	}},
}

// program is an attack with another derper.
func program(name string, change func(testing.TB, []byte) []byte) Attack {
	return Attack{Name: name, Make: func(t testing.TB, g *Good) *Content {
		return g.With(t, g.Edit(t, "derper", Replace(Derper, func(b []byte) []byte { return change(t, b) })))
	}}
}

// Flip changes one byte in the middle of a function of a compiled program.
func Flip(t testing.TB, program []byte, function string) []byte {
	t.Helper()
	text := section(t, program, ".text")
	table, err := section(t, program, ".gopclntab").Data()
	check(t, err)
	symbols, err := gosym.NewTable(nil, gosym.NewLineTable(table, text.Addr))
	check(t, err)
	fn := symbols.LookupFunc(function)
	program[fn.Entry-text.Addr+text.Offset+(fn.End-fn.Entry)/2] ^= 1
	return program
}

func section(t testing.TB, program []byte, name string) *elf.Section {
	t.Helper()
	file, err := elf.NewFile(bytes.NewReader(program))
	check(t, err)
	s := file.Section(name)
	if s == nil {
		t.Fatalf("the program has no %s", name)
	}
	return s
}
