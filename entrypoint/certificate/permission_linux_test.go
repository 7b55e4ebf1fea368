package certificate_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/xavieralpha/derper/entrypoint/certificate"
	"github.com/xavieralpha/derper/internal/testing/need"
)

// loadVariable makes this process one that loads a pair from the folder, and says why it
// cannot.
const loadVariable = "DERPER_TEST_LOAD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(loadVariable); dir != "" {
		_, err := certificate.At(dir, "derp.example.com").Load()
		fmt.Print(err)
		return
	}
	os.Exit(m.Run())
}

// loadAsUser loads a pair as a user to whom permissions apply, whose number it returns: this
// one, or another one than root.
func loadAsUser(t *testing.T, dir string) (string, int) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), loadVariable+"="+dir)
	uid := os.Getuid()
	if uid == 0 {
		uid = 65534
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := cmd.Output()
	if errors.Is(err, fs.ErrPermission) { // root without capabilities
		need.Missing(t, "another user", fmt.Sprintf("run the tests as a user, or as root who may change to one (%v)", err))
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(out), uid
}

// The mistake it guards: "permission denied", from which one cannot tell which folder or file
// on the way is meant, who owns it, and what to do.
func TestPermission(t *testing.T) {
	for _, test := range []struct {
		name  string
		mode  fs.FileMode
		blame func(certificate.Pair) string
		link  bool
		want  string
	}{
		{name: "folder", mode: 0o600, blame: func(p certificate.Pair) string { return filepath.Dir(p.Crt) }, want: "certificate cannot be read: %c: uid %u may not enter %b, which belongs to uid %o and has mode 0600: "},
		{name: "folder above", mode: 0o600, blame: func(p certificate.Pair) string { return filepath.Dir(filepath.Dir(p.Crt)) }, want: "certificate cannot be read: %c: uid %u may not enter %b, which belongs to uid %o"},
		{name: "certificate", mode: 0o200, blame: func(p certificate.Pair) string { return p.Crt }, want: "certificate cannot be read: uid %u may not read %b, which belongs to uid %o and has mode 0200: "},
		{name: "key", mode: 0o200, blame: func(p certificate.Pair) string { return p.Key }, want: "key cannot be read: uid %u may not read %b, which belongs to uid %o and has mode 0200: "},
		{name: "behind a link", mode: 0o200, link: true, blame: func(p certificate.Pair) string { return p.Crt + ".real" }, want: "certificate cannot be read: %c: uid %u may not read %b, which belongs to uid %o"},
	} {
		t.Run(test.name, func(t *testing.T) {
			base, err := filepath.EvalSymlinks(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			// The user must get to what is tried.
			if err := errors.Join(os.Chmod(base, 0o755), os.Chmod(filepath.Dir(base), 0o755)); err != nil {
				t.Fatal(err)
			}
			p := certificate.At(filepath.Join(base, "etc", "certs"), "derp.example.com")
			if err := p.Create(now); err != nil {
				t.Fatal(err)
			}
			// These would do.
			for name, mode := range map[string]fs.FileMode{filepath.Join(base, "etc"): 0o755, filepath.Dir(p.Crt): 0o755, p.Key: 0o644} {
				if err := os.Chmod(name, mode); err != nil {
					t.Fatal(err)
				}
			}
			if test.link {
				if err := errors.Join(os.Rename(p.Crt, p.Crt+".real"), os.Symlink(p.Crt+".real", p.Crt)); err != nil {
					t.Fatal(err)
				}
			}
			if got, uid := loadAsUser(t, filepath.Dir(p.Crt)); got != "<nil>" {
				t.Fatalf("before, uid %d: %s", uid, got)
			}
			blame := test.blame(p)
			if err := os.Chmod(blame, test.mode); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.Chmod(blame, 0o700) })
			got, uid := loadAsUser(t, filepath.Dir(p.Crt))
			advice := fmt.Sprintf("chown it to %d, or start the container with --user %d", uid, os.Getuid())
			if uid == os.Getuid() {
				advice = "chmod u+rX it"
			}
			want := strings.NewReplacer("%u", fmt.Sprint(uid), "%o", fmt.Sprint(os.Getuid()), "%b", blame).Replace(test.want)
			says(t, p, errors.New(got), want, advice)
		})
	}
}
