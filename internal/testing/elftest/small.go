package elftest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
)

// smallText is where the code of a Small is in memory, and smallHead the size of what
// precedes it in the file.
const (
	smallText = 0x400000
	smallHead = 64 + 56
)

// SmallTable is a table of two functions of 16 bytes each, in the form of Go 1.20.
// Source: debug/gosym, (*LineTable).parsePclnTab.
var SmallTable = func() []byte {
	names := "runtime.main\x00main.main\x00"
	const head = 8 + 8*8
	at := uint64(head + len(names))
	var b bytes.Buffer
	put := func(values ...any) {
		for _, v := range values {
			binary.Write(&b, binary.LittleEndian, v) // writing to memory does not fail
		}
	}
	put(uint32(0xfffffff1), []byte{0, 0, 1, 8})
	put([]uint64{2, 0, smallText + smallHead, head, at, at, at, at})
	b.WriteString(names)
	// Where each begins, and where what is said of it does; the end of the last.
	const functab, each = (2*2 + 1) * 4, 11 * 4
	put([]uint32{0, functab, 16, functab + each, 32})
	put([11]uint32{0, 0}, [11]uint32{16, uint32(len("runtime.main\x00"))})
	return b.Bytes()
}()

// SmallInfo is the build information of a program, as go version -m prints it.
var SmallInfo = []byte("path\ttailscale.com/cmd/derper\nmod\ttailscale.com\tv1.102.3\th1:M1czCAtMuIcg+2Z+FBPbJyAk3ZEQGEFKnvHthtE1c6M=\n" +
	"dep\tgo4.org/mem\tv0.1.0\th1:M1czCAtMuIcg+2Z+FBPbJyAk3ZEQGEFKnvHthtE1c6M=\nbuild\t-ldflags=\"-s -w\"\n")

// Small is the smallest program that is one for debug/elf, debug/buildinfo and
// debug/gosym: an ELF file with code, a table of functions and build information. Programs
// of the compiler have a megabyte, and take a thousand times as long to take apart.
// Source: System V ABI, chapters 4 and 5; debug/buildinfo.
func Small(table, info []byte) []byte {
	const framing = "0123456789abcdef" // the Go command puts 16 bytes before and after
	build := []byte("\xff Go buildinf:\x08\x02" + "0123456789abcdef")
	for _, s := range []string{"go1.26.8", framing + string(info) + framing} {
		build = append(binary.AppendUvarint(build, uint64(len(s))), s...)
	}
	sections := []struct {
		name    string
		content []byte
	}{
		{"", nil}, {".text", bytes.Repeat([]byte{0xcc}, 32)}, {".gopclntab", table}, {".go.buildinfo", build}, {".shstrtab", nil},
	}
	var body bytes.Buffer
	var names []byte
	var headers []elf.Section64
	for _, s := range sections {
		for (smallHead+body.Len())%16 != 0 && s.name != ".text" {
			body.WriteByte(0)
		}
		h := elf.Section64{Name: uint32(len(names)), Type: uint32(elf.SHT_PROGBITS), Flags: uint64(elf.SHF_ALLOC)}
		names = append(names, s.name+"\x00"...)
		if s.name == ".shstrtab" {
			s.content, h.Type = names, uint32(elf.SHT_STRTAB)
		}
		if h.Off = uint64(smallHead + body.Len()); s.name == "" {
			h = elf.Section64{}
		}
		h.Addr, h.Size = smallText+h.Off, uint64(len(s.content))
		headers = append(headers, h)
		body.Write(s.content)
	}
	end := uint64(smallHead + body.Len())
	var b bytes.Buffer
	for _, v := range []any{
		elf.Header64{
			Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1},
			Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Entry: smallText + smallHead,
			Phoff: 64, Shoff: end, Ehsize: 64, Phentsize: 56, Phnum: 1, Shentsize: 64, Shnum: uint16(len(headers)), Shstrndx: uint16(len(headers) - 1),
		},
		elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: smallText, Paddr: smallText, Filesz: end, Memsz: end, Align: 4096},
		body.Bytes(), headers,
	} {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			panic(fmt.Sprint("Small: ", err))
		}
	}
	return b.Bytes()
}
