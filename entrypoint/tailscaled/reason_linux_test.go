package tailscaled_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/xavieralpha/derper/entrypoint/tailscaled"
	"github.com/xavieralpha/derper/internal/testing/need"
)

// TestDiagnoseReplaced guards against a relay that lets nobody in after tailscaled was
// upgraded on the host, and says that there is no tailscaled, which there is.
func TestDiagnoseReplaced(t *testing.T) {
	old := filepath.Join(short(t), "tailscale")
	if err := os.Mkdir(old, 0o755); err != nil {
		t.Fatal(err)
	}
	// What is open stays as it is, as a mount does.
	folder, err := os.Open(old)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	socket := fmt.Sprintf("/proc/self/fd/%d/tailscaled.sock", folder.Fd())
	serveAt(t, filepath.Join(old, "tailscaled.sock"), func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"BackendState":"Running"}`)
	})
	if d := tailscaled.Diagnose(t.Context(), tailscaled.Verifier{Socket: socket}); d.Reason != nil {
		t.Fatalf("before: %+v", *d.Reason)
	}
	if err := os.RemoveAll(old); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(old, 0o755); err != nil {
		t.Fatal(err)
	}
	serveAt(t, filepath.Join(old, "tailscaled.sock"), func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"BackendState":"Running"}`)
	})
	d := tailscaled.Diagnose(t.Context(), tailscaled.Verifier{Socket: socket})
	check(t, d.Reason, "the host has made "+filepath.Dir(socket)+" anew, as when tailscaled is upgraded there, and this container still has the old one",
		"restart this container; to keep it from happening again, let the host keep the folder: systemctl edit tailscaled, [Service], RuntimeDirectoryPreserve=yes; or mount the folder above it: -v /run:/host/run:ro,rslave -e SOCKET=/host/run/tailscale/tailscaled.sock")
}

// TestDiagnoseReplacedSocket is the same for a socket that is mounted by itself.
func TestDiagnoseReplacedSocket(t *testing.T) {
	need.Root(t, "to mount a file")
	dir := short(t)
	host, here := filepath.Join(dir, "host"), filepath.Join(dir, "here")
	ln, err := net.Listen("unix", host)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(here, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount(host, here, "", syscall.MS_BIND, ""); err != nil {
		need.Missing(t, "a mount", fmt.Sprintf("start the container with --privileged (mount: %v)", err))
	}
	t.Cleanup(func() { syscall.Unmount(here, syscall.MNT_DETACH) })
	ln.Close() // deletes it, too
	d := tailscaled.Diagnose(t.Context(), tailscaled.Verifier{Socket: here})
	check(t, d.Reason, "the host has made "+here+" anew, as when tailscaled is restarted there",
		"restart this container; to keep it from happening again, mount the folder, not the socket: -v /var/run/tailscale:/var/run/tailscale")
}

// TestDiagnoseReadOnly guards against a hint that does not work: a socket in a folder that
// is mounted read-only.
func TestDiagnoseReadOnly(t *testing.T) {
	dir := short(t)
	host, here := filepath.Join(dir, "host"), filepath.Join(dir, "here")
	for _, d := range []string{host, here} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	need.Mount(t, host, "size=1m")
	serveAt(t, filepath.Join(host, "s"), func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"BackendState":"Running"}`)
	})
	if err := syscall.Mount(host, here, "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(here, syscall.MNT_DETACH) })
	if err := syscall.Mount("", here, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(here, "x"), nil, 0o600); err == nil {
		t.Fatal("the folder is not read-only")
	}
	if d := tailscaled.Diagnose(t.Context(), tailscaled.Verifier{Socket: filepath.Join(here, "s")}); d.Reason != nil {
		t.Errorf("%+v", *d.Reason)
	}
}

// otherUser makes this program print what TestDiagnoseForbidden wants to know.
const otherUser = "DERPER_TEST_DIAGNOSE"

// TestDiagnoseForbidden guards against a "permission denied" that names neither the socket nor
// the user, from an image that runs as any user.
func TestDiagnoseForbidden(t *testing.T) {
	if socket := os.Getenv(otherUser); socket != "" {
		if r := tailscaled.Diagnose(t.Context(), tailscaled.Verifier{Socket: socket}).Reason; r != nil {
			fmt.Printf("%s\n%s\n", r.What, r.Hint)
		} else {
			fmt.Println("none")
		}
		return
	}
	need.Root(t, "to be another user")
	dir := short(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "test")
	if err := os.WriteFile(program, self, 0o755); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(dir, "tailscale")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(folder, "s")
	serveAt(t, socket, func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"BackendState":"Running"}`)
	})
	for _, test := range []struct {
		folder, socket os.FileMode
		want           string
	}{
		{0o755, 0o666, "none\n"},
		{0o755, 0o600, fmt.Sprintf("uid 65532 may not use %s (owner 0:0, mode Srw-------)\non the host: chmod a+rw %s; or run the container as its owner: --user 0:0\n", socket, socket)},
		{0o750, 0o666, fmt.Sprintf("uid 65532 may not enter %s (owner 0:0, mode drwxr-x---)\non the host: chmod a+x %s; or run the container as its owner: --user 0:0\n", folder, folder)},
	} {
		if err := os.Chmod(folder, test.folder); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(socket, test.socket); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(program, "-test.run=^TestDiagnoseForbidden$")
		cmd.Dir = "/"
		cmd.Env = append(os.Environ(), otherUser+"="+socket)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), test.want) {
			t.Errorf("folder %v, socket %v: %v: %s\nwant %s", test.folder, test.socket, err, out, test.want)
		}
	}
}
