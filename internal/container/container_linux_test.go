package container

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/xavieralpha/derper/internal/testing/need"
	"github.com/xavieralpha/derper/internal/testing/testlock"
)

// helperEnv makes this test binary a tester that starts a container and waits to be
// killed, or, as binfmt, what looks for emulators in a container.
const helperEnv = "CONTAINER_TEST_HELPER"

func TestMain(m *testing.M) {
	Init()
	if os.Getenv(helperEnv) != "" {
		helper()
	}
	if _, err := testlock.Containers(); err != nil {
		fmt.Fprintln(os.Stderr, "container test:", err)
		os.Exit(1)
	}
	// What killed runs have left is none of these tests' doing.
	for _, r := range []Runner{Native(), Docker()} {
		if err := r.Sweep(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, "container test:", err)
		}
	}
	code := m.Run()
	if dir, err := programDir(); err == nil && os.Getenv("CONTAINER_TEST_GUESTS") == "" {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// programs are those of our images that have been built, by name and architecture.
var programs sync.Map

// programDir is removed in the end.
var programDir = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("CONTAINER_TEST_GUESTS"); dir != "" { // as another user, who has no Go
		return dir, nil
	}
	dir, err := os.MkdirTemp("", "guest-")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
})

// program builds a program in our images, of testdata.
func program(t *testing.T, name, arch string) string {
	t.Helper()
	build, _ := programs.LoadOrStore(name+"-"+arch, sync.OnceValues(func() (string, error) {
		dir, err := programDir()
		if err != nil {
			return "", err
		}
		out := filepath.Join(dir, name+"-"+arch)
		if os.Getenv("CONTAINER_TEST_GUESTS") != "" {
			return out, nil
		}
		cmd := exec.Command("go", "build", "-buildvcs=false", "-o", out, "./testdata/"+name)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
		if msg, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("%v: %w\n%s", cmd, err, msg)
		}
		return out, nil
	}))
	path, err := build.(func() (string, error))()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// guest is the program in most of our images.
func guest(t *testing.T, arch string) string { return program(t, "guest", arch) }

type entry struct {
	tar.Header
	body string
}

func layer(t *testing.T, entries ...entry) v1.Layer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		e.Size = int64(len(e.body))
		if e.Mode == 0 {
			e.Mode = 0o755
		}
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, e.body)
	}
	w.Close()
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func file(name, body string) entry { return entry{tar.Header{Name: name, Typeflag: tar.TypeReg}, body} }

// image is one that runs the guest.
func image(t *testing.T, p v1.Platform, more ...entry) v1.Image {
	t.Helper()
	return imageOf(t, "guest", p, more...)
}

func imageOf(t *testing.T, name string, p v1.Platform, more ...entry) v1.Image {
	t.Helper()
	program, err := os.ReadFile(program(t, name, p.Architecture))
	if err != nil {
		t.Fatal(err)
	}
	dir := func(name string, mode int64) entry {
		return entry{tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: mode}, ""}
	}
	img, err := mutate.AppendLayers(empty.Image, layer(t, append([]entry{
		dir("bin/", 0o755), file("bin/guest", string(program)), dir("tmp/", 0o1777), dir("home/", 0o755),
	}, more...)...))
	if err != nil {
		t.Fatal(err)
	}
	img, err = mutate.ConfigFile(img, configFile(t, img, p))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func configFile(t *testing.T, img v1.Image, p v1.Platform) *v1.ConfigFile {
	t.Helper()
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c = c.DeepCopy()
	c.OS, c.Architecture, c.Variant = p.OS, p.Architecture, p.Variant
	c.Config.Entrypoint, c.Config.Cmd = []string{"guest"}, []string{"serve", "80"}
	c.Config.Env = []string{"PATH=/bin", "COLOUR=red"}
	c.Config.WorkingDir = "/home"
	return c
}

var host = v1.Platform{OS: "linux", Architecture: runtime.GOARCH}

func start(t *testing.T, r Runner, s Spec) Container {
	t.Helper()
	if s.Image == nil {
		s.Image = image(t, host)
	}
	c, err := r.Start(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("log of the container:\n%s", c.Logs())
		}
	})
	return c
}

// waitFor waits until the container's log says so.
func waitFor(t *testing.T, c Container, text string) {
	t.Helper()
	if err := logged(c, text); err != nil {
		t.Fatal(err)
	}
}

func logged(c Container, text string) error {
	for start := time.Now(); !strings.Contains(c.Logs(), text); time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > 20*time.Second {
			return fmt.Errorf("no %q in the log:\n%s", text, c.Logs())
		}
	}
	return nil
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// runnerTests are what both runners promise.
var runnerTests = []struct {
	name string
	run  func(*testing.T, Runner)
}{
	{"ports", testPorts}, {"config", testConfig}, {"hardened", testHardened}, {"volumes", testVolumes},
	{"exit", testExit}, {"exec", testExec}, {"isolated", testIsolated}, {"cancel", testCancel},
	{"keep", testKeep}, {"portTaken", testPortTaken}, {"noProgram", testNoProgram}, {"badSpec", testBadSpec},
}

func testRunner(t *testing.T, r Runner) {
	for _, tt := range runnerTests {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, r) })
	}
	if err := r.Sweep(t.Context()); err != nil {
		t.Error(err)
	}
	nothingLeft(t, r)
}

// nothingLeft fails if there are processes, files or containers of ours.
func nothingLeft(t *testing.T, r Runner) {
	t.Helper()
	dir, err := stateDir()
	if err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		var left []string
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			left = append(left, filepath.Join(dir, e.Name()))
		}
		procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, p := range procs {
			if b, _ := os.ReadFile(p); bytes.HasPrefix(b, []byte("guest\x00")) || bytes.HasPrefix(b, []byte("derper-container-")) {
				left = append(left, p+": "+string(b))
			}
		}
		if r.String() == "docker" {
			out, err := docker{}.run(t.Context(), "ps", "--all", "--quiet", "--filter", "label="+dockerLabel)
			images, err2 := docker{}.run(t.Context(), "images", "--quiet", dockerRepo)
			if err := errors.Join(err, err2); err != nil {
				t.Fatal(err)
			}
			left = append(append(left, strings.Fields(out)...), strings.Fields(images)...)
		}
		if len(left) == 0 {
			return
		}
		if time.Since(start) > time.Minute {
			t.Fatalf("left behind: %q", left)
		}
	}
}

func TestNative(t *testing.T) { testRunner(t, needed(t, Native())) }

// TestNativeWithoutRoot runs the same tests as nobody. As any other user than root, TestNative is that already.
func TestNativeWithoutRoot(t *testing.T) {
	need.Root(t, "to become another user")
	need.Namespaces(t)
	dir, err := os.MkdirTemp("", "nobody-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^(TestNative|TestKilled|TestRemoveAll|TestHostile.*)$", "-test.v", "-test.timeout=5m")
	program(t, "hostile", runtime.GOARCH)
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, "HOME="+dir, "GOCOVERDIR="+dir,
		"CONTAINER_TEST_GUESTS="+filepath.Dir(guest(t, runtime.GOARCH)),
		need.Variable+"=") // nobody may not use Docker, and need not
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err == nil && bytes.Contains(out, []byte("--- SKIP: TestNative (")) {
		need.Missing(t, "namespaces for users", "run .ci/prepare")
	}
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestNative/hardened")) || !bytes.Contains(out, []byte("--- PASS: TestHostile/native")) {
		t.Errorf("%v\n%s", err, out)
	}
}

// needed returns the runner where this machine can use it.
func needed(t *testing.T, r Runner) Runner {
	t.Helper()
	if r.String() == "docker" {
		need.Docker(t)
	} else {
		need.Namespaces(t)
	}
	return r
}

func TestDocker(t *testing.T) { testRunner(t, needed(t, Docker())) }

// testKeep starts two containers of an image that is kept: what one writes, the other does not see.
func testKeep(t *testing.T, r Runner) {
	img := image(t, host)
	release, err := r.Keep(t.Context(), img)
	if err != nil {
		t.Fatal(err)
	}
	again, err := r.Keep(t.Context(), img)
	if err != nil {
		t.Fatal(err)
	}
	if err := again(); err != nil {
		t.Error(err)
	}
	for i := range 3 {
		if i == 2 {
			if err := release(); err != nil {
				t.Error(err)
			}
		}
		c := start(t, r, Spec{Image: img, Args: []string{"create", "/file"}})
		if code, err := c.Wait(within(t, 20*time.Second)); err != nil || code != 0 {
			t.Errorf("container %d: code %d, %v: %s", i, code, err, c.Logs())
		}
		c.Close()
	}
}

func testPorts(t *testing.T, r Runner) {
	ports := []Port{{Number: 80, Proto: "tcp"}, {Number: 80, Proto: "udp"}}
	c := start(t, r, Spec{Ports: ports})
	waitFor(t, c, "serving")

	addr, err := c.Addr(ports[0])
	if err != nil || addr.Addr() != netip.MustParseAddr("127.0.0.1") {
		t.Fatal(addr, err)
	}
	big := bytes.Repeat([]byte("0123456789"), 100_000)
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() {
		conn.Write(big)
		conn.(*net.TCPConn).CloseWrite()
	}()
	if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, big) {
		t.Errorf("echoed %d bytes of %d, %v", len(got), len(big), err)
	}

	if addr, err = c.Addr(ports[1]); err != nil {
		t.Fatal(err)
	}
	udp, err := net.Dial("udp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	buf := make([]byte, 1500)
	var n int
	for range 30 { // UDP may lose it
		udp.Write([]byte("hello"))
		udp.SetReadDeadline(time.Now().Add(time.Second))
		if n, err = udp.Read(buf); err == nil {
			break
		}
	}
	if want := c.Via().String() + " says hello"; string(buf[:n]) != want {
		t.Errorf("UDP: %q, %v, want %q", buf[:n], err, want)
	}
	if _, err := c.Addr(Port{Number: 81, Proto: "tcp"}); err == nil {
		t.Error("a port that was not published has an address")
	}
}

type report struct {
	PID, UID, GID                   int
	Dir, Host                       string
	Args, Env                       []string
	Eff, Bnd, Amb, Inh, NNP, Groups string
}

func parseReport(t *testing.T, s string) (r report) {
	t.Helper()
	if err := json.Unmarshal([]byte(s), &r); err != nil {
		t.Fatalf("%v: %s", err, s)
	}
	return r
}

// finished runs a container to its end and returns its log.
func finished(t *testing.T, r Runner, s Spec, code int) string {
	t.Helper()
	c := start(t, r, s)
	got, err := c.Wait(within(t, 20*time.Second))
	if err != nil || got != code {
		t.Errorf("%q ended with %d, %v, want %d:\n%s", s.Args, got, err, code, c.Logs())
	}
	return c.Logs()
}

func testConfig(t *testing.T, r Runner) {
	got := parseReport(t, finished(t, r, Spec{
		Image: image(t, host, file("etc/passwd", "other:x:7:7::/:\nroot:x:0:0:root:/elsewhere:/none\n")),
		Args:  []string{"report", "a b"}, Env: []string{"SHAPE=round", "COLOUR=blue"},
	}, 0))
	if got.PID != 1 || got.UID != 0 || got.GID != 0 || got.Dir != "/home" || got.Host != "container" {
		t.Errorf("%+v", got)
	}
	if !slices.Equal(got.Args, []string{"report", "a b"}) {
		t.Errorf("arguments %q", got.Args)
	}
	for _, e := range []string{"COLOUR=blue", "SHAPE=round", "PATH=/bin", "HOME=/elsewhere", "HOSTNAME=container"} {
		if !slices.Contains(got.Env, e) {
			t.Errorf("no %s in %q", e, got.Env)
		}
	}
	if slices.Contains(got.Env, "COLOUR=red") {
		t.Errorf("two colours in %q", got.Env)
	}
	for _, e := range got.Env {
		if strings.HasPrefix(e, "TMPDIR=") || strings.HasPrefix(e, "GOCACHE=") {
			t.Errorf("environment of this machine in the container: %s", e)
		}
	}
	// Docker's usual capabilities, by number, less the one to make devices.
	if got.Bnd != "00000000a00425fb" {
		t.Errorf("capabilities %s, no new privileges %s", got.Bnd, got.NNP)
	}
}

func testHardened(t *testing.T, r Runner) {
	s := Spec{User: "65532:65532", ReadOnly: true, NoCaps: true, NoNewPrivs: true, Tmpfs: []string{"/scratch"},
		Ports: []Port{{Number: 80, Proto: "tcp"}}}
	c := start(t, r, s)
	waitFor(t, c, "serving") // on port 80, without a capability
	o, err := c.Exec(within(t, 20*time.Second), "guest", "report")
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{"exec": o.Stdout, "process 1": finished(t, r, Spec{
		User: s.User, ReadOnly: true, NoCaps: true, NoNewPrivs: true, Args: []string{"report"}}, 0)} {
		got := parseReport(t, text)
		zero := "0000000000000000"
		if got.UID != 65532 || got.GID != 65532 || got.NNP != "1" ||
			got.Eff != zero || got.Bnd != zero || got.Amb != zero || got.Inh != zero {
			t.Errorf("%s: %+v", what, got)
		}
	}
	for file, want := range map[string]bool{"/home/x": false, "/x": false, "/bin/guest": false, "/scratch/x": true} {
		o, err := c.Exec(within(t, 20*time.Second), "guest", "write", file)
		if err != nil || (o.Code == 0) != want {
			t.Errorf("write %s: %+v, %v, want %v", file, o, err, want)
		}
	}
	if o, err := c.Exec(within(t, 20*time.Second), "guest", "cat", "/proc/1/cmdline"); o.Stdout != "guest\x00serve\x0080\x00" {
		t.Errorf("%+v, %v", o, err)
	}
}

func testVolumes(t *testing.T, r Runner) {
	dir, ro := t.TempDir(), t.TempDir()
	os.Chmod(dir, 0o777)
	if err := os.WriteFile(filepath.Join(ro, "hello"), []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	img := image(t, host)
	for _, readOnly := range []bool{false, true} {
		c := start(t, r, Spec{Image: img, ReadOnly: readOnly, Hosts: map[string]netip.Addr{"other.example": netip.MustParseAddr("127.0.0.9")},
			Volumes: []Volume{{dir, "/data/deep", false}, {ro, "/config", true}, {filepath.Join(ro, "hello"), "/etc/one", true}}})
		for _, tt := range []struct {
			args string
			code int
			out  string
		}{
			{"write /data/deep/x", 0, ""}, {"cat /data/deep/x", 0, "written"},
			{"cat /config/hello", 0, "hello"}, {"write /config/hello", 1, "read-only"}, {"cat /etc/one", 0, "hello"},
			{"cat /etc/hosts", 0, "other.example"},
		} {
			o, err := c.Exec(within(t, 20*time.Second), append([]string{"guest"}, strings.Fields(tt.args)...)...)
			if err != nil || o.Code != tt.code || !strings.Contains(o.Stdout+o.Stderr, tt.out) {
				t.Errorf("%s: %+v, %v", tt.args, o, err)
			}
		}
		if b, err := os.ReadFile(filepath.Join(dir, "x")); string(b) != "written" {
			t.Errorf("%q, %v", b, err)
		}
		os.Remove(filepath.Join(dir, "x"))
	}
}

func testExit(t *testing.T, r Runner) {
	if log := finished(t, r, Spec{Args: []string{"exit", "42"}}, 42); log != "bye from 42\n" {
		t.Errorf("log %q", log)
	}
	// One that ends at once is no failed start, whatever was to be published.
	finished(t, r, Spec{Args: []string{"exit", "7"}, Ports: []Port{{Number: 80, Proto: "tcp"}}}, 7)
	if os.Getuid() == 0 || r.String() == "native" {
		finished(t, r, Spec{Args: []string{"exit", "7"}, Ports: []Port{{Number: 80, Proto: "tcp"}}, Isolated: true}, 7)
	}
	img := image(t, host)
	for sig, code := range map[syscall.Signal]int{syscall.SIGTERM: 0, syscall.SIGKILL: 137} {
		c := start(t, r, Spec{Image: img})
		waitFor(t, c, "serving")
		if _, err := c.Wait(within(t, 50*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiting for one that runs: %v", err)
		}
		if err := c.Signal(sig); err != nil {
			t.Error(err)
		}
		if got, err := c.Wait(within(t, time.Minute)); got != code || err != nil {
			t.Errorf("%v: %d, %v, want %d", sig, got, err, code)
		}
		if sig == syscall.SIGTERM && !strings.Contains(c.Logs(), "stopping") {
			t.Errorf("stderr is not in the log: %q", c.Logs())
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if !strings.Contains(c.Logs(), "serving") {
			t.Error("log is gone after close")
		}
	}
}

func testExec(t *testing.T, r Runner) {
	c := start(t, r, Spec{})
	waitFor(t, c, "serving")
	if o, err := c.Exec(within(t, 20*time.Second), "guest", "exit", "3"); o.Code != 3 || o.Stdout != "bye from 3\n" || err != nil {
		t.Errorf("%+v, %v", o, err)
	}
	if o, err := c.Exec(within(t, 20*time.Second), "nowhere"); (o.Code != 127 && o.Code != 126) || err != nil {
		t.Errorf("a program that is not there: %+v, %v", o, err)
	}
	// The program is this machine's, the network is the container's.
	if os.Getuid() == 0 || r.String() == "native" {
		var out, errs bytes.Buffer
		both := &out
		if code, err := c.Host(within(t, 20*time.Second), both, both, "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do echo out; echo err >&2; done"); code != 0 || err != nil || both.Len() != 9*8 {
			t.Errorf("%d, %v: %q", code, err, both)
		}
		out.Reset()
		code, err := c.Host(within(t, 20*time.Second), &out, &errs, guest(t, runtime.GOARCH), "dial", "127.0.0.1:80")
		if code != 0 || err != nil || out.String() != "ping" {
			t.Errorf("%d, %v: %s%s", code, err, &out, &errs)
		}
		start := time.Now()
		if _, err := c.Host(within(t, 100*time.Millisecond), &out, &errs, guest(t, runtime.GOARCH), "sleep"); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > time.Minute {
			t.Errorf("ended after %v: %v", time.Since(start), err)
		}
		for range 20 { // also while it starts
			if _, err := c.Host(within(t, time.Millisecond), &out, &errs, guest(t, runtime.GOARCH), "sleep"); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		}
	}
	if r.String() == "native" { // docker exec leaves a program running whose client was killed
		for _, what := range []string{"sleep", "detach"} {
			start := time.Now()
			if _, err := c.Exec(within(t, time.Second), "guest", what); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > time.Minute {
				t.Errorf("%s: ended after %v: %v", what, time.Since(start), err)
			}
		}
	}
}

func testIsolated(t *testing.T, r Runner) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("from the host"))
			c.Close()
		}
	}()
	reach := netip.MustParseAddrPort(l.Addr().String())
	port := Port{Number: 80, Proto: "tcp"}
	c := start(t, r, Spec{Isolated: true, Reach: []netip.AddrPort{reach}, Ports: []Port{port}})
	waitFor(t, c, "serving")
	for to, want := range map[string]string{
		reach.String(): "from the host", "192.0.2.1:80": "network is unreachable", "[2001:db8::1]:80": "unreachable", "[::1]:80": "ping",
	} {
		t.Run(to, func(t *testing.T) {
			if to[0] == '[' {
				need.IPv6(t)
			}
			o, err := c.Exec(within(t, 20*time.Second), "guest", "dial", to)
			if err != nil || !strings.Contains(o.Stdout+o.Stderr, want) {
				t.Errorf("dial %s: %+v, %v, want %s", to, o, err, want)
			}
		})
	}
	addr, err := c.Addr(port)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write([]byte("hello"))
	buf := make([]byte, 5)
	conn.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := io.ReadFull(conn, buf); err != nil || string(buf) != "hello" {
		t.Errorf("%q, %v", buf, err)
	}
}

func testCancel(t *testing.T, r Runner) {
	img := image(t, host)
	ctx, cancel := context.WithCancel(t.Context())
	c, err := r.Start(ctx, Spec{Image: img})
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, c, "serving")
	cancel()
	nothingLeft(t, r)

	if _, err := r.Start(ctx, Spec{Image: img}); !errors.Is(err, context.Canceled) {
		t.Errorf("start after cancel: %v", err)
	}
	nothingLeft(t, r)
}

func testPortTaken(t *testing.T, r Runner) {
	for _, proto := range []string{"tcp", "udp"} {
		var closer io.Closer
		var port int
		if proto == "tcp" {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			closer, port = l, l.Addr().(*net.TCPAddr).Port
		} else {
			l, err := net.ListenPacket("udp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			closer, port = l, l.LocalAddr().(*net.UDPAddr).Port
		}
		_, err := r.Start(t.Context(), Spec{Image: image(t, host), Ports: []Port{{Number: 80, Proto: proto, Host: port}}})
		closer.Close()
		if err == nil || !strings.Contains(err.Error(), "taken by another program") {
			t.Errorf("%s: %v", proto, err)
		}
		nothingLeft(t, r)
	}
}

func testNoProgram(t *testing.T, r Runner) {
	img := image(t, host)
	cfg := configFile(t, img, host)
	cfg.Config.Entrypoint = []string{"/no/such/program"}
	img, err := mutate.ConfigFile(img, cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Start(t.Context(), Spec{Image: img})
	if err == nil || !strings.Contains(err.Error(), "/no/such/program") {
		t.Error(err)
	}
	nothingLeft(t, r)
}

func testBadSpec(t *testing.T, r Runner) {
	img := image(t, host)
	for want, s := range map[string]Spec{
		"no image":        {},
		"user":            {Image: img, User: "nobody"},
		"port 0/tcp":      {Image: img, Ports: []Port{{Proto: "tcp"}}},
		"port 80/sctp":    {Image: img, Ports: []Port{{Number: 80, Proto: "sctp"}}},
		"no such file":    {Image: img, Volumes: []Volume{{"/no/such/dir", "/x", false}}},
		"not absolute":    {Image: img, Volumes: []Volume{{t.TempDir(), "x", false}}},
		"KEY=value":       {Image: img, Env: []string{"JUSTKEY"}},
		"not on the loop": {Image: img, Isolated: true, Reach: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:1")}},
		"only linux":      {Image: image(t, v1.Platform{OS: "plan9", Architecture: runtime.GOARCH})},
	} {
		if _, err := r.Start(t.Context(), s); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), r.String()+": ") {
			t.Errorf("%v, want %q", err, want)
		}
	}
	nothingLeft(t, r)
}
