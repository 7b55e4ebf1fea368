package suite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"tailscale.com/tailcfg"
	"tailscale.com/util/must"

	"github.com/xavieralpha/derper/internal/container"
	"github.com/xavieralpha/derper/internal/probe"
)

// bed is what a case has to work with. What is made with it is gone when the case is over.
type bed struct {
	image   v1.Image
	runner  container.Runner
	foreign bool // the image is for another platform, so that everything takes longer

	// patience is how long to wait for something that takes no time to speak of, and is not there yet.
	patience time.Duration

	dir        string
	closers    []func() error // called in reverse order
	containers []container.Container
	results    map[string]error // of rows that the case has judged
	note       string           // what was seen, for the results
}

func (b *bed) open() {
	dir, remove := must.Get2(container.TempDir())
	b.dir = dir
	b.onClose(remove)
}

func (b *bed) onClose(f func() error) { b.closers = append(b.closers, f) }

func (b *bed) close() error {
	var errs []error
	for _, f := range slices.Backward(b.closers) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

func (b *bed) logs() string {
	var all strings.Builder
	for i, c := range b.containers {
		if len(b.containers) > 1 {
			fmt.Fprintf(&all, "-- container %d --\n", i+1)
		}
		all.WriteString(c.Logs())
	}
	return all.String()
}

// volume makes an empty directory that any user can write to.
func (b *bed) volume(name string) string {
	dir := filepath.Join(b.dir, name)
	must.Do(os.Mkdir(dir, 0o777))
	must.Do(os.Chmod(dir, 0o777))
	return dir
}

// read reads what a container has written to a volume: a file of this volume, whatever the container made of its name.
func (b *bed) read(volume, name string) []byte {
	root := must.Get(os.OpenRoot(volume))
	defer root.Close()
	f := must.Get(root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)) // a pipe has no end, and perhaps no beginning
	defer f.Close()
	if info := must.Get(f.Stat()); !info.Mode().IsRegular() {
		fail("%s in the volume is no file", name)
	}
	return must.Get(io.ReadAll(io.LimitReader(f, 1<<20)))
}

// Ports of a relay with default settings.
var (
	httpsPort = tcp(443)
	httpPort  = tcp(80)
	stunPort  = udp(3478)
)

func tcp(n int) container.Port { return container.Port{Number: n, Proto: "tcp"} }
func udp(n int) container.Port { return container.Port{Number: n, Proto: "udp"} }

// box is a container of the image.
type box struct {
	container.Container
	bed   *bed
	https container.Port // where it speaks DERP, if it is a relay
	name  string         // by which clients know it
}

// relay starts the image with nothing but the given settings, as NAME=value. Without ports, those of a relay with
// default settings are published.
func (b *bed) relay(ctx context.Context, s container.Spec, env ...string) *box {
	if s.Ports == nil {
		s.Ports = []container.Port{httpsPort, httpPort, stunPort}
	}
	s.Env = append(s.Env, env...)
	c := b.start(ctx, s)
	c.https, c.name = httpsPort, "127.0.0.1"
	for _, e := range s.Env {
		if v, ok := strings.CutPrefix(e, "HOSTNAME="); ok {
			c.name = v
		}
	}
	return c
}

// healthy starts a relay and waits until it is.
func (b *bed) healthy(ctx context.Context, s container.Spec, env ...string) *box {
	c := b.relay(ctx, s, env...)
	c.ready(ctx)
	return c
}

// quiet keeps a tailscaled from asking anybody, besides having no network to do it.
var quiet = []string{"TS_NO_LOGS_NO_SUPPORT=true", "TS_DISABLE_PORTMAPPER=true", "TS_DEBUG_DISABLE_PORTLIST=true"}

// start starts a container of the image, isolated.
func (b *bed) start(ctx context.Context, s container.Spec) *box {
	s.Isolated = true
	return b.run(ctx, s)
}

// run starts one that publishes ports the way a user does.
func (b *bed) run(ctx context.Context, s container.Spec) *box {
	s.Image = b.image
	s.Env = slices.Concat(quiet, s.Env)
	c := must.Get(b.runner.Start(ctx, s))
	b.containers = append(b.containers, c)
	b.onClose(c.Close)
	return &box{Container: c, bed: b}
}

// A case is a test: it ends with its first error, which nobody else could do anything about. So cases, and what only
// they call, say must where other code hands errors on.

// fail ends the case.
func fail(format string, args ...any) { must.Do(fmt.Errorf(format, args...)) }

// errOver is why to try no more.
var errOver = errors.New("the container has ended")

// eventually tries until there is no error, and else ends the case with the last one.
func (b *bed) eventually(ctx context.Context, try func()) {
	ctx, cancel := context.WithTimeout(ctx, b.patience)
	defer cancel()
	for {
		err := probe.Caught(try)
		if err == nil {
			return
		}
		if errors.Is(err, errOver) {
			cancel()
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			must.Do(err)
		}
	}
}

// errUnhealthy is what the health check says of a relay, and no error of asking it.
var errUnhealthy = errors.New("unhealthy")

// healthcheck runs the health check that the image's config names.
func (c *box) healthcheck(ctx context.Context) (string, error) {
	file, err := c.bed.image.ConfigFile()
	if err != nil {
		return "", err
	}
	h := file.Config.Healthcheck
	if h == nil || len(h.Test) < 2 || h.Test[0] != "CMD" {
		return "", errors.New("the image has no health check of the form CMD")
	}
	out, err := c.Exec(ctx, h.Test[1:]...)
	said := strings.TrimSpace(out.Stdout + out.Stderr)
	if err == nil && out.Code != 0 {
		err = fmt.Errorf("%w: %s", errUnhealthy, said)
	}
	return said, err
}

// ready waits until the relay is healthy.
func (c *box) ready(ctx context.Context) {
	c.bed.eventually(ctx, func() {
		if c.bed.runner.String() != "docker" { // there, asking takes longer than waiting
			c.lives()
		}
		must.Get(c.healthcheck(ctx))
	})
}

// settle waits until derper, which runs by now, is past its first second: one that ends in it could not start, and ends
// the container.
func (c *box) settle() { time.Sleep(1200 * time.Millisecond) }

// kill sends a signal to a program of the container.
func (c *box) kill(ctx context.Context, program string, s syscall.Signal) process {
	p := c.process(ctx, program)
	if err := syscall.Kill(p.PID, s); err != nil {
		fail("%s, process %d: %v: %w", program, p.PID, s, err)
	}
	return p
}

// lives expects the container not to have ended.
func (c *box) lives() {
	done, cancel := context.WithCancel(context.Background())
	cancel()
	if code, err := c.Wait(done); err == nil {
		fail("%w with code %d", errOver, code)
	}
}

// logged waits for a text in the log.
func (c *box) logged(ctx context.Context, text string) {
	c.bed.eventually(ctx, func() {
		if !strings.Contains(c.Logs(), text) {
			fail("the log does not say %q", text)
		}
	})
}

// derpMap is the relay in a DERP map, as its own command prints it for the user.
func (c *box) derpMap(ctx context.Context) *tailcfg.DERPNode {
	out := must.Get(c.Exec(ctx, "/entrypoint", "derpmap"))
	var policy struct{ DERPMap tailcfg.DERPMap }
	err := json.Unmarshal([]byte("{"+out.Stdout+"}"), &policy)
	region := policy.DERPMap.Regions[900]
	if err != nil || region == nil || len(region.Nodes) != 1 {
		fail("derpmap printed no DERP map: %s%s", out.Stdout, out.Stderr)
	}
	return region.Nodes[0]
}

// code waits until the container has ended.
func (c *box) code(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, c.bed.patience)
	defer cancel()
	return c.Wait(ctx)
}

// stop sends SIGTERM and expects exit code 0 within 3 seconds.
func (c *box) stop(ctx context.Context) (time.Duration, error) {
	const limit = 3 * time.Second
	began := time.Now()
	if err := c.Signal(syscall.SIGTERM); err != nil {
		return 0, err
	}
	wctx, cancel := context.WithTimeout(ctx, 2*limit)
	defer cancel()
	code, err := c.Wait(wctx)
	took := time.Since(began)
	switch {
	case err != nil:
		return took, fmt.Errorf("SIGTERM: %w", err)
	case took > limit:
		return took, fmt.Errorf("SIGTERM: ended after %v, wants %v", took.Round(time.Millisecond), limit)
	case code != 0:
		return took, fmt.Errorf("SIGTERM: exit code %d, wants 0", code)
	}
	return took, nil
}
