// Package need is how tests say what they need of a machine. On a machine without it, a
// test is skipped in one line that names what to install or to do. Where the variable
// DERPER_TESTS is set, which .ci/run and .ci/weekly do, such a test fails instead: there,
// no test is left out by mistake.
//
// Nothing else skips a test.
package need

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Variable names the tests that are run: those that a machine with nothing but Go can run
// in a few minutes where it is not set; all but the longest with the value gate, all with
// weekly.
const Variable = "DERPER_TESTS"

// Values of Variable.
const (
	Gate   = "gate"
	Weekly = "weekly"
)

// level is the value of Variable.
func level(t testing.TB) string {
	t.Helper()
	value := os.Getenv(Variable)
	if !slices.Contains([]string{"", Gate, Weekly}, value) {
		t.Fatalf("%s is %q, expected %s or %s", Variable, value, Gate, Weekly)
	}
	return value
}

// Missing skips the test, or fails it where Variable is set: the machine lacks what it
// needs, and do says what to install or to do.
func Missing(t testing.TB, what, do string) {
	t.Helper()
	line := fmt.Sprintf("needs %s: %s", what, do)
	if level(t) != "" {
		t.Fatalf("%s (%s is set: nothing may be left out)", line, Variable)
	}
	t.Skip(line)
}

// Minutes skips a test that takes minutes, what says of which work, unless Variable is set.
func Minutes(t testing.TB, what string) {
	t.Helper()
	if level(t) == "" {
		t.Skipf("needs minutes (%s): set %s=%s, as .ci/run does", what, Variable, Gate)
	}
}

// HasAWeek reports whether Variable has the value Weekly.
func HasAWeek(t testing.TB) bool {
	t.Helper()
	return level(t) == Weekly
}

// AWeek skips a test that is not worth its time with each change, what says of which work,
// unless Variable has the value Weekly.
func AWeek(t testing.TB, what string) {
	t.Helper()
	if !HasAWeek(t) {
		t.Skipf("needs much time (%s): set %s=%s, as .ci/weekly does", what, Variable, Weekly)
	}
}

// Linux is for what only Linux has.
func Linux(t testing.TB) {
	t.Helper()
	if runtime.GOOS != "linux" {
		Missing(t, "Linux", "run it there, or in a container")
	}
}

// Root is for what takes root; why says what does.
func Root(t testing.TB, why string) {
	t.Helper()
	Linux(t)
	if os.Getuid() != 0 {
		Missing(t, "root, "+why, "run the tests as root")
	}
}

// Program is the path of a program, which a Debian package has.
func Program(t testing.TB, name, debian string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(t, name, "install Debian's package "+debian)
	}
	return path
}

// docker asks for Docker once.
var docker = sync.OnceValue(func() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", "version", "--format", "{{.Server.Version}}")
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return errors.New("docker version: no answer within 30 seconds")
	}
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.Join(strings.Fields(string(out)), " "))
	}
	return nil
})

// Docker is for what needs a Docker that runs.
func Docker(t testing.TB) {
	t.Helper()
	if err := docker(); err != nil {
		Missing(t, "Docker", fmt.Sprintf("install docker.io and start dockerd (%v)", err))
	}
}

// HasIPv6 says why nothing can listen on ::1; nil where it can.
func HasIPv6() error {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		return err
	}
	return l.Close()
}

// IPv6 is for what listens on ::1.
func IPv6(t testing.TB) {
	t.Helper()
	if err := HasIPv6(); err != nil {
		Missing(t, "IPv6 on loopback", fmt.Sprintf("sysctl net.ipv6.conf.lo.disable_ipv6=0 (%v)", err))
	}
}

// Browser is the path of a browser that needs no screen.
func Browser(t testing.TB) string {
	t.Helper()
	for _, name := range []string{"chromium-headless-shell", "chromium", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	Missing(t, "a browser", "install chromium-headless-shell")
	return ""
}
