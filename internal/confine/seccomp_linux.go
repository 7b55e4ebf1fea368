package confine

import (
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// architectures are the kernel's names of those that a filter can be made for.
var architectures = map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}

// Where a filter finds what a system call is of.
// Source: struct seccomp_data, https://docs.kernel.org/userspace-api/seccomp_filter.html.
const (
	ofNumber = 0
	ofArch   = 4
	ofFirst  = 16 // argument; its lower half, where the lower one comes first
)

// x32 is a bit of the numbers of another set of system calls, which amd64 has besides.
const x32 = 0x40000000

// withoutSockets refuses this thread, and what it starts, sockets of the file system, which
// neither Landlock nor a namespace of networks keeps from it: Docker's gives away the machine,
// that of an SSH agent its keys. It reports whether it could.
func withoutSockets() (bool, error) {
	arch, ok := architectures[runtime.GOARCH]
	if !ok {
		return false, nil
	}
	const load, equal, atLeast, answer = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K,
		unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	filter := []unix.SockFilter{ // Jt and Jf are how many lines are skipped
		{Code: load, K: ofArch},
		{Code: equal, K: arch, Jf: 8},
		{Code: load, K: ofNumber},
		{Code: atLeast, K: x32, Jt: 6},
		{Code: equal, K: unix.SYS_IO_URING_SETUP, Jt: 5}, // has sockets of its own
		{Code: equal, K: unix.SYS_SOCKET, Jt: 1},
		{Code: equal, K: unix.SYS_SOCKETPAIR, Jf: 2}, // one of a pair may be connected anew
		{Code: load, K: ofFirst},
		{Code: equal, K: unix.AF_UNIX, Jt: 1},
		{Code: answer, K: unix.SECCOMP_RET_ALLOW},
		{Code: answer, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return false, os.NewSyscallError("prctl", err)
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program)))
	return errno == 0, nil // there are kernels without it
}
