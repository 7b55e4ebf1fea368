package certificate_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xavieralpha/derper/entrypoint/certificate"
)

// The mistake it guards: file names that differ from derper's, and messages from which one
// cannot tell in which folder they are.
func TestAt(t *testing.T) {
	t.Chdir(t.TempDir())
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{
		"derp.example.com": "derp.example.com", "10.0.0.1": "10.0.0.1", "2001:db8::1": "2001db81", "::1": "1", "a_b": "ab",
	} {
		want = filepath.Join(dir, "d", want)
		if p := certificate.At("d", host); p.Crt != want+".crt" || p.Key != want+".key" || p.Host != host {
			t.Errorf("%s: %+v", host, p)
		}
	}
}

// The mistake it guards: certbot's live/ alone that is mounted, and an error that says "no
// such file" of one that the user sees on the host; or worse, a pair that is made anew.
func TestDanglingLinks(t *testing.T) {
	const host = "derp.example.com"
	for _, test := range []struct {
		name  string
		links [][2]string // from, below the folder; to, as written, with %d for the folder
		dirs  []string
		want  string // with %d for the folder, and %c as in says
	}{
		{
			name: "certbot, live alone", dirs: []string{"letsencrypt/live/" + host},
			links: [][2]string{
				{"letsencrypt/live/" + host + "/fullchain.pem", "../../archive/" + host + "/fullchain1.pem"},
				{"certs/" + host + ".crt", "%d/letsencrypt/live/" + host + "/fullchain.pem"},
			},
			want: "%d/letsencrypt/live/derp.example.com/fullchain.pem is a link to ../../archive/derp.example.com/fullchain1.pem, which does not exist here: %c leads there; mount %d/letsencrypt as a whole",
		},
		{
			name:  "certbot, nothing of it",
			links: [][2]string{{"certs/" + host + ".crt", "/no-etc/letsencrypt/live/fullchain.pem"}},
			want:  "%c is a link to /no-etc/letsencrypt/live/fullchain.pem, which does not exist here: mount /no-etc too, at the same path",
		},
		{
			name:  "out of the mount, a folder above it",
			links: [][2]string{{"certs/" + host + ".crt", "../../../../../../../../../no-archive/fullchain1.pem"}},
			want:  "no-archive/fullchain1.pem, which does not exist here: mount the folder of the host that holds both the link and its target (certbot's is /etc/letsencrypt, not live/ alone)",
		},
		{
			name:  "beside it",
			links: [][2]string{{"certs/" + host + ".crt", "fullchain.pem"}},
			want:  "%c is a link to fullchain.pem, which does not exist here: mount %d/certs as a whole, with the link and its target",
		},
		{
			name: "a link to a folder that is there", dirs: []string{"letsencrypt"},
			links: [][2]string{{"le", "letsencrypt"}, {"certs/" + host + ".crt", "../le/live/fullchain.pem"}},
			want:  "%c is a link to ../le/live/fullchain.pem, which does not exist here: mount %d as a whole",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir, err := filepath.EvalSymlinks(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range append(test.dirs, "certs") {
				if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			for _, l := range test.links {
				if err := os.Symlink(strings.ReplaceAll(l[1], "%d", dir), filepath.Join(dir, l[0])); err != nil {
					t.Fatal(err)
				}
			}
			p := certificate.At(filepath.Join(dir, "certs"), host)
			_, err = p.Load() // no key either
			says(t, p, err, "certificate cannot be read: ", strings.ReplaceAll(test.want, "%d", dir))
			if errors.Is(err, certificate.ErrMissing) || errors.Is(err, os.ErrNotExist) {
				t.Errorf("%v is taken for a pair that does not exist", err)
			}
		})
	}
}

// The mistake it guards: links that are good, as Kubernetes and certbot make them, and are
// refused; and a folder behind a link whose pair is only not made yet.
func TestGoodLinks(t *testing.T) {
	made := made(t, "derp.example.com")
	dir := t.TempDir()
	folder := filepath.Join(dir, "folder")
	p := certificate.At(dir, made.Host)
	if err := errors.Join(os.Symlink(filepath.Dir(made.Crt), folder), os.Symlink("folder/"+filepath.Base(made.Crt), p.Crt), os.Symlink(made.Key, p.Key)); err != nil {
		t.Fatal(err)
	}
	load(t, p)
	if _, err := certificate.At(folder, "other.example.com").Load(); !errors.Is(err, certificate.ErrMissing) {
		t.Error(err)
	}
}

// The mistake it guards: CERT_DIR that is a file, or below one, in an error without advice.
func TestFolderIsFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "")
	p := certificate.At(file, "derp.example.com")
	_, err := p.Load()
	says(t, p, err, "certificate cannot be read: %c cannot be, because "+file+" is not a folder", "set CERT_DIR to one")
}

// The mistake it guards: a private key that is written through a link, which somebody put into
// the folder under the name of a temporary file, and a start that a killed one's files stop.
func TestPlantedLinks(t *testing.T) {
	p := certificate.At(t.TempDir(), "10.0.0.1")
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("as it was"), 0o644); err != nil {
		t.Fatal(err)
	}
	plant := func() {
		t.Helper()
		for _, name := range []string{p.Key, p.Crt} {
			for _, end := range []string{".new", ".tmp", ".renew", ".old"} {
				os.Remove(name + end)
				if err := os.Symlink(victim, name+end); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	plant()
	if err := p.Create(now); err != nil {
		t.Fatal(err)
	}
	first := load(t, p)
	plant()
	if _, err := p.Renew(now); err != nil {
		t.Fatal(err)
	}
	if load(t, p).Same(first) {
		t.Error("the pair is the old one")
	}
	plant()
	if err := p.Recover(); err != nil {
		t.Error(err)
	}
	for name, mode := range map[string]os.FileMode{p.Key: 0o600, p.Crt: 0o644} {
		if info, err := os.Lstat(name); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if data, err := os.ReadFile(victim); err != nil || string(data) != "as it was" {
		t.Errorf("written through a link: %q, %v", data, err)
	}
}
