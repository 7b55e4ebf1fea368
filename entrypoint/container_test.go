package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xavieralpha/derper/internal/testing/need"
)

// A container is a process tree as Docker makes one: own process IDs, a root
// file system of its own, any user, no capabilities, no new privileges. It is made
// with unshare, so the tests need no container runtime.
type container struct {
	*started
	root, user string
}

// makeRoot builds a root file system like the image's in a mount namespace,
// and starts the entrypoint in it as process 1. The capabilities that unshare needs
// are lost with the user that it is, and cannot be got again.
const makeRoot = `set -e
root=$1 volume=$2 uid=$3 mode=$4 bin=$5; shift 5
mount --make-rprivate /
mount -t tmpfs -o mode=755 none $root
cd $root
mkdir -p proc dev/shm tmp usr/local/bin usr/share/derper root/derper-certs
chmod 1777 tmp
cp $bin/entrypoint entrypoint
cp $bin/derper $bin/tailscaled usr/local/bin/
cp $bin/flags.json usr/share/derper/
touch dev/null; mount --bind /dev/null dev/null
mount -t tmpfs -o mode=1777 none dev/shm
mount --bind $volume root/derper-certs
if [ $mode = read-only-all ]; then mount -o remount,ro,bind root/derper-certs; fi
if [ $mode != writable ]; then mount -o remount,ro $root; fi
exec setpriv --no-new-privs --inh-caps=-all --bounding-set=-all,+setuid,+setgid,+sys_chroot,+sys_admin unshare --pid --fork --kill-child --mount-proc=/proc \
	--root=$root --wd=/root --setuid=$uid --setgid=$uid /entrypoint "$@"
`

// runContainer starts a container. mode is writable, read-only (the volume is
// not), or read-only-all.
func runContainer(t *testing.T, volume string, uid int, mode string, env []string, args ...string) *container {
	t.Helper()
	entrypointBinary(t)
	for _, program := range []string{"unshare", "nsenter", "setpriv"} {
		need.Program(t, program, "util-linux")
	}
	need.Program(t, "mount", "mount")
	otherUsers(t)
	// Docker does the same in a container's network namespace.
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(volume, uid, uid); err != nil {
		t.Fatal(err)
	}
	c := &container{root: t.TempDir(), user: fmt.Sprint(uid)}
	s := &started{env: append(baseEnv("/root"), env...), args: args, log: new(logBuffer), ended: make(chan struct{})}
	s.cmd = exec.Command("unshare", append([]string{"--mount", "sh", "-c", makeRoot, "sh", c.root, volume, c.user, mode, binDir}, args...)...)
	s.cmd.Env, s.cmd.Stdout, s.cmd.Stderr = append(s.env, "PATH=/usr/sbin:/usr/bin:/sbin:/bin"), s.log, s.log
	c.started = s
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.cmd.Wait(); close(s.ended) }()
	t.Cleanup(func() {
		c.stop(t)
		if t.Failed() {
			t.Logf("log:\n%s", s.log)
		}
	})
	return c
}

// otherUsers is for what runs programs as another user than the tests'.
func otherUsers(t testing.TB) {
	t.Helper()
	if b, err := os.ReadFile("/proc/self/uid_map"); err != nil || len(strings.Fields(string(b))) != 3 || strings.Fields(string(b))[2] == "1" {
		need.Missing(t, "root, for containers with another user", "run the tests as root")
	}
}

// pid1 is the host's number of the container's process 1; 0 if there is none.
func (c *container) pid1(t *testing.T) int {
	if pids := pidsBelow(t, c.started); len(pids) > 0 {
		return pids[0]
	}
	return 0
}

func (c *container) stop(t *testing.T) time.Duration {
	t.Helper()
	begin := time.Now()
	if pid := c.pid1(t); pid != 0 {
		syscall.Kill(pid, syscall.SIGTERM)
	}
	select {
	case <-c.ended:
	case <-time.After(10 * time.Second):
		c.cmd.Process.Kill()
		t.Error("the container does not stop")
	}
	return time.Since(begin)
}

// exec runs a command in the container, as docker exec does.
func (c *container) exec(t *testing.T, args ...string) (string, error) {
	t.Helper()
	enter := []string{"--target", fmt.Sprint(c.pid1(t)), "--mount", "--pid", "--root", "--wd", "--setuid", c.user, "--setgid", c.user, "/entrypoint"}
	cmd := exec.Command("nsenter", append(enter, args...)...)
	cmd.Env = c.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (c *container) healthy(t *testing.T, want string) {
	t.Helper()
	eventually(t, time.Minute, func() error {
		out, err := c.exec(t, "healthcheck")
		// A tailnet without other nodes is a note.
		if said, _, _ := strings.Cut(strings.TrimSpace(out), " (the tailnet"); err != nil || said != want {
			return fmt.Errorf("healthcheck: %v: %q, want %q", err, out, want)
		}
		return nil
	})
}

// The mistake it guards: an image that works for root only, or with a writable
// root file system only; and a node key that each update changes.
func TestContainerAnyUser(t *testing.T) {
	volume := t.TempDir()
	var key []byte
	for i, mode := range []string{"read-only", "writable", "read-only"} {
		// The arguments are in process 1 only; the health check must know.
		c := runContainer(t, volume, 65532, mode, []string{"HOSTNAME=192.0.2.1", "VERIFY_CLIENTS=false"}, "-a", ":8443")
		c.healthy(t, "ok: stun, https, derp")
		if out, err := c.exec(t, "derpmap"); err != nil || derpMapNode(t, out).DERPPort != 8443 || !derpMapNode(t, out).CanPort80 {
			t.Errorf("derpmap: %v: %s", err, out)
		}
		if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", c.pid1(t))); filepath.Base(exe) != "entrypoint" {
			t.Errorf("process 1 is %s, want entrypoint", exe)
		}
		b, err := os.ReadFile(filepath.Join(volume, "derper_node.json"))
		if err != nil || i > 0 && string(b) != string(key) {
			t.Errorf("container %d: the node key is another one (%v)", i+1, err)
		}
		key = b
		if took := c.stop(t); took > stopLimit {
			t.Errorf("took %v to stop", took)
		}
	}
}

// The mistake it guards: a relay that cannot start where nothing can be
// written, although certificate and all are there.
func TestContainerNothingWritable(t *testing.T) {
	volume := t.TempDir()
	crt, key, err := signedPair("derp.example.com", 90*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"derp.example.com.crt": crt, "derp.example.com.key": key} {
		if err := os.WriteFile(filepath.Join(volume, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c := runContainer(t, volume, 1000, "read-only-all", []string{"HOSTNAME=derp.example.com", "VERIFY_CLIENTS=false"})
	c.healthy(t, "ok: stun, https, derp")
	c.logged(t, "warning: node key: cannot be stored in CERT_DIR")

	// A pair that is replaced by none, and a derper that ends: it has the one before.
	if err := os.WriteFile(filepath.Join(volume, "derp.example.com.crt"), []byte("to be continued\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	process, err := os.FindProcess(c.pid1(t))
	if err != nil {
		t.Fatal(err)
	}
	(&started{cmd: &exec.Cmd{Process: process}}).kill(t, "derper", syscall.SIGKILL)
	c.logged(t, "derper is started with the one that it had")
	eventually(t, time.Minute, func() error {
		out, err := c.exec(t, "healthcheck")
		if err != nil || !strings.HasPrefix(out, "ok: stun, https (/root/derper-certs/derp.example.com.crt: ") {
			return fmt.Errorf("healthcheck: %v: %s", err, out)
		}
		return nil
	})

	// As process 1, the entrypoint gets the orphans of docker exec.
	orphan := exec.Command("nsenter", "--target", fmt.Sprint(c.pid1(t)), "--pid", "sh", "-c", "(sleep 0.1 & sleep 0.2 & sleep 0.3 &)")
	if out, err := orphan.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	eventually(t, time.Minute, func() error {
		below := 0
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", c.pid1(t)))
		for _, path := range tasks {
			b, _ := os.ReadFile(path)
			below += len(strings.Fields(string(b)))
		}
		if below != 1 {
			return fmt.Errorf("%d processes below process 1, want derper only", below)
		}
		return nil
	})
	if took := c.stop(t); took > stopLimit {
		t.Errorf("took %v to stop", took)
	}
}

// The mistake it guards: a tailscaled in the image that needs root, a device,
// or a writable root.
func TestContainerTailscaled(t *testing.T) {
	env := []string{"ADDR=:443", "STUN_PORT=3478"}
	server := control(t, env)
	volume := t.TempDir()
	for i, mode := range []string{"read-only", "writable"} {
		c := runContainer(t, volume, 65532, mode, append(env, "HOSTNAME=127.0.0.1", "TS_AUTHKEY="+testKey, "TS_LOGIN_SERVER="+server.BaseURL()))
		c.logged(t, "is ready to verify clients")
		c.healthy(t, "ok: stun, https, derp, verification")
		if took := c.stop(t); took > stopLimit {
			t.Errorf("took %v to stop", took)
		}
		if n := machines(server); n != 1 {
			t.Errorf("after %d containers the tailnet has %d machines, want 1", i+1, n)
		}
	}
	if b, _ := os.ReadFile(filepath.Join(volume, "tailscaled", "tailscaled.state")); len(b) == 0 {
		t.Error("tailscaled's state is not in the volume")
	}
}

// The mistake it guards: a volume of another user, and a message that does not say whose.
func TestVolumeOfAnother(t *testing.T) {
	program := entrypointBinary(t)
	need.Program(t, "setpriv", "util-linux")
	otherUsers(t)
	dir, err := os.MkdirTemp("", "volume") // that of t.TempDir is closed to others itself
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	certs := filepath.Join(dir, "certs")
	for _, test := range []struct {
		mode os.FileMode
		want string
	}{
		{0o700, fmt.Sprintf("HOSTNAME=%q: certificate cannot be read: %s/%[1]s.crt: uid 65532 may not enter %[2]s, which belongs to uid 0 and has mode 0700: chown it to 65532, or start the container with --user 0", tableName, certs)},
		{0o755, fmt.Sprintf("CERT_DIR=%q: certificates cannot be stored: permission denied; mount a volume there that uid 65532 can write", certs)},
	} {
		if err := os.MkdirAll(certs, test.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(certs, test.mode); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("setpriv", "--reuid=65532", "--regid=65532", "--clear-groups", program, "-http-port=-1", "-a=127.0.0.1:8443")
		cmd.Dir, cmd.Env = "/", append(baseEnv(dir), "HOSTNAME="+tableName, "VERIFY_CLIENTS=false", "CERT_DIR="+certs)
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), test.want) {
			t.Errorf("mode %o: %v:\n%s\nwant %s", test.mode, err, out, test.want)
		}
	}
}
