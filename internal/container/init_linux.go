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

// initMain is the main function of process 1, and of other programs in the container until they are the image's. File 4
// of the others is process 1.
func initMain(cfg config) error {
	unix.CloseOnExec(3)
	dieWithShim()
	if cfg.Join {
		unix.CloseOnExec(4)
		join()
	} else {
		cfg.mount()
	}
	cfg.become()
	return nil
}

// try ends this process, which is not the image's program yet, if there is an error: it is written to file 3.
func try(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.NewFile(3, "errors"), "%s%v\n", what, err)
		os.Exit(127) // as Docker and shells have it
	}
}

// dieWithShim has the kernel kill this process when the thread of the shim that started it ends: that is the shim's
// first, which lasts as long as it, or one that waits for this process. Os/exec cannot do it: it takes a parent whose
// number it does not see, because it is in another process namespace, for one that is dead already.
func dieWithShim() {
	try("die with the shim: ", unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0))
}

// join puts this thread where process 1 has its files. It is not done before: here the system may find this program's
// own libraries no more.
func join() {
	try("enter the container: ", unix.Unshare(unix.CLONE_FS)) // threads share root and working directory
	try("enter the container: ", unix.Setns(4, unix.CLONE_NEWNS))
}

// oldRoot is where this machine's files are while the container's are being mounted.
const oldRoot = "/.host"

// mount makes the image's file system the root, with what is written to it kept in memory.
func (c config) mount() {
	mount := func(source, target, fstype string, flags uintptr, data string) {
		try("mount "+target+": ", unix.Mount(source, target, fstype, flags, data))
	}
	try("", os.Chdir(c.Dir)) // overlay takes relative names, so none needs escaping
	mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	mount("tmpfs", "run", "tmpfs", 0, "mode=755")
	for _, d := range []string{"run/upper", "run/work", "run/root"} {
		try("", os.Mkdir(d, 0o755))
	}
	data := "lowerdir=rootfs,upperdir=run/upper,workdir=run/work"
	if c.UserNS {
		data += ",userxattr"
	}
	mount("overlay", "run/root", "overlay", 0, data)
	try("", os.Mkdir("run/root"+oldRoot, 0o700))
	try("", os.Chdir("run/root"))
	try("pivot_root: ", unix.PivotRoot(".", "."+oldRoot))
	try("", os.Chdir("/"))
	// From here on every name is the container's, and no link in the image can lead out of it.
	for _, d := range append([]string{"/proc", "/dev", "/etc", c.Process.Dir}, c.Tmpfs...) {
		try("", os.MkdirAll(d, 0o755))
	}
	const inert = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	mount("proc", "/proc", "proc", inert, "")
	mount("/proc/sys", "/proc/sys", "", unix.MS_BIND|unix.MS_REC, "")
	mount("", "/proc/sys", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|inert, "")
	mount("tmpfs", "/dev", "tmpfs", unix.MS_NOSUID, "mode=755")
	for _, d := range []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"} {
		try("", os.WriteFile(d, nil, 0o644))
		mount(oldRoot+d, d, "", unix.MS_BIND, "")
	}
	for name, to := range map[string]string{"fd": "fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"} {
		try("", os.Symlink("/proc/self/"+to, "/dev/"+name))
	}
	for _, d := range c.Tmpfs {
		mount("tmpfs", d, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777")
	}
	c.writeEtc()
	for _, v := range c.Volumes {
		try("volume "+v.Container+": ", mountPoint(oldRoot+v.Host, v.Container))
		mount(oldRoot+v.Host, v.Container, "", unix.MS_BIND|unix.MS_REC, "")
		if v.ReadOnly {
			attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
			try("volume "+v.Container+": read-only: ", unix.MountSetattr(-1, v.Container, unix.AT_RECURSIVE, attr))
		}
	}
	try("let go of the host's files: ", unix.Unmount(oldRoot, unix.MNT_DETACH))
	try("", os.Remove(oldRoot))
	if c.ReadOnly {
		mount("", "/", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
	}
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
	f, err := os.OpenFile(target, os.O_CREATE, 0o644) // what the image has there stays as it is
	if err != nil {
		return err
	}
	return f.Close()
}

// writeEtc writes the files that a container runtime provides. There is no name server to be asked.
func (c config) writeEtc() {
	hosts := "127.0.0.1 localhost\n::1 localhost\n"
	for name, addr := range c.Hosts {
		hosts += fmt.Sprintf("%s %s\n", addr, name)
	}
	for name, text := range map[string]string{"hosts": hosts, "hostname": "container\n", "resolv.conf": ""} {
		try("", os.WriteFile(filepath.Join("/etc", name), []byte(text), 0o644))
	}
}

// become gives up what the image's program must not have and runs it in place of this one.
func (c config) become() {
	c.confine()
	if uid, gid := c.Process.UID, c.Process.GID; !c.UserNS {
		try("drop groups: ", unix.Setgroups(nil))
		try(fmt.Sprintf("become group %d: ", gid), unix.Setresgid(gid, gid, gid))
		try(fmt.Sprintf("become user %d: ", uid), unix.Setresuid(uid, uid, uid))
	}
	dieWithShim() // again: a change of user clears it
	unix.Umask(0o022)
	try("", os.Chdir(c.Process.Dir))
	env := c.Process.environ()
	for _, e := range env {
		if dirs, ok := strings.CutPrefix(e, "PATH="); ok {
			os.Setenv("PATH", dirs)
		}
	}
	path, err := exec.LookPath(c.Process.Args[0])
	try("", err)
	try(path+": ", unix.Exec(path, c.Process.Args, env))
}

// confine limits what this process can gain by running a program. It takes nothing from the process itself.
func (c config) confine() {
	for i := range lastCap() + 1 {
		if c.NoCaps || !slices.Contains(usualCaps, i) {
			try(fmt.Sprintf("drop capability %d: ", i), unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(i), 0, 0, 0))
		}
	}
	try("drop ambient capabilities: ", unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	try("read capabilities: ", unix.Capget(&hdr, &data[0]))
	data[0].Inheritable, data[1].Inheritable = 0, 0
	try("drop inheritable capabilities: ", unix.Capset(&hdr, &data[0]))
	if c.NoNewPrivs {
		try("no new privileges: ", unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
	}
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
