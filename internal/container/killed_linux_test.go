package container

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// helper is a tester that starts a container of the image in the tarball os.Args[1] and hangs.
func helper() {
	r := Native()
	if os.Getenv(helperEnv) == "docker" {
		r = Docker()
	}
	img, err := tarball.ImageFromPath(os.Args[1], nil)
	if err == nil {
		_, err = r.Start(context.Background(), Spec{Image: img})
	}
	fmt.Println("started", err)
	time.Sleep(time.Hour)
}

// TestKilled kills the tester itself with SIGKILL. Native containers end with it, Docker's cannot; the next run removes
// what is left.
func TestKilled(t *testing.T) {
	for _, name := range []string{"native", "docker"} {
		t.Run(name, func(t *testing.T) {
			r := Native()
			if name == "docker" {
				r = dockerOrSkip(t)
			}
			file := t.TempDir() + "/image.tar"
			if err := tarball.WriteToFile(file, mustTag(t), image(t, v1.Platform{OS: "linux", Architecture: runtime.GOARCH})); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("/proc/self/exe", file)
			cmd.Env = append(os.Environ(), helperEnv+"="+name)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(out).ReadString('\n')
			if err != nil || !strings.HasPrefix(line, "started <nil>") {
				t.Errorf("%s%v", line, err)
			}
			// A run that lives is not swept.
			if err := r.Sweep(t.Context()); err != nil {
				t.Error(err)
			}
			dir, err := stateDir()
			if err != nil {
				t.Fatal(err)
			}
			if e, err := os.ReadDir(dir); len(e) != 1 {
				t.Errorf("%d runs, %v", len(e), err)
			}
			cmd.Process.Kill()
			cmd.Wait()
			if err := r.Sweep(t.Context()); err != nil {
				t.Error(err)
			}
			nothingLeft(t, r)
		})
	}
}
