package container

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/xavieralpha/derper/internal/limit"
	"github.com/xavieralpha/derper/internal/testing/need"
	"github.com/xavieralpha/derper/internal/testing/tartest"
)

func mustTag(t *testing.T) name.Tag {
	t.Helper()
	tag, err := name.NewTag("test:latest")
	if err != nil {
		t.Fatal(err)
	}
	return tag
}

// small is an image without the guest, for what does not run it.
func small(t *testing.T, p v1.Platform, layers ...v1.Layer) v1.Image {
	t.Helper()
	img, err := mutate.AppendLayers(empty.Image, layers...)
	if err == nil {
		img, err = mutate.ConfigFile(img, configFile(t, img, p))
	}
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestOpen(t *testing.T) {
	arm, amd := v1.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}, v1.Platform{OS: "linux", Architecture: "amd64"}
	armImg, amdImg := small(t, arm, layer(t, file("a", "arm"))), small(t, amd, layer(t, file("a", "amd")))
	idx := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: armImg, Descriptor: v1.Descriptor{Platform: &arm}},
		mutate.IndexAddendum{Add: amdImg, Descriptor: v1.Descriptor{Platform: &amd}})

	flat, nested, broken := t.TempDir(), t.TempDir(), t.TempDir()
	if _, err := layout.Write(flat, idx); err != nil {
		t.Fatal(err)
	}
	if _, err := layout.Write(nested, mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: idx})); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(broken, "index.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	single := t.TempDir() // whose only manifest leaves the platform to the config
	if _, err := layout.Write(single, mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: amdImg})); err != nil {
		t.Fatal(err)
	}

	reg := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer reg.Close()
	repo := strings.TrimPrefix(reg.URL, "http://") + "/derper"
	ref := func(tag string) name.Reference {
		r, err := name.ParseReference(repo + ":" + tag)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if err := remote.WriteIndex(ref("all"), idx); err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref("arm"), armImg); err != nil {
		t.Fatal(err)
	}

	want := map[v1.Image]string{}
	for _, img := range []v1.Image{armImg, amdImg} {
		d, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		want[img] = d.String()
	}
	for _, tt := range []struct {
		source   string
		platform v1.Platform
		image    v1.Image
		err      string
	}{
		{flat, arm, armImg, ""}, {flat, amd, amdImg, ""}, {nested, amd, amdImg, ""}, {single, amd, amdImg, ""},
		{repo + ":all", arm, armImg, ""}, {repo + ":arm", arm, armImg, ""},
		{flat, v1.Platform{OS: "linux", Architecture: "arm", Variant: "v6"}, nil, "has no image for linux/arm/v6, only for linux/arm/v7, linux/amd64"},
		{repo + ":all", v1.Platform{OS: "linux", Architecture: "s390x"}, nil, "has no image for linux/s390x, only for"},
		{repo + ":arm", amd, nil, "image is for linux/arm/v7, not for linux/amd64"},
		{repo + ":none", amd, nil, "no such image in 127.0.0.1"},
		{broken, amd, nil, "index.json: corrupt"},
		{"./no/such/dir", amd, nil, "no such file or folder"},
		{"NOT A REFERENCE", amd, nil, "neither a file, nor a folder, nor a reference"},
		{"127.0.0.1:1/derper", amd, nil, "refused"},
	} {
		images, err := Open(t.Context(), tt.source, nil, tt.platform)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) || !strings.HasPrefix(err.Error(), tt.source) {
				t.Errorf("%s for %s: %v, want %q", tt.source, tt.platform, err, tt.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s for %s: %v", tt.source, tt.platform, err)
			continue
		}
		if d, err := images[0].Digest(); err != nil || d.String() != want[tt.image] {
			t.Errorf("%s for %s: %s, %v", tt.source, tt.platform, d, err)
		}
	}
}

func TestRunnable(t *testing.T) {
	binfmt, none := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(none, "status"), []byte("enabled\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(binfmt, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("status", "enabled\n")
	write("qemu-aarch64", "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: POF\noffset 0\n")
	write("qemu-arm", "disabled\ninterpreter /usr/bin/qemu-arm-static\nflags: POF\n")
	write("qemu-s390x", "enabled\ninterpreter /usr/bin/qemu-s390x-static\nflags: PO\n")
	write("qemu-i386", "enabled\ninterpreter /usr/bin/qemu-i386-static\nflags: PO\n")
	// Of those that a kernel can run by itself, this one runs those for Intel.
	kernel := func(arch string) bool { return arch == "386" }
	for _, tt := range []struct{ platform, host, dir, want string }{
		{"linux/amd64", "amd64", "/none", ""},
		{"linux/386", "amd64", "/none", ""},
		{"linux/386", "amd64", binfmt, "qemu-i386 is registered without flag F"},
		{"linux/arm/v7", "arm64", "/none", "binfmt_misc is not mounted"},
		{"linux/arm/v5", "arm64", none, "qemu-arm is not registered with binfmt_misc\nhint: run .ci/emulators as root: this kernel does not run such programs"},
		{"linux/arm64", "amd64", binfmt, ""},
		{"linux/arm64", "amd64", "/none", "binfmt_misc is not mounted\nhint: mount"},
		{"linux/386", "arm64", none, "qemu-i386 is not registered"},
		{"linux/riscv64", "amd64", binfmt, "emulator qemu-riscv64 is not registered with binfmt_misc\nhint: apt-get install qemu-user-static"},
		{"linux/arm/v6", "amd64", binfmt, "qemu-arm is switched off"},
		{"linux/s390x", "amd64", binfmt, "without flag F"},
		{"linux/sparc", "amd64", binfmt, "no emulator is known"},
		{"windows/amd64", "amd64", binfmt, "only linux"},
	} {
		p, err := v1.ParsePlatform(tt.platform)
		if err != nil {
			t.Fatal(err)
		}
		err = runnable(*p, tt.host, tt.dir, kernel)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s on %s: %v, want %q", tt.platform, tt.host, err, tt.want)
		}
	}
}

// TestRuns guards against a kernel that is taken to run what it does not. What one does by
// itself is not the same everywhere, so it is compared with a program that Go makes.
func TestRuns(t *testing.T) {
	arch, ok := compat[runtime.GOARCH]
	if !ok {
		need.Missing(t, "a kernel with programs of 32 bits", "run it on amd64 or arm64")
	}
	dir := t.TempDir()
	source, program := filepath.Join(dir, "main.go"), filepath.Join(dir, "main")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-o", program, source)
	cmd.Env = append(os.Environ(), "GOARCH="+arch, "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := exec.Command(program).Run(); runs(arch) != (err == nil) {
		t.Errorf("runs(%s) is %v, and a program: %v", arch, runs(arch), err)
	}
}

// TestCPU guards against an emulator that runs what the platform's processors cannot.
func TestCPU(t *testing.T) {
	for platform, want := range map[string]string{
		"linux/arm/v5": "QEMU_CPU=arm926", "linux/arm/v6": "QEMU_CPU=arm1176", "linux/arm/v7": "QEMU_CPU=cortex-a7", "linux/arm64": "", "linux/amd64": "",
	} {
		p, err := v1.ParsePlatform(platform)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(cpu(*p), " "); got != want {
			t.Errorf("%s: %q, not %q", platform, got, want)
		}
	}
}

// TestHiddenBinfmt guards against a privileged container, whose /proc is its own, that
// takes the host's emulators for missing.
func TestHiddenBinfmt(t *testing.T) {
	need.Root(t, "to hide a mount")
	need.Namespaces(t)
	cmd := exec.Command(need.Program(t, "unshare", "util-linux"), "--mount", "--pid", "--fork", "--mount-proc", os.Args[0])
	cmd.Env = append(os.Environ(), helperEnv+"=binfmt")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// hiddenBinfmt is the part of TestHiddenBinfmt in the container.
func hiddenBinfmt() error {
	if _, err := os.Stat(binfmtDir + "/status"); err == nil {
		return errors.New("binfmt_misc is mounted here: nothing is tested")
	}
	dir, done := openBinfmt()
	defer done()
	_, err := os.ReadFile(dir + "/status")
	return err
}

// TestForeign runs programs of other architectures: one emulated, and one that most kernels of amd64 run by themselves.
func TestForeign(t *testing.T) {
	foreign := []string{"arm64", "386"}
	if runtime.GOARCH == "arm64" {
		foreign = []string{"amd64"}
	}
	for _, arch := range foreign {
		p := v1.Platform{OS: "linux", Architecture: arch}
		for _, r := range []Runner{Native(), Docker()} {
			t.Run(arch+"/"+r.String(), func(t *testing.T) {
				if err := Runnable(p); err != nil {
					need.Missing(t, "programs of linux/"+arch+" that run", fmt.Sprintf("run .ci/emulators (%v)", err))
				}
				needed(t, r)
				img := image(t, p)
				hard := Spec{Image: img, Args: []string{"report"}, User: "65532", ReadOnly: true, NoCaps: true, NoNewPrivs: true}
				if got := parseReport(t, finished(t, r, hard, 0)); got.UID != 65532 || got.PID != 1 {
					t.Errorf("%+v", got)
				}
				c := start(t, r, Spec{Image: img})
				waitFor(t, c, "serving")
				if o, err := c.Exec(t.Context(), "guest", "exit", "3"); o.Code != 3 || err != nil {
					t.Errorf("%+v, %v", o, err)
				}
				if err := c.Signal(syscall.SIGTERM); err != nil {
					t.Error(err)
				}
				if code, err := c.Wait(t.Context()); code != 0 || err != nil {
					t.Errorf("%d, %v", code, err)
				}
			})
		}
	}
}

func TestUnpack(t *testing.T) {
	link := func(name, to string, typ byte) entry {
		return entry{tar.Header{Name: name, Linkname: to, Typeflag: typ}, ""}
	}
	img := small(t, host,
		layer(t, file("etc/old", "old"), file("etc/kept", "kept"), file("./dir/a", "first"), link("abs", "/etc/kept", tar.TypeSymlink)),
		layer(t, file("etc/.wh.old", ""), file("dir/a", "second"), link("hard", "dir/a", tar.TypeLink),
			entry{tar.Header{Name: "sticky/", Typeflag: tar.TypeDir, Mode: 0o1777}, ""},
			entry{tar.Header{Name: "closed/", Typeflag: tar.TypeDir, Mode: 0o4000}, ""}, // which is not to stay for ever
			entry{tar.Header{Name: "suid", Typeflag: tar.TypeReg, Mode: 0o4755}, "x"}))
	dir := t.TempDir()
	if err := unpack(img, dir); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"etc/kept": "kept", "dir/a": "second", "hard": "second"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, "etc/old")); err == nil {
		t.Error("a whiteout was ignored")
	}
	for name, want := range map[string]string{"sticky": "dtrwxrwxrwx", "suid": "-rwxr-xr-x", "closed": "drwx------"} {
		if info, err := os.Lstat(filepath.Join(dir, name)); err != nil || info.Mode().String() != want {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if to, err := os.Readlink(filepath.Join(dir, "abs")); to != "/etc/kept" {
		t.Errorf("%q, %v", to, err)
	}
}

// TestUnpackBounds guards against an image that fills the disk: with a file that is not in its tar, and with more of
// one than it may have.
func TestUnpackBounds(t *testing.T) {
	for form, data := range tartest.Sparse("big") {
		l := static.NewLayer(data, types.OCIUncompressedLayer)
		if err := unpack(small(t, host, l), t.TempDir()); !errors.Is(err, limit.ErrSparse) {
			t.Errorf("%s: %v", form, err)
		}
	}
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	left := bounds{bytes: 3000, files: 10}
	for _, want := range []error{nil, errTooLarge} { // each has 2048 bytes
		if err := unpackLayer(root, layer(t, file("a", "a")), &left); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
}

// TestUnpackStaysInside has images that try to write elsewhere.
func TestUnpackStaysInside(t *testing.T) {
	outside := t.TempDir()
	link := func(name, to string, typ byte) entry {
		return entry{tar.Header{Name: name, Linkname: to, Typeflag: typ}, ""}
	}
	for what, entries := range map[string][]entry{
		"dots":                {file("../escaped", "x")},
		"dots in the middle":  {file("a/../../escaped", "x")},
		"through a link":      {link("out", outside, tar.TypeSymlink), file("out/escaped", "x")},
		"through dots link":   {link("out", "../../../../../../../.."+outside, tar.TypeSymlink), file("out/escaped", "x")},
		"hard link":           {link("out", "../../../../../../../.."+outside, tar.TypeSymlink), link("out/escaped", "out", tar.TypeLink)},
		"directory of a link": {link("out", outside, tar.TypeSymlink), {tar.Header{Name: "out/escaped/", Typeflag: tar.TypeDir}, ""}},
		"device":              {{tar.Header{Name: "sda", Typeflag: tar.TypeBlock, Devmajor: 8}, ""}},
	} {
		parent := t.TempDir()
		dir := filepath.Join(parent, "rootfs")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unpack(small(t, host, layer(t, entries...)), dir); err == nil || !strings.HasPrefix(err.Error(), "unpack: ") {
			t.Errorf("%s: %v", what, err)
		}
		for _, d := range []string{outside, parent} {
			if _, err := os.Lstat(filepath.Join(d, "escaped")); err == nil {
				t.Errorf("%s: written to %s", what, d)
			}
		}
	}
	// A link to an absolute file is the image's, and writing over it does not touch ours.
	precious := filepath.Join(outside, "precious")
	if err := os.WriteFile(precious, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	unpack(small(t, host, layer(t, link("p", precious, tar.TypeSymlink), file("p", "yours"))), t.TempDir())
	if b, _ := os.ReadFile(precious); string(b) != "mine" {
		t.Error("written through a link")
	}
}

func TestDockerThatDoesNotRun(t *testing.T) {
	t.Setenv("DOCKER_HOST", "unix:///no/such/docker.sock")
	_, err := Docker().Start(t.Context(), Spec{Image: small(t, host)})
	want := "docker does not run"
	if _, lerr := os.Stat("/no/such"); lerr == nil {
		t.Fatal("/no/such exists")
	}
	if err == nil || !strings.Contains(err.Error(), want) && !strings.Contains(err.Error(), "docker is not installed") || !strings.Contains(err.Error(), "\nhint: ") {
		t.Errorf("%v, want %q", err, want)
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := Docker().Start(t.Context(), Spec{Image: small(t, host)}); err == nil || !strings.Contains(err.Error(), "docker is not installed\nhint: ") {
		t.Error(err)
	}
}
