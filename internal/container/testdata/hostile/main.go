// Hostile is the program in an image that means harm. It tries what a container must not be able to do to the machine
// that it runs on, and says how each attempt went.
package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attempt is one; no error means that it worked.
type attempt struct {
	name string
	try  func() error
}

func init() {
	if runtime.GOARCH != "386" { // whose socketcall has its arguments where no filter can see them
		attempts = append(attempts, []attempt{
			{"socket of AF_PACKET", socket(unix.AF_PACKET, unix.SOCK_RAW)},
			{"socket of AF_VSOCK", socket(unix.AF_VSOCK, unix.SOCK_STREAM)},
		}...)
	}
}

// orKilled ends this process if the kernel kills the thread that makes an attempt, and no other.
func orKilled(thread int) {
	for {
		b, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/stat", thread))
		if err != nil || strings.Contains(string(b), ") Z ") {
			fmt.Println("killed")
			os.Exit(3)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Without an argument, it makes each attempt in a process of its own, which the kernel may kill for it.
func main() {
	runtime.LockOSThread()
	if len(os.Args) == 2 && os.Args[1] == "wait" {
		time.Sleep(time.Hour)
	}
	if len(os.Args) == 3 && os.Args[1] == "try" {
		go orKilled(unix.Gettid())
		for _, a := range attempts {
			if a.name == os.Args[2] {
				if err := a.try(); err != nil {
					fmt.Println(err)
					os.Exit(3)
				}
				os.Exit(0)
			}
		}
		os.Exit(2)
	}
	for _, a := range attempts {
		cmd := exec.Command("/proc/self/exe", "try", a.name)
		out, err := cmd.Output()
		why := strings.TrimSpace(string(out))
		switch exit := (*exec.ExitError)(nil); {
		case err == nil:
			why = "DONE"
		case errors.As(err, &exit) && exit.ExitCode() != 3:
			why = err.Error()
		}
		fmt.Printf("%s\t%s\n", a.name, why)
	}
	fmt.Println("end")
}

// call makes a system call.
func call(number uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	if _, _, e := syscall.Syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5]); e != 0 {
		return e
	}
	return nil
}

// reached is for calls that must not get as far as to look at their arguments.
func reached(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSYS) {
		return err
	}
	return nil
}

func pointer(s string) uintptr {
	p, _ := syscall.BytePtrFromString(s)
	kept = append(kept, p)
	return uintptr(unsafe.Pointer(p))
}

var kept []*byte

// opens succeeds if one of the files can be opened.
func opens(flags int, names ...string) func() error {
	return func() error {
		err := errors.New("no such file")
		for _, n := range names {
			var f *os.File
			if f, err = os.OpenFile(n, flags|syscall.O_NONBLOCK, 0); err == nil {
				f.Close()
				return nil
			}
		}
		return err
	}
}

// has succeeds if there is something to read in a file. Docker covers what it hides with /dev/null.
func has(name string) func() error {
	return func() error {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		_, err = f.Read(make([]byte, 100))
		return err
	}
}

func device(name string, mode, number, flags int) func() error {
	return func() error {
		defer os.Remove(name)
		if err := syscall.Mknod(name, uint32(mode)|0o666, number); err != nil {
			return err
		}
		return opens(flags, name)()
	}
}

func types(fd int, command uintptr) error {
	c := byte('x')
	return call(unix.SYS_IOCTL, uintptr(fd), command, uintptr(unsafe.Pointer(&c)))
}

// typesIntoAny tries every file that is open.
func typesIntoAny(command uintptr) func() error {
	return func() (err error) {
		for fd := range 3 {
			if err = types(fd, command); err == nil {
				return nil
			}
		}
		return err
	}
}

func socket(family, kind int) func() error {
	return func() error {
		_, err := unix.Socket(family, kind, 0)
		return err
	}
}

func dials(network, variable string) func() error {
	return func() error {
		c, err := net.Dial(network, os.Getenv(variable))
		if err == nil {
			c.Close()
		}
		return err
	}
}

// home is a file of the machine that no container is given.
var home = os.Getenv("HOSTILE_MARKER")

var attempts = []attempt{
	{"a file of the host by its name", opens(os.O_RDONLY, home, strings.Repeat("../", 20)+home, "/.host"+home, "/proc/1/root"+home, "/proc/1/cwd"+home)},
	{"a file of the host by an inherited folder", func() error {
		for fd := 3; fd < 64; fd++ {
			f, err := unix.Openat(fd, strings.Repeat("../", 20)+home, unix.O_RDONLY, 0)
			if err == nil {
				unix.Close(f)
				return nil
			}
		}
		return errors.New("no such folder")
	}},
	{"a file of the host by leaving a chroot", func() error {
		os.Mkdir("/tmp/hole", 0o755)
		out, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err == nil {
			err = unix.Chroot("/tmp/hole")
		}
		if err == nil {
			err = unix.Fchdir(out)
		}
		if err != nil {
			return err
		}
		for range 30 {
			os.Chdir("..")
		}
		if err := unix.Chroot("."); err != nil {
			return err
		}
		return opens(os.O_RDONLY, home)()
	}},
	{"read a loop device", device("/tmp/loop", syscall.S_IFBLK, 7<<8, os.O_RDONLY)},
	{"write a loop device", device("/tmp/loop", syscall.S_IFBLK, 7<<8, os.O_RDWR)},
	{"make a device in a volume", device("/data/loop", syscall.S_IFBLK, 7<<8, os.O_RDONLY)},
	{"read the memory of the machine", device("/tmp/mem", syscall.S_IFCHR, 1<<8|1, os.O_RDONLY)},
	{"write the log of the kernel", device("/tmp/kmsg", syscall.S_IFCHR, 1<<8|11, os.O_WRONLY)},
	{"a block device in /dev", func() error {
		names, _ := filepath.Glob("/dev/*")
		for _, n := range names {
			if info, err := os.Lstat(n); err == nil && info.Mode()&(os.ModeDevice|os.ModeCharDevice) == os.ModeDevice {
				return nil
			}
		}
		return errors.New("none")
	}},
	{"the device of the image", opens(os.O_RDWR, "/loop0")},
	{"open /dev/tty", opens(os.O_RDWR, "/dev/tty")},
	{"type into a terminal", typesIntoAny(unix.TIOCSTI)},
	{"type into a terminal, 64 bits", typesIntoAny(^uintptr(0) ^ 0xffffffff | unix.TIOCSTI)},
	{"paste into a console", typesIntoAny(0x541c)},
	{"type into /dev/tty", func() error {
		f, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
		if err != nil {
			return err
		}
		return types(int(f.Fd()), unix.TIOCSTI)
	}},
	{"processes of the host", func() error {
		names, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, n := range names {
			b, err := os.ReadFile(n)
			if args := string(b); err == nil && args != "" && !strings.HasPrefix(args, "guest") && !strings.Contains(args, "/proc/self/exe") && !strings.HasPrefix(args, "derper-container-") && !strings.HasPrefix(args, "runc") {
				return nil
			}
		}
		return errors.New("none")
	}},
	{"/proc/kcore", has("/proc/kcore")},
	{"/proc/keys", has("/proc/keys")},
	{"/proc/timer_list", has("/proc/timer_list")},
	{"/proc/sysrq-trigger", opens(os.O_WRONLY, "/proc/sysrq-trigger")},
	{"/proc/sys/kernel/core_pattern", opens(os.O_WRONLY, "/proc/sys/kernel/core_pattern")},
	{"/proc/sys/fs/binfmt_misc/register", opens(os.O_WRONLY, "/proc/sys/fs/binfmt_misc/register")},
	{"/proc/sys/net/ipv4/ip_forward", opens(os.O_WRONLY, "/proc/sys/net/ipv4/ip_forward")},
	{"/sys", opens(os.O_WRONLY, "/sys/kernel/uevent_helper", "/sys/kernel/mm/ksm/run", "/sys/power/state", "/sys/fs/cgroup/cgroup.procs")},
	{"write a read-only volume", opens(os.O_RDWR, "/ro/marker")},
	{"mount", func() error { return unix.Mount("tmpfs", "/tmp", "tmpfs", 0, "") }},
	{"mount a cgroup", func() error { return unix.Mount("cgroup", "/tmp", "cgroup", 0, "memory") }},
	{"mount a volume for writing", func() error { return unix.Mount("", "/ro", "", unix.MS_BIND|unix.MS_REMOUNT, "") }},
	{"mount /proc/sys for writing", func() error { return unix.Mount("", "/proc/sys", "", unix.MS_BIND|unix.MS_REMOUNT, "") }},
	{"unmount /proc/sys", func() error { return unix.Unmount("/proc/sys", unix.MNT_DETACH) }},
	{"fsopen", func() error { return call(unix.SYS_FSOPEN, pointer("tmpfs"), 0) }},
	{"open_tree", func() error { _, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE); return err }},
	{"move_mount", func() error { return reached(call(unix.SYS_MOVE_MOUNT)) }},
	{"mount_setattr", func() error { return reached(call(unix.SYS_MOUNT_SETATTR)) }},
	{"pivot_root", func() error { return reached(call(unix.SYS_PIVOT_ROOT, pointer("/tmp"), pointer("/tmp"))) }},
	{"unshare a user namespace", func() error { return unix.Unshare(unix.CLONE_NEWUSER) }},
	{"unshare mounts", func() error { return unix.Unshare(unix.CLONE_NEWNS) }},
	{"clone into a user namespace", func() error {
		cmd := exec.Command("/proc/self/exe", "try", "nothing")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}
		return cmd.Start()
	}},
	{"clone3", func() error { return reached(call(unix.SYS_CLONE3)) }},
	{"setns", func() error { return reached(call(unix.SYS_SETNS, ^uintptr(0), 0)) }},
	{"ptrace", func() error { return call(unix.SYS_PTRACE, unix.PTRACE_TRACEME) }},
	{"process_vm_readv", func() error { return reached(call(unix.SYS_PROCESS_VM_READV, uintptr(os.Getpid()))) }},
	{"process_vm_writev", func() error { return reached(call(unix.SYS_PROCESS_VM_WRITEV, uintptr(os.Getpid()))) }},
	{"pidfd_getfd", func() error { return reached(call(unix.SYS_PIDFD_GETFD, ^uintptr(0))) }},
	{"open_by_handle_at", func() error { return reached(call(unix.SYS_OPEN_BY_HANDLE_AT, ^uintptr(0))) }},
	{"keyctl", func() error { return call(unix.SYS_KEYCTL, 0, ^uintptr(2), 0) }},
	{"add_key", func() error { return reached(call(unix.SYS_ADD_KEY)) }},
	{"bpf", func() error { return reached(call(unix.SYS_BPF, 0)) }},
	{"perf_event_open", func() error { return reached(call(unix.SYS_PERF_EVENT_OPEN)) }},
	{"io_uring_setup", func() error { return reached(call(unix.SYS_IO_URING_SETUP, 1)) }},
	{"userfaultfd", func() error { return call(unix.SYS_USERFAULTFD, 0) }},
	{"init_module", func() error { return reached(call(unix.SYS_INIT_MODULE)) }},
	{"kexec_load", func() error { return reached(call(unix.SYS_KEXEC_LOAD)) }},
	{"the log of the kernel", func() error { return call(unix.SYS_SYSLOG, 10) }},
	{"set the clock", func() error { return reached(call(unix.SYS_SETTIMEOFDAY, 1)) }},
	{"set the host name", func() error { return reached(call(unix.SYS_SETHOSTNAME, 0, ^uintptr(0))) }},
	{"swapon", func() error { return reached(call(unix.SYS_SWAPON)) }},
	{"acct", func() error { return reached(call(unix.SYS_ACCT, 1)) }},
	{"quotactl", func() error { return reached(call(unix.SYS_QUOTACTL)) }},
	{"socket of AF_ALG", socket(unix.AF_ALG, unix.SOCK_SEQPACKET)},
	{"a named socket of the host", dials("unix", "HOSTILE_SOCKET")},
	{"a port of the host", dials("tcp", "HOSTILE_PORT")},
	{"the program of the runner, while it starts others", func() error {
		err := errors.New("not seen")
		for range 3000 {
			names, _ := filepath.Glob("/proc/[0-9]*/exe")
			for _, n := range names {
				to, lerr := os.Readlink(n)
				if lerr != nil || strings.HasPrefix(to, "/bin/") {
					continue
				}
				if err = opens(os.O_WRONLY, n)(); err == nil {
					return nil
				}
			}
		}
		return err
	}},
}
