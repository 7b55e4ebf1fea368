package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const binfmtDir = "/proc/sys/fs/binfmt_misc"

// qemu is the emulator of each architecture, by the name under which distributions register it.
var qemu = map[string]string{
	"386": "qemu-i386", "amd64": "qemu-x86_64", "arm64": "qemu-aarch64", "arm": "qemu-arm", "ppc64le": "qemu-ppc64le",
	"riscv64": "qemu-riscv64", "s390x": "qemu-s390x", "loong64": "qemu-loongarch64",
}

// compat is the architecture whose programs the kernel of another one runs as well, on most
// machines: not every processor of ARM can, nor every virtual machine.
var compat = map[string]string{"amd64": "386", "arm64": "arm"}

// cpu is what an emulator needs in the environment to be a processor that has no more than the
// platform promises, and so ends a program that asks for more. Without it, QEMU has every
// instruction of ARM. On a real processor it does nothing.
func cpu(p v1.Platform) []string {
	switch p.Architecture + p.Variant {
	case "armv5":
		return []string{"QEMU_CPU=arm926"}
	case "armv6":
		return []string{"QEMU_CPU=arm1176"}
	case "armv7":
		return []string{"QEMU_CPU=cortex-a7"}
	}
	return nil
}

// Runnable says what is missing on this machine to run programs of a platform; nil if nothing is.
func Runnable(p v1.Platform) error {
	dir, done := openBinfmt()
	defer done()
	return runnable(p, runtime.GOARCH, dir, runs)
}

// runnable asks runs whether the kernel runs an architecture of compat by itself.
func runnable(p v1.Platform, host, binfmt string, runs func(arch string) bool) error {
	if p.OS != "linux" {
		return fmt.Errorf("%s: only linux images can be run", p)
	}
	if p.Architecture == host {
		return nil
	}
	handler, ok := qemu[p.Architecture]
	if !ok {
		return fmt.Errorf("%s: no emulator is known for it on linux/%s", p, host)
	}
	install := "apt-get install qemu-user-static binfmt-support, or docker run --privileged --rm tonistiigi/binfmt --install all"
	if p.Architecture == compat[host] {
		// An emulator comes before what the kernel does by itself.
		if _, err := os.Stat(binfmt + "/" + handler); err != nil && runs(p.Architecture) {
			return nil
		}
		install = "run .ci/emulators as root: this kernel does not run such programs by itself, and packages leave that emulator out"
	}
	missing := func(what, hint string) error {
		return fmt.Errorf("%s: cannot run on linux/%s: %s\nhint: %s", p, host, what, hint)
	}
	if _, err := os.Stat(binfmt + "/status"); err != nil {
		return missing("binfmt_misc is not mounted", "mount -t binfmt_misc binfmt_misc "+binfmtDir+"; then "+install)
	}
	b, err := os.ReadFile(binfmt + "/" + handler)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return missing("emulator "+handler+" is not registered with binfmt_misc", install)
	case err != nil:
		return fmt.Errorf("%s: %w", p, err)
	case !strings.HasPrefix(string(b), "enabled"):
		return missing("emulator "+handler+" is switched off", "echo 1 >"+binfmtDir+"/"+handler)
	}
	for line := range strings.Lines(string(b)) {
		if flags, ok := strings.CutPrefix(line, "flags:"); ok && strings.Contains(flags, "F") {
			return nil
		}
	}
	return missing("emulator "+handler+" is registered without flag F, so that containers do not find it", "register it anew: "+install)
}
