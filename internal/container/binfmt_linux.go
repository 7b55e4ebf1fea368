package container

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// openBinfmt opens the kernel's list of emulators and returns a folder to read it in,
// valid until it is closed. Where it is not mounted, as in a container on its own
// /proc, a privileged process sees it all the same, through a mount in no tree.
func openBinfmt() (dir string, closeIt func()) {
	if _, err := os.Stat(binfmtDir + "/status"); err == nil {
		return binfmtDir, func() {}
	}
	context, err := unix.Fsopen("binfmt_misc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return binfmtDir, func() {}
	}
	defer unix.Close(context)
	if err := unix.FsconfigCreate(context); err != nil {
		return binfmtDir, func() {}
	}
	mount, err := unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return binfmtDir, func() {}
	}
	return fmt.Sprintf("/proc/self/fd/%d", mount), func() { unix.Close(mount) }
}

// leave is a program of each architecture of compat that does nothing but end: exit(0).
var leave = map[string][]byte{
	"386": program32(elf.EM_386, 0xb8, 1, 0, 0, 0, 0x31, 0xdb, 0xcd, 0x80),             // mov $1, %eax; xor %ebx, %ebx; int $0x80
	"arm": program32(elf.EM_ARM, 0, 0, 0xa0, 0xe3, 1, 0x70, 0xa0, 0xe3, 0, 0, 0, 0xef), // mov r0, #0; mov r7, #1; svc 0
}

// program32 is an executable file for Linux on a little-endian processor of 32 bits.
func program32(machine elf.Machine, code ...byte) []byte {
	const base, header, segment = 0x10000, 52, 32
	size := uint32(header + segment + len(code))
	h := elf.Header32{
		Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT), Entry: base + header + segment,
		Phoff: header, Ehsize: header, Phentsize: segment, Phnum: 1,
	}
	copy(h.Ident[:], elf.ELFMAG+string([]byte{byte(elf.ELFCLASS32), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)}))
	if machine == elf.EM_ARM {
		h.Flags = 0x5000000 // EABI 5
	}
	p := elf.Prog32{Type: uint32(elf.PT_LOAD), Vaddr: base, Paddr: base, Filesz: size, Memsz: size, Flags: uint32(elf.PF_R | elf.PF_X), Align: 0x1000}
	var b bytes.Buffer
	for _, part := range []any{h, p, code} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil { // numbers of a fixed size
			panic(err)
		}
	}
	return b.Bytes()
}

// runs reports whether the kernel takes programs of an architecture of compat, by trying one.
func runs(arch string) bool {
	fd, err := unix.MemfdCreate("derper-"+arch, unix.MFD_CLOEXEC)
	if err != nil {
		return true // which shows when they are to run
	}
	file := os.NewFile(uintptr(fd), arch)
	defer file.Close()
	if _, err := file.Write(leave[arch]); err != nil {
		return true
	}
	cmd := exec.Command("/proc/self/fd/3")
	cmd.ExtraFiles = []*os.File{file}
	return !errors.Is(cmd.Run(), syscall.ENOEXEC)
}
