package tool

import (
	"os/exec"
	"strings"
	"testing"
)

// TestBuild has a user's settings in the way, and a process that has left its folder.
func TestBuild(t *testing.T) {
	environment = append(environment, "GOFLAGS=-mod=vendor -tags=x", "GOWORK=/nowhere")
	t.Chdir(t.TempDir())
	t.Setenv("HOME", t.TempDir())
	out, err := exec.Command(Build(t, "registry"), "--version").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "distribution/distribution") {
		t.Errorf("%v: %s", err, out)
	}
}
