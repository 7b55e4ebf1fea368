package container

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sync/errgroup"
)

// helper is a tester that starts a container of the image in the tarball os.Args[1] and hangs.
func helper() {
	r := Native()
	if os.Getenv(helperEnv) == "binfmt" {
		if err := hiddenBinfmt(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
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
				r = Docker()
			}
			needed(t, r)
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

// TestShimKilled kills the process between the tester and the container.
func TestShimKilled(t *testing.T) {
	c := start(t, needed(t, Native()), Spec{})
	waitFor(t, c, "serving")
	c.(*nativeContainer).cmd.Process.Kill()
	if code, err := c.Wait(within(t, time.Minute)); code != 137 || err != nil {
		t.Errorf("%d, %v", code, err)
	}
	if err := c.Signal(syscall.SIGTERM); err == nil {
		t.Error("signal to a container that is gone")
	}
	if _, err := c.Exec(within(t, time.Minute), "guest", "report"); err == nil {
		t.Error("exec in a container that is gone")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, Native())
}

// TestMany runs containers side by side, each with the same ports inside.
func TestMany(t *testing.T) {
	needed(t, Native())
	img := image(t, host)
	var g errgroup.Group
	for range 10 {
		g.Go(func() error {
			p := Port{Number: 80, Proto: "tcp"}
			c, err := Native().Start(t.Context(), Spec{Image: img, Ports: []Port{p}})
			if err != nil {
				return err
			}
			defer c.Close()
			if err := logged(c, "serving"); err != nil {
				return err
			}
			o, err := c.Exec(t.Context(), "guest", "dial", "127.0.0.1:80")
			if err == nil && o.Stdout != "ping" {
				err = fmt.Errorf("%+v", o)
			}
			return errors.Join(err, c.Close())
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, Native())
}
