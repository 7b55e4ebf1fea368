package main

import (
	"net"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/testing/need"
)

// TestLoadedImageAnswers guards --load: what Docker has then is the image that the
// lock records, and it relays, with its ports published on 127.0.0.1.
func TestLoadedImageAnswers(t *testing.T) {
	need.Docker(t)
	dir, err := realBuild()
	if err != nil {
		t.Fatal(err)
	}
	var out, errs strings.Builder
	if code := run(t.Context(), []string{"--lock", "../../" + lock.File, "--output", dir, "--load"}, &out, &errs); code != cli.ExitOK {
		t.Fatal(errs.String())
	}
	l, err := lock.Read("../../" + lock.File)
	if err != nil {
		t.Fatal(err)
	}
	ref := "derper:" + l.Inputs.Tailscale.Short()
	recorded, _ := l.Output().Platform("linux/" + lock.Platform(runtime.GOARCH))
	if id := docker(t, "image", "inspect", "--format", "{{.Id}}", ref); id != recorded.Config {
		t.Errorf("Docker has image %s, the lock records config %s", id, recorded.Config)
	}

	id := docker(t, "run", "-d", "-e", "VERIFY_CLIENTS=false",
		"-p", "127.0.0.1::443", "-p", "127.0.0.1::80", "-p", "127.0.0.1::3478/udp", ref)
	t.Cleanup(func() { docker(t, "rm", "-f", id) })
	port := func(inside string) string {
		_, port, err := net.SplitHostPort(docker(t, "port", id, inside))
		if err != nil {
			t.Fatal(err)
		}
		return port
	}
	args := []string{"--insecure", "--stun-port", port("3478/udp"), "--http-port", port("80/tcp"), "127.0.0.1:" + port("443/tcp")}
	wants := []string{"pass  stun/ipv4 ", "pass  tls/handshake ", "pass  derp/relay ", "pass  http/204-port-80 "}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		rows, _, _ := probeArgs(t, args...)
		lacks := slices.DeleteFunc(slices.Clone(wants), func(want string) bool { return strings.Contains(rows, want) })
		if len(lacks) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no rows %q:\n%s\n%s", lacks, rows, docker(t, "logs", id))
		}
	}
}

// docker runs a docker command and returns what it prints.
func docker(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("docker", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("docker %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}
