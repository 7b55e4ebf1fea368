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
	if elf.Data(head[elf.EI_DATA]) == elf.ELFDATA2MSB {
		order = binary.BigEndian
	}
	m := elf.Machine(order.Uint16(head[18:]))
	switch name, ok := machines[m]; {
	case m == elf.EM_PPC64 && order == binary.LittleEndian:
		return "ppc64le"
	case ok && (m != elf.EM_RISCV || elf.Class(head[elf.EI_CLASS]) == elf.ELFCLASS64):
		return name
	}
	return strings.ToLower(strings.TrimPrefix(m.String(), "EM_"))
}

// machines are those that Go has another name for.
var machines = map[elf.Machine]string{
	elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64", elf.EM_RISCV: "riscv64", elf.EM_S390: "s390x", elf.EM_LOONGARCH: "loong64",
}
