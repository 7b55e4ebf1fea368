package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
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

// config is what the shim and process 1 need to know. They run in the directory of the image, which is unpacked in
// rootfs there.
type config struct {
	Spec    // but for the image
	Process process
	Arch    string // of the image
	Given   bool   // the volumes come as files, from 4 on
	Join    bool   // the container is there, and this is one more program in it
}

// command is this program as it becomes one of the image's, or says in the first of its files why it cannot. Whoever
// starts it keeps its thread until it ends: see dieWithShim.
func (c config) command(ctx context.Context, stdout, stderr *os.File, files ...*os.File) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args, cmd.Env = []string{initName}, []string{c.variable()}
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = stdout, stderr, files
	cmd.SysProcAttr = &syscall.SysProcAttr{AmbientCaps: ambient(), Setsid: true} // no terminal of ours is theirs
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
func ambient() (caps []uintptr) {
	for i := range lastCap() + 1 {
		caps = append(caps, uintptr(i))
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

// usualCaps are those that Docker leaves to a container, but for the one to make devices. They are for what the
// container has of its own: its user namespace has one user, who on this machine is the tester, or nobody if that is root.
var usualCaps = []int{
	unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FSETID, unix.CAP_FOWNER, unix.CAP_NET_RAW,
	unix.CAP_SETGID, unix.CAP_SETUID, unix.CAP_SETFCAP, unix.CAP_SETPCAP, unix.CAP_NET_BIND_SERVICE, unix.CAP_SYS_CHROOT,
	unix.CAP_KILL, unix.CAP_AUDIT_WRITE,
}

// initMain is the main function of process 1, and of other programs in the container until they are the image's. File 4
// of the others is process 1.
func initMain(cfg config) error {
	try("", unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC))
	dieWithShim()
	if cfg.Join {
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

// inert are the flags of file systems of which nothing can be run.
const inert = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

func mount(source, target, fstype string, flags uintptr, data string) {
	try("mount "+target+": ", unix.Mount(source, target, fstype, flags, data))
}

// openTree takes hold of a file or folder of this machine, to be mounted wherever it is wanted.
func openTree(name string, attr uint64) (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: attr}); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (v Volume) open() (*os.File, error) {
	attr := uint64(unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV)
	if v.ReadOnly {
		attr |= unix.MOUNT_ATTR_RDONLY
	}
	f, err := openTree(v.Host, attr)
	if err != nil {
		return nil, fmt.Errorf("volume %s: %w", v.Container, err)
	}
	return f, nil
}

// openProc mounts the processes of this process namespace, nowhere yet.
func openProc() (*os.File, error) {
	context, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(context)
	if err := unix.FsconfigCreate(context); err != nil {
		return nil, err
	}
	fd, err := unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	return os.NewFile(uintptr(fd), "proc"), err
}

// attach mounts what was taken hold of.
func attach(f *os.File, target string) {
	try("mount "+target+": ", unix.MoveMount(int(f.Fd()), "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH))
	f.Close()
}

// devices are all that there are in a container.
var devices = []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}

// inMemory bounds what a container can write to its own file systems.
const inMemory = "mode=755,size=1g,nr_inodes=100k"

// mount makes the image's file system the root, with what is written to it kept in memory. What the container gets of
// this machine is taken hold of first: then the machine's files are let go of, and only then the image's names are
// followed, so that no link in it leads to them.
func (c config) mount() {
	mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	proc, err := openProc()
	try("mount /proc: ", err)
	var nodes, volumes []*os.File
	for _, d := range devices {
		f, err := openTree(d, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC)
		try(d+": ", err)
		nodes = append(nodes, f)
	}
	for i, v := range c.Volumes {
		f := os.NewFile(uintptr(4+i), v.Host)
		if !c.Given {
			f, err = v.open()
			try("", err)
		}
		volumes = append(volumes, f)
	}
	mount("tmpfs", "run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, inMemory)
	for _, d := range []string{"run/upper", "run/work", "run/root"} {
		try("", os.Mkdir(d, 0o755))
	}
	// Overlay takes relative names, so none needs escaping.
	mount("overlay", "run/root", "overlay", unix.MS_NOSUID|unix.MS_NODEV, "lowerdir=rootfs,upperdir=run/upper,workdir=run/work,userxattr")
	try("", os.Chdir("run/root"))
	try("pivot_root: ", unix.PivotRoot(".", ".")) // the old root is now on top of the new one
	try("let go of the host's files: ", unix.Unmount(".", unix.MNT_DETACH))
	try("", os.Chdir("/"))

	for _, d := range append([]string{"/proc", "/dev", "/etc", c.Process.Dir}, c.Tmpfs...) {
		try("", os.MkdirAll(d, 0o755))
	}
	mount("tmpfs", "/dev", "tmpfs", inert, inMemory)
	for i, d := range devices {
		try("", os.WriteFile(d, nil, 0o644))
		attach(nodes[i], d)
	}
	attach(proc, "/proc")
	restrictProc()
	for name, to := range map[string]string{"fd": "fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"} {
		try("", os.Symlink("/proc/self/"+to, "/dev/"+name))
	}
	for _, d := range c.Tmpfs {
		mount("tmpfs", d, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, inMemory+",mode=1777")
	}
	c.writeEtc()
	for i, v := range c.Volumes {
		try("volume "+v.Container+": ", mountPoint(volumes[i], v.Container))
		attach(volumes[i], v.Container)
	}
	if c.ReadOnly {
		mount("", "/", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, "")
	}
}

// restrictProc hides what Docker hides of /proc, and makes read-only what Docker does.
func restrictProc() {
	for _, name := range []string{"acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "sched_debug", "scsi", "timer_list", "timer_stats"} {
		name = "/proc/" + name
		if info, err := os.Stat(name); err == nil && info.IsDir() {
			mount("tmpfs", name, "tmpfs", inert|unix.MS_RDONLY, "")
		} else if err == nil {
			mount("/dev/null", name, "", unix.MS_BIND, "")
		}
	}
	for _, name := range []string{"bus", "fs", "irq", "sys", "sysrq-trigger"} {
		name = "/proc/" + name
		if _, err := os.Stat(name); err == nil {
			mount(name, name, "", unix.MS_BIND|unix.MS_REC, "")
			mount("", name, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|inert, "")
		}
	}
}

// mountPoint makes what source can be mounted on.
func mountPoint(source *os.File, target string) error {
	info, err := source.Stat()
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
	filter, err := seccompFilter(c.Arch)
	try("", err)
	try("no new privileges: ", unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
	try("filter system calls: ", install(filter))
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
	for what, most := range limits {
		var l unix.Rlimit
		try("limits: ", unix.Getrlimit(what, &l))
		l.Max = min(l.Max, most)
		l.Cur = min(l.Cur, l.Max)
		try("limits: ", unix.Prlimit(0, what, &l, nil))
	}
	// Where there is too little memory for all, the container goes first.
	try("", os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0))
}

// limits bound what a container can use up of this machine. Of its memory, they bound only what is in files.
var limits = map[int]uint64{
	unix.RLIMIT_CORE:  0,
	unix.RLIMIT_NPROC: 4096,
	unix.RLIMIT_FSIZE: 1 << 30, // of each file, the log being one
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
