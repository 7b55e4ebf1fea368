package diff

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"strings"
)

// elfHead is how much of a file machineOf needs, in bytes.
const elfHead = 20

// machineOf is the architecture that a compiled program is for, in Go's words, and ""
// for a file that is none.
// Source: the ELF header, System V ABI chapter 4.
func machineOf(head []byte) string {
	if len(head) < elfHead || !bytes.HasPrefix(head, []byte(elf.ELFMAG)) {
		return ""
	}
	var order binary.ByteOrder = binary.LittleEndian
	big := elf.Data(head[elf.EI_DATA]) == elf.ELFDATA2MSB
	if big {
		order = binary.BigEndian
	}
	wide := elf.Class(head[elf.EI_CLASS]) == elf.ELFCLASS64
	switch m := elf.Machine(order.Uint16(head[18:])); {
	case m == elf.EM_X86_64:
		return "amd64"
	case m == elf.EM_386:
		return "386"
	case m == elf.EM_AARCH64:
		return "arm64"
	case m == elf.EM_ARM:
		return "arm"
	case m == elf.EM_PPC64 && big:
		return "ppc64"
	case m == elf.EM_PPC64:
		return "ppc64le"
	case m == elf.EM_RISCV && wide:
		return "riscv64"
	case m == elf.EM_S390:
		return "s390x"
	case m == elf.EM_LOONGARCH:
		return "loong64"
	default:
		return strings.ToLower(strings.TrimPrefix(m.String(), "EM_"))
	}
}
