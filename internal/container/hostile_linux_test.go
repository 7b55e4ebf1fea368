package container

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/elastic/go-seccomp-bpf/arch"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/xavieralpha/derper/internal/testing/need"
	"github.com/xavieralpha/derper/internal/testing/terminal"
)

// TestHostile runs an image that means harm, as the container's process 1 and as a program besides it, and prints what
// became of each attempt: all are refused. The mistake it guards: a runner that lets an image at the machine.
func TestHostile(t *testing.T) {
	platforms := []v1.Platform{host}
	// The calls of these programs have another filter, where the kernel takes them. An emulator
	// answers some by itself, and so would say nothing of that.
	if _, err := os.Stat(binfmtDir + "/qemu-i386"); host.Architecture == "amd64" && err != nil && runs("386") {
		platforms = append(platforms, v1.Platform{OS: "linux", Architecture: "386"})
	} else {
		t.Log("programs of 32 bits are left out: this kernel runs none by itself")
	}
	for _, r := range []Runner{Native(), Docker()} {
		t.Run(r.String(), func(t *testing.T) {
			needed(t, r)
			for _, p := range platforms {
				if os.Getenv("CONTAINER_TEST_GUESTS") != "" && p.Architecture != host.Architecture {
					continue // it was not built for the other user
				}
				for _, user := range []string{"0", "65532:65532"} {
					t.Run(p.Architecture+"/user "+user, func(t *testing.T) { testHostile(t, r, p, user) })
				}
			}
		})
	}
}

func testHostile(t *testing.T, r Runner, p v1.Platform, user string) {
	dir := t.TempDir()
	marker, data := filepath.Join(dir, "marker"), t.TempDir()
	if err := os.WriteFile(marker, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	os.Chmod(data, 0o777)
	name, err := net.Listen("unix", fmt.Sprintf("@hostile-%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer name.Close()
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	// As a shell may leave one to what it starts.
	leak, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leak)

	var more []entry
	if r.String() == "docker" { // which unpacks it; native does not
		more = append(more, entry{tar.Header{Name: "loop0", Typeflag: tar.TypeBlock, Devmajor: 7, Mode: 0o666}, ""})
	}
	spec := Spec{Image: imageOf(t, "hostile", p, more...), User: user, Isolated: true, Args: []string{},
		Volumes: []Volume{{data, "/data", false}, {dir, "/ro", true}},
		Env:     []string{"HOSTILE_MARKER=" + marker, "HOSTILE_SOCKET=" + name.Addr().String(), "HOSTILE_PORT=" + port.Addr().String()}}
	c := start(t, r, spec)
	ended := make(chan error, 1)
	go func() {
		_, err := c.Wait(t.Context())
		ended <- err
	}()
	for done := false; !done; { // programs of the runner, for it to attack
		select {
		case err := <-ended:
			if err != nil {
				t.Fatal(err)
			}
			done = true
		default:
			c.Exec(t.Context(), "guest", "try", "nothing")
		}
	}
	// Docker may write the last of a log after it says that the container has ended.
	logs := c.Logs()
	for deadline := time.Now().Add(time.Minute); !strings.HasSuffix(logs, "end\n") && time.Now().Before(deadline); logs = c.Logs() {
		time.Sleep(100 * time.Millisecond)
	}
	refusals(t, "process 1", logs)

	spec.Args = []string{"wait"}
	o, err := start(t, r, spec).Exec(t.Context(), "guest")
	if err != nil {
		t.Fatal(err)
	}
	refusals(t, "exec", o.Stdout)
}

// refusals expects every attempt to have failed.
func refusals(t *testing.T, who, rows string) {
	t.Helper()
	n := 0
	for line := range strings.Lines(rows) {
		attempt, why, ok := strings.Cut(strings.TrimSpace(line), "\t")
		if !ok {
			continue
		}
		n++
		if why == "DONE" {
			t.Errorf("%s: %s: was not refused", who, attempt)
		} else {
			t.Logf("%-9s  %-50s refused: %s", who, attempt, why)
		}
	}
	if n < 60 || !strings.HasSuffix(rows, "end\n") {
		t.Errorf("%s: %d attempts, expected all of them, and then the end:\n%s", who, n, rows)
	}
}

// TestHostileAtTerminal does it where there is a terminal to type into. The mistake it guards: a program that is started
// in the container later, and stays in the tester's session.
func TestHostileAtTerminal(t *testing.T) {
	needed(t, Native())
	_, tty := terminal.Open(t)
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestHostile$/^native$/^"+host.Architecture+"$", "-test.v")
	cmd.Stdin = tty
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir(), // where the lock of these tests is another one
		"CONTAINER_TEST_GUESTS="+filepath.Dir(program(t, "hostile", host.Architecture)))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestHostile/native/")) {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestHostileLinks guards against a runner that follows the links of an image while the machine's files are still there,
// and writes to them.
func TestHostileLinks(t *testing.T) {
	needed(t, Native())
	dir := t.TempDir()
	os.Chmod(dir, 0o777)
	os.Chmod(filepath.Dir(dir), 0o755) // so that anybody could
	for _, to := range []string{"/.host", "/proc/1/root", "/proc/self/cwd/../../../../../../..", "/../../../../../../../.."} {
		for _, name := range []string{"etc", "home", "data", "dev"} {
			img := image(t, host)
			extra := layer(t, entry{tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to + dir}, ""})
			img, err := mutate.AppendLayers(img, extra)
			if err != nil {
				t.Fatal(err)
			}
			c, err := Native().Start(t.Context(), Spec{Image: img, Args: []string{"exit", "0"}, Volumes: []Volume{{t.TempDir(), "/data/deep", false}}})
			if err == nil {
				c.Wait(t.Context())
				c.Close()
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Fatalf("/%s is a link to %s: %v, %v on this machine", name, to+dir, left, err)
			}
		}
	}
}

// TestHostileDirectory guards against a working directory that is an open folder of this machine (CVE-2024-21626).
func TestHostileDirectory(t *testing.T) {
	needed(t, Native())
	leak, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leak)
	img := image(t, host)
	for fd := 3; fd <= leak; fd++ {
		cfg := configFile(t, img, host)
		cfg.Config.WorkingDir = fmt.Sprintf("/proc/self/fd/%d", fd)
		bad, err := mutate.ConfigFile(img, cfg)
		if err != nil {
			t.Fatal(err)
		}
		c, err := Native().Start(t.Context(), Spec{Image: bad, Args: []string{"exit", "0"}})
		if err == nil {
			c.Close()
			t.Errorf("%s: started in it", cfg.Config.WorkingDir)
		}
	}
}

// TestSelf guards against a program in memory that a container could change for the next one.
func TestSelf(t *testing.T) {
	f, err := self()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("x"), 0); err == nil {
		t.Error("it can be written to")
	}
	if err := f.Truncate(0); err == nil {
		t.Error("it can be cut off")
	}
	if w, err := os.OpenFile(ofThisProcess(f), os.O_WRONLY|os.O_TRUNC, 0); err == nil {
		w.Close()
		t.Error("it can be replaced")
	}
}

// TestHostileSize guards against an image without end.
func TestHostileSize(t *testing.T) {
	limits := unpackLimits
	t.Cleanup(func() { unpackLimits = limits })
	for what, b := range map[string]bounds{"bytes": {bytes: 10_000, files: 100}, "files": {bytes: 1 << 20, files: 3}} {
		unpackLimits = b
		img := small(t, host, layer(t, file("a", strings.Repeat("x", 6000))), layer(t, file("b", "x"), file("c/d/e", "x")))
		if err := unpack(img, t.TempDir()); err == nil || !strings.Contains(err.Error(), "too large") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestSeccompFilter asks the filter as the kernel does. The mistakes it guards: an argument that is taken for the number
// of a call, the upper half of an argument that the kernel does not look at, and calls of another architecture.
func TestSeccompFilter(t *testing.T) {
	own, err := arch.GetInfo(runtime.GOARCH)
	if err != nil {
		need.Missing(t, "a filter of system calls", "run it on amd64 or arm64")
	}
	old, foreign := arch.I386, "386"
	if runtime.GOARCH == "arm64" {
		old, foreign = arch.ARM, "arm"
	}
	const allow, eperm, enosys = unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM), unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	for _, tt := range []struct {
		image string
		arch  *arch.Info
		call  string
		arg0  uint64
		arg1  uint64
		want  uint32
	}{
		{runtime.GOARCH, own, "getpid", 0, 0, allow}, {runtime.GOARCH, own, "ptrace", 0, 0, eperm}, {runtime.GOARCH, own, "mount", 0, 0, eperm},
		{"s390x", own, "getpid", 0, 0, allow}, {"s390x", old, "getpid", 0, 0, eperm},
		{runtime.GOARCH, old, "getpid", 0, 0, eperm}, {foreign, old, "getpid", 0, 0, allow}, {foreign, old, "ptrace", 0, 0, eperm},
		{foreign, own, "execve", 0, 0, allow}, {foreign, own, "ptrace", 0, 0, eperm}, {foreign, old, "clone", unix.CLONE_NEWUSER, 0, eperm},
		{runtime.GOARCH, own, "clone", unix.CLONE_VM, 0, allow}, {runtime.GOARCH, own, "clone", unix.CLONE_NEWNS, 0, eperm},
		{runtime.GOARCH, own, "clone", unix.CLONE_NEWNS | 1<<40, 0, eperm}, {runtime.GOARCH, own, "clone3", 0, 0, enosys},
		{runtime.GOARCH, own, "socket", unix.AF_INET, 0, allow}, {runtime.GOARCH, own, "socket", unix.AF_ALG, 0, eperm},
		{runtime.GOARCH, own, "socket", unix.AF_INET | 1<<32, 0, eperm},
		{runtime.GOARCH, own, "personality", 0, 0, allow}, {runtime.GOARCH, own, "personality", uint64(own.SyscallNames["getpid"]), 0, eperm},
		{runtime.GOARCH, own, "ioctl", 0, unix.TCGETS, allow}, {runtime.GOARCH, own, "ioctl", 0, unix.TIOCSTI, eperm},
		{runtime.GOARCH, own, "ioctl", 0, unix.TIOCSTI | 1<<32, eperm}, {runtime.GOARCH, own, "ioctl", 0, tiocLinux, eperm},
		{runtime.GOARCH, arch.S390X, "", 0, 0, eperm},
	} {
		raw, err := seccompFilter(tt.image)
		if err != nil {
			t.Fatal(err)
		}
		program, _ := bpf.Disassemble(raw)
		vm, err := bpf.NewVM(program)
		if err != nil {
			t.Fatal(err)
		}
		// The kernel's struct seccomp_data, but for the order of bytes in each 32 bits, which is the network's here.
		var data [64]byte
		for i, v := range []uint32{uint32(tt.arch.SyscallNames[tt.call]), uint32(tt.arch.ID), 0, 0, uint32(tt.arg0), uint32(tt.arg0 >> 32), uint32(tt.arg1), uint32(tt.arg1 >> 32)} {
			binary.BigEndian.PutUint32(data[4*i:], v)
		}
		if got, err := vm.Run(data[:]); err != nil || uint32(got) != tt.want {
			t.Errorf("image for %s: %s of %s with %#x, %#x: %#x, %v, want %#x", tt.image, tt.call, tt.arch.Name, tt.arg0, tt.arg1, got, err, tt.want)
		}
	}
}
