package container

import (
	"encoding/json"
	"fmt"
	"math/bits"
	"runtime"
	"slices"
	"unsafe"

	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Docker's default lets programs of the image look into each other. A relay has no need of it.
var refusedCalls = []string{
	"ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd", "process_madvise", "process_mrelease",
}

// Sockets of other kinds have the kernel load code that hardly anybody uses.
var socketFamilies = []uint64{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}

// seccompProfile is what a container may ask of the kernel, in Docker's form: Docker's own default, less what is
// refused here, and without the calls of 32-bit programs unless the image is one of those.
func seccompProfile(imageArch string) ([]byte, error) {
	p := seccomp.DefaultProfile()
	if imageArch != "386" && imageArch != "arm" {
		for i := range p.ArchMap {
			p.ArchMap[i].SubArches = nil
		}
	}
	for _, s := range p.Syscalls {
		s.Names = slices.DeleteFunc(s.Names, func(name string) bool { return name == "socket" || slices.Contains(refusedCalls, name) })
	}
	p.Syscalls = slices.DeleteFunc(p.Syscalls, func(s *seccomp.Syscall) bool { return len(s.Names) == 0 })
	for _, family := range socketFamilies {
		p.Syscalls = append(p.Syscalls, &seccomp.Syscall{LinuxSyscall: specs.LinuxSyscall{
			Names: []string{"socket"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Value: family, Op: specs.OpEqualTo}},
		}})
	}
	return json.Marshal(p)
}

// seccompFilter is the profile as a program for the kernel. It knows the system calls of this machine, which an
// emulator makes, too. Those of compat are refused, as all others are, unless the image is for it.
func seccompFilter(imageArch string) ([]bpf.RawInstruction, error) {
	text, err := seccompProfile(imageArch)
	if err != nil {
		return nil, err
	}
	// Docker allows more to who has more capabilities. This is the one of ours that counts.
	profile, err := seccomp.LoadProfile(string(text), &specs.Spec{Process: &specs.Process{
		Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_SYS_CHROOT"}},
	}})
	if err != nil {
		return nil, err
	}
	arches := []string{runtime.GOARCH}
	if imageArch == compat[runtime.GOARCH] {
		arches = append(arches, imageArch)
	}
	var filter []bpf.Instruction
	for _, name := range arches {
		a, err := arch.GetInfo(name)
		if err != nil {
			return nil, fmt.Errorf("no filter of system calls is known for linux/%s: use the docker runner", name)
		}
		calls, err := seccompCalls(profile, a)
		if err != nil {
			return nil, err
		}
		filter = append(filter, bpf.LoadAbsolute{Off: seccompArch, Size: 4},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(a.ID), SkipTrue: 1}, bpf.Jump{Skip: uint32(len(calls))})
		filter = append(filter, calls...)
	}
	return bpf.Assemble(append(filter, refuse(unix.EPERM)))
}

// Where the kernel's struct seccomp_data has what a filter can see. Arguments have 64 bits, of which a filter loads 32.
const (
	seccompCall = 0
	seccompArch = 4
	seccompArgs = 16
)

func refuse(e unix.Errno) bpf.RetConstant {
	return bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(e)}
}

// seccompCalls is the part of a filter for one architecture. Each call has its own answer next to it, so that no jump is
// far.
func seccompCalls(profile *specs.LinuxSeccomp, a *arch.Info) ([]bpf.Instruction, error) {
	number := bpf.LoadAbsolute{Off: seccompCall, Size: 4}
	all := []bpf.Instruction{number}
	answer := func(name string, with ...bpf.Instruction) {
		if n, known := a.SyscallNames[name]; known {
			all = append(append(all, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(n), SkipFalse: uint8(len(with))}), with...)
		}
	}
	// Typing into a terminal, by whatever file. The kernel takes the lower half of the argument only.
	allow := bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}
	answer("ioctl", argument(1, false), bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.TIOCSTI, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: tiocLinux, SkipTrue: 1}, allow, refuse(unix.EPERM))
	for _, s := range profile.Syscalls {
		verdict := allow
		switch {
		case s.Action == specs.ActErrno && s.ErrnoRet != nil:
			verdict = refuse(unix.Errno(*s.ErrnoRet))
		case s.Action != specs.ActAllow:
			return nil, fmt.Errorf("seccomp profile: %s: action %s is not known here", s.Names, s.Action)
		}
		with := []bpf.Instruction{verdict}
		if len(s.Args) > 0 {
			arg := s.Args[0]
			equal := func(half uint64, skip uint8) bpf.JumpIf {
				return bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(half), SkipFalse: skip}
			}
			switch {
			case len(s.Args) == 1 && arg.Op == specs.OpEqualTo:
				with = []bpf.Instruction{argument(arg.Index, true), equal(arg.Value>>32, 3), argument(arg.Index, false), equal(arg.Value, 1), verdict, number}
			case len(s.Args) == 1 && arg.Op == specs.OpMaskedEqual && bits.Len64(arg.Value) <= 32:
				with = []bpf.Instruction{argument(arg.Index, false), bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: uint32(arg.Value)}, equal(arg.ValueTwo, 1), verdict, number}
			default:
				return nil, fmt.Errorf("seccomp profile: %s: arguments %v are not known here", s.Names, s.Args)
			}
		}
		for _, name := range s.Names {
			answer(name, with...)
		}
	}
	return append(all, refuse(unix.EPERM)), nil
}

// tiocLinux is TIOCLINUX of linux/tiocl.h, which pastes into a console.
const tiocLinux = 0x541c

// argument loads a half of an argument. Machines with a filter here are little-endian.
func argument(index uint, high bool) bpf.LoadAbsolute {
	off := seccompArgs + 8*uint32(index)
	if high {
		off += 4
	}
	return bpf.LoadAbsolute{Off: off, Size: 4}
}

// install has the kernel apply a filter to this thread, and to what becomes of it.
func install(filter []bpf.RawInstruction) error {
	var program []unix.SockFilter
	for _, i := range filter {
		program = append(program, unix.SockFilter{Code: i.Op, Jt: i.Jt, Jf: i.Jf, K: i.K})
	}
	p := &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if _, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(p))); e != 0 {
		return e
	}
	runtime.KeepAlive(program)
	return nil
}
