package certificate_test

import (
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xavieralpha/derper/entrypoint/certificate"
)

var now = time.Date(2026, 8, 1, 0, 0, 0, 0, time.UTC)

// made is a new pair.
func made(t *testing.T, host string) certificate.Pair {
	t.Helper()
	p := certificate.At(t.TempDir(), host)
	if err := p.Create(now); err != nil {
		t.Fatal(err)
	}
	return p
}

func read(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func write(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// The mistake it guards: a pair that derper would end on, or overwrite, and an error
// that does not say what to do.
func TestLoadRefuses(t *testing.T) {
	for _, test := range []struct {
		name   string
		damage func(p, other certificate.Pair) error
		words  []string // %c is the certificate, %k the key
	}{
		{"no key", func(p, _ certificate.Pair) error { return os.Remove(p.Key) }, []string{"%c has no key: put it at %k"}},
		{"no certificate", func(p, _ certificate.Pair) error { return os.Remove(p.Crt) }, []string{"%k has no certificate: put it at %c"}},
		{"another key", func(p, other certificate.Pair) error { return os.Rename(other.Key, p.Key) }, []string{"%k is not the key of %c"}},
		{"another host", func(p, other certificate.Pair) error {
			return errors.Join(os.Rename(other.Key, p.Key), os.Rename(other.Crt, p.Crt))
		}, []string{"%c: the certificate is for other.example.com, not for derp.example.com", "set HOSTNAME"}},
		{"exchanged", func(p, _ certificate.Pair) error {
			return errors.Join(os.Rename(p.Key, p.Key+"x"), os.Rename(p.Crt, p.Key), os.Rename(p.Key+"x", p.Crt))
		}, []string{"%c holds the key and %k the certificate: exchange the two"}},
		{"the key in both", func(p, _ certificate.Pair) error { return errors.Join(os.Remove(p.Crt), os.Link(p.Key, p.Crt)) }, []string{"%c: there is no PEM certificate in it: it holds a private key", "then its chain"}},
		{"the certificate in both", func(p, _ certificate.Pair) error { return errors.Join(os.Remove(p.Key), os.Link(p.Crt, p.Key)) }, []string{"%k: there is no PEM key in it: it holds a certificate", "one unencrypted RSA, ECDSA or Ed25519 key"}},
		{"an empty certificate", func(p, _ certificate.Pair) error { return os.Truncate(p.Crt, 0) }, []string{"%c: there is no PEM certificate in it: it is empty"}},
		{"a folder", func(p, _ certificate.Pair) error { return errors.Join(os.Remove(p.Crt), os.Mkdir(p.Crt, 0o700)) }, []string{"certificate cannot be read: %c is a folder: Docker makes one"}},
		{"a folder as the key", func(p, _ certificate.Pair) error { return errors.Join(os.Remove(p.Key), os.Mkdir(p.Key, 0o700)) }, []string{"key cannot be read: %k is a folder"}},
		{"a named pipe", func(p, _ certificate.Pair) error { return errors.Join(os.Remove(p.Key), syscall.Mkfifo(p.Key, 0o600)) }, []string{"key cannot be read: %k is no regular file"}},
		{"a file of another kind", func(p, _ certificate.Pair) error { return os.Truncate(p.Crt, 1<<30) }, []string{"%c has 1073741824 bytes"}},
		{"a link to itself", func(p, _ certificate.Pair) error { return errors.Join(os.Remove(p.Crt), os.Symlink(p.Crt, p.Crt)) }, []string{"%c is a link that leads back to itself"}},
		{"half of each", func(p, _ certificate.Pair) error { return errors.Join(os.Truncate(p.Crt, 100), os.Truncate(p.Key, 50)) }, []string{"%c: ", "it is cut short", "copy it again"}},
		{"half of the key", func(p, _ certificate.Pair) error { return os.Truncate(p.Key, 50) }, []string{"%k: ", "it is cut short", "copy it again"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := made(t, "derp.example.com")
			if err := test.damage(p, made(t, "other.example.com")); err != nil {
				t.Fatal(err)
			}
			_, err := p.Load()
			if err == nil || errors.Is(err, certificate.ErrMissing) {
				t.Fatal(err)
			}
			for _, words := range test.words {
				words = strings.NewReplacer("%c", p.Crt, "%k", p.Key).Replace(words)
				if !strings.Contains(err.Error(), words) {
					t.Errorf("%q does not say %q", err, words)
				}
			}
			if strings.Contains(err.Error(), "PRIVATE") {
				t.Errorf("%q shows what is in a file", err)
			}
		})
	}
}

// The mistake it guards: a file of the user's that is written over, and half a pair, which
// would stop the next start.
func TestCreateOverFiles(t *testing.T) {
	for _, taken := range []string{"both", "key", "crt"} {
		t.Run(taken, func(t *testing.T) {
			p := certificate.At(t.TempDir(), "derp.example.com")
			var mine []string
			if taken != "crt" {
				mine = append(mine, p.Key)
			}
			if taken != "key" {
				mine = append(mine, p.Crt)
			}
			for _, name := range mine {
				write(t, name, "mine")
			}
			if err := p.Create(now); !errors.Is(err, fs.ErrExist) {
				t.Errorf("%v", err)
			}
			for _, name := range mine {
				if read(t, name) != "mine" {
					t.Errorf("%s was written over", name)
				}
			}
			if files, err := os.ReadDir(filepath.Dir(p.Crt)); err != nil || len(files) != len(mine) {
				t.Errorf("%d files, not %d: %v", len(files), len(mine), err)
			}
		})
	}
}

// The mistake it guards: a key that others can read.
func TestCreateModes(t *testing.T) {
	p := certificate.At(filepath.Join(t.TempDir(), "new"), "derp.example.com")
	if err := p.Create(now); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]fs.FileMode{p.Key: 0o600, p.Crt: 0o644, filepath.Dir(p.Key): 0o700} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm()&^mode != 0 {
			t.Errorf("%s: %v, %v; want at most %v", name, info.Mode(), err, mode)
		}
	}
}

// The mistake it guards: a pin that no client accepts, and a new pair that the relay does
// not notice.
func TestPinAndSame(t *testing.T) {
	p := made(t, "10.0.0.1")
	first, err := p.Load()
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(read(t, p.Crt)))
	if want := fmt.Sprintf("sha256-raw:%x", sha256.Sum256(block.Bytes)); first.Pin() != want || !first.SelfSigned {
		t.Errorf("%s, self-signed %v; want %s", first.Pin(), first.SelfSigned, want)
	}
	again, err := p.Load()
	if err != nil || !again.Same(first) {
		t.Errorf("read twice, it is another: %v", err)
	}
	// The chain counts too: derper serves it.
	write(t, p.Crt, read(t, p.Crt)+read(t, made(t, "ca.example.com").Crt))
	longer, err := p.Load()
	if err != nil || longer.Same(first) || longer.Pin() != first.Pin() {
		t.Errorf("with a chain: %v, the same %v", err, longer.Same(first))
	}
}

// The mistake it guards: a folder that is found to be unusable when it is needed, and one
// in which a probe leaves something.
func TestWritable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	if err := certificate.Writable(dir); err != nil {
		t.Error(err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
		t.Errorf("left: %v, %v", files, err)
	}
	file := filepath.Join(dir, "file")
	write(t, file, "")
	for _, name := range []string{file, filepath.Join(file, "below")} {
		if err := certificate.Writable(name); err == nil {
			t.Errorf("%s is a folder", name)
		}
	}
}
