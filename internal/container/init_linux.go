package container

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// config is what the shim and process 1 need to know.
type config struct {
	Spec           // but for the image
	Dir     string // of the run; the image is unpacked in rootfs
	Process process
	UserNS  bool // not root: in a user namespace of one user, who is Process.UID there
	Join    bool // the container is there, and this is one more program in it
}

// command is this program as it becomes one of the image's, or says in the first of its files why it cannot. Whoever
// starts it keeps its thread until it ends: see dieWithShim.
func (c config) command(ctx context.Context, stdout, stderr *os.File, files ...*os.File) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args, cmd.Env = []string{initName}, []string{c.variable()}
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = stdout, stderr, files
	cmd.SysProcAttr = &syscall.SysProcAttr{AmbientCaps: c.ambient()}
	return cmd
}

// variable hands the config to another process of this program.
func (c config) variable() string {
	b, err := json.Marshal(c)
	if err != nil {
		panic(err) // it is strings and numbers
	}
	return configEnv + "=" + string(b)
}

// ambient are the capabilities that must be carried over from one of our programs to the next: in a user namespace
// whose user is not 0 they would be lost. The image's program gets none of them.
func (c config) ambient() (caps []uintptr) {
	if c.UserNS {
		for i := range lastCap() + 1 {
			caps = append(caps, uintptr(i))
		}
	}
	return caps
}

// lastCap is the highest capability that the kernel knows.
func lastCap() int {
	for i := 0; ; i++ {
		if unix.Prctl(unix.PR_CAPBSET_READ, uintptr(i), 0, 0, 0) != nil {
			return i - 1
		}
	}
}

// usualCaps are those that Docker leaves to a container.
var usualCaps = []int{
	unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FSETID, unix.CAP_FOWNER, unix.CAP_MKNOD, unix.CAP_NET_RAW,
	unix.CAP_SETGID, unix.CAP_SETUID, unix.CAP_SETFCAP, unix.CAP_SETPCAP, unix.CAP_NET_BIND_SERVICE, unix.CAP_SYS_CHROOT,
	unix.CAP_KILL, unix.CAP_AUDIT_WRITE,
}

// initMain is the main function of process 1, and of other programs in the container until they are the image's. What
// goes wrong is written to file 3. File 4 of the others is process 1.
func initMain(cfg config) error {
	unix.CloseOnExec(3)
	enter := cfg.mount
	if cfg.Join {
		unix.CloseOnExec(4)
		enter = join
	}
	var err error
	for _, do := range []func() error{dieWithShim, enter, cfg.become} {
		if err = do(); err != nil {
			break
		}
	}
	fmt.Fprintln(os.NewFile(3, "errors"), err)
	os.Exit(127) // as Docker and shells have it
	return nil
}

// dieWithShim has the kernel kill this process when the thread of the shim that started it ends: that is the shim's
// first, which lasts as long as it, or one that waits for this process. Os/exec cannot do it: it takes a parent whose
// number it does not see, because it is in another process namespace, for one that is dead already.
func dieWithShim() error {
	return unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
}

// join puts this thread where process 1 has its files. It is not done before: here the system may find this program's
// own libraries no more.
func join() error {
	err := unix.Unshare(unix.CLONE_FS) // threads share root and working directory
	if err == nil {
		err = unix.Setns(4, unix.CLONE_NEWNS)
	}
	if err != nil {
		return fmt.Errorf("enter the container: %w", err)
	}
	return nil
}

// oldRoot is where this machine's files are while the container's are being mounted.
const oldRoot = "/.host"

// mount makes the image's file system the root, with what is written to it kept in memory.
func (c config) mount() error {
	type m struct {
		source, target, fstype string
		flags                  uintptr
		data                   string
	}
	do := func(ms ...m) error {
		for _, m := range ms {
			if err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
				return fmt.Errorf("mount %s: %w", m.target, err)
			}
		}
		return nil
	}
	if err := os.Chdir(c.Dir); err != nil { // overlay takes relative names, so none needs escaping
		return err
	}
	if err := do(m{"", "/", "", unix.MS_REC | unix.MS_PRIVATE, ""}, m{"tmpfs", "run", "tmpfs", 0, "mode=755"}); err != nil {
		return err
	}
	for _, d := range []string{"run/upper", "run/work", "run/root"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	data := "lowerdir=rootfs,upperdir=run/upper,workdir=run/work"
	if c.UserNS {
		data += ",userxattr"
	}
	if err := do(m{"overlay", "run/root", "overlay", 0, data}); err != nil {
		return err
	}
	if err := os.Mkdir("run/root"+oldRoot, 0o700); err != nil {
		return err
	}
	if err := os.Chdir("run/root"); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."+oldRoot); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	// From here on every name is the container's, and no link in the image can lead out of it.
	for _, d := range append([]string{"/proc", "/dev", "/etc", c.Process.Dir}, c.Tmpfs...) {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if err := do(
		m{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		m{"/proc/sys", "/proc/sys", "", unix.MS_BIND | unix.MS_REC, ""},
		m{"", "/proc/sys", "", unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		m{"tmpfs", "/dev", "tmpfs", unix.MS_NOSUID, "mode=755"},
	); err != nil {
		return err
	}
	for _, d := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		if err := touch("/dev/" + d); err != nil {
			return err
		}
		if err := do(m{oldRoot + "/dev/" + d, "/dev/" + d, "", unix.MS_BIND, ""}); err != nil {
			return err
		}
	}
	for name, to := range map[string]string{"fd": "fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"} {
		if err := os.Symlink("/proc/self/"+to, "/dev/"+name); err != nil {
			return err
		}
	}
	for _, d := range c.Tmpfs {
		if err := do(m{"tmpfs", d, "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"}); err != nil {
			return err
		}
	}
	if err := c.writeEtc(); err != nil {
		return err
	}
	for _, v := range c.Volumes {
		if err := mountPoint(oldRoot+v.Host, v.Container); err != nil {
			return fmt.Errorf("volume %s: %w", v.Container, err)
		}
		if err := do(m{oldRoot + v.Host, v.Container, "", unix.MS_BIND | unix.MS_REC, ""}); err != nil {
			return err
		}
		if v.ReadOnly {
			if err := unix.MountSetattr(-1, v.Container, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
				return fmt.Errorf("volume %s: read-only: %w", v.Container, err)
			}
		}
	}
	if err := unix.Unmount(oldRoot, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("let go of the host's files: %w", err)
	}
	if err := os.Remove(oldRoot); err != nil {
		return err
	}
	if c.ReadOnly {
		return do(m{"", "/", "", unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY, ""})
	}
	return nil
}

// mountPoint makes what source can be mounted on.
func mountPoint(source, target string) error {
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return os.MkdirAll(target, 0o755)
	}
	if err := os.MkdirAll(path.Dir(target), 0o755); err != nil {
		return err
	}
	return touch(target)
}

func touch(name string) error {
	f, err := os.OpenFile(name, os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// writeEtc writes the files that a container runtime provides. There is no name server to be asked.
func (c config) writeEtc() error {
	hosts := "127.0.0.1 localhost\n::1 localhost\n"
	for name, addr := range c.Hosts {
		hosts += fmt.Sprintf("%s %s\n", addr, name)
	}
	for name, text := range map[string]string{"hosts": hosts, "hostname": "container\n", "resolv.conf": ""} {
		if err := os.WriteFile(filepath.Join("/etc", name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// become gives up what the image's program must not have and runs it in place of this one.
func (c config) become() error {
	if err := c.confine(); err != nil {
		return err
	}
	if !c.UserNS {
		if err := unix.Setgroups(nil); err != nil {
			return fmt.Errorf("drop groups: %w", err)
		}
		if err := unix.Setresgid(c.Process.GID, c.Process.GID, c.Process.GID); err != nil {
			return fmt.Errorf("become group %d: %w", c.Process.GID, err)
		}
		if err := unix.Setresuid(c.Process.UID, c.Process.UID, c.Process.UID); err != nil {
			return fmt.Errorf("become user %d: %w", c.Process.UID, err)
		}
	}
	if err := dieWithShim(); err != nil { // again: a change of user clears it
		return err
	}
	unix.Umask(0o022)
	if err := os.Chdir(c.Process.Dir); err != nil {
		return err
	}
	env := c.Process.environ()
	for _, e := range env {
		if dirs, ok := strings.CutPrefix(e, "PATH="); ok {
			os.Setenv("PATH", dirs)
		}
	}
	path, err := exec.LookPath(c.Process.Args[0])
	if err != nil {
		return err
	}
	if err := unix.Exec(path, c.Process.Args, env); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// confine limits what this process can gain by running a program. It takes nothing from the process itself.
func (c config) confine() error {
	keep := usualCaps
	if c.NoCaps {
		keep = nil
	}
	for i := range lastCap() + 1 {
		if slices.Contains(keep, i) {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(i), 0, 0, 0); err != nil {
			return fmt.Errorf("drop capability %d: %w", i, err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("drop ambient capabilities: %w", err)
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return fmt.Errorf("drop inheritable capabilities: %w", err)
	}
	if c.NoNewPrivs {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("no new privileges: %w", err)
		}
	}
	return nil
}

// environ is the environment with HOME, as Docker finds it in the image's /etc/passwd.
func (p process) environ() []string {
	home := "/"
	b, err := os.ReadFile("/etc/passwd")
	if err != nil && p.UID == 0 {
		home = "/root"
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Split(strings.TrimSpace(line), ":"); len(f) > 5 && f[2] == strconv.Itoa(p.UID) {
			home = f[5]
			break
		}
	}
	return mergeEnv([]string{"HOME=" + home}, p.Env)
}
