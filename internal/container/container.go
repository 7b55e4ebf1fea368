// Package container runs an image, so that it can be tested as it is going to be used.
//
// There are two runners behind one interface: Docker, and Native, which needs neither a daemon nor root: it unpacks the
// image and starts it in Linux namespaces. Either way the container's ports are bound on 127.0.0.1 only, and nothing
// stays behind: not after Close, and not when the tester is killed, because the next run removes what is ours.
//
// An image may be a stranger's. Docs/architecture.md says what the runners protect this machine from, and what not.
//
// A program that uses Native calls Init first thing in main, and a test in TestMain.
package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/limit"
)

// Spec says what to run, and how.
type Spec struct {
	Image v1.Image
	Args  []string // after the image's entrypoint; nil is the image's own
	Env   []string // KEY=value, besides the image's own

	User       string // UID or UID:GID; "" is the image's own
	ReadOnly   bool   // root file system
	NoCaps     bool   // drop all capabilities; otherwise they are Docker's usual ones less MKNOD
	NoNewPrivs bool   // native containers always have it

	Volumes []Volume
	Tmpfs   []string              // directories in the container
	Hosts   map[string]netip.Addr // names for /etc/hosts
	Ports   []Port                // to be reached from this machine

	// Isolated leaves the container no network but Ports and Reach. Native ones always are.
	Isolated bool
	// Reach is what an isolated container may use of this machine: it finds it at the same address of its own loopback.
	Reach []netip.AddrPort
}

// Volume is a directory or file of this machine in the container. Of what belongs to others than the tester, a native
// container has what is open to all; and if the tester is root, of everything. What it writes there is its own: read it
// with care, its names may be links.
type Volume struct {
	Host, Container string
	ReadOnly        bool
}

// Port is a port of the container.
type Port struct {
	Number int
	Proto  string // "tcp" or "udp"
	Host   int    // port on 127.0.0.1; 0 is one that is free
}

func (p Port) String() string { return strconv.Itoa(p.Number) + "/" + p.Proto }

// Runner starts containers.
type Runner interface {
	// Start returns once the image's program runs. The container ends with ctx, or with Close.
	Start(ctx context.Context, s Spec) (Container, error)
	// Keep makes containers of an image start faster until release is called: the image is brought to where they run
	// only once. What they write to their file systems is theirs all the same. They end before release is called.
	Keep(ctx context.Context, img v1.Image) (release func() error, err error)
	// Sweep removes what runs that were killed have left behind.
	Sweep(ctx context.Context) error
	String() string
}

// Container is one that was started.
type Container interface {
	// Addr is where a port of Spec.Ports is on this machine. Only Number and Proto of p matter.
	Addr(p Port) (netip.AddrPort, error)
	// Via is the address by which the container sees clients that come through Addr.
	Via() netip.Addr
	// Signal sends a signal to process 1.
	Signal(syscall.Signal) error
	// Exec runs a program of the image in the container, as the container's user.
	Exec(ctx context.Context, args ...string) (Output, error)
	// Host runs a program of this machine in the container's network, to see it as the container does. It is killed
	// when ctx ends. If code is not 0, that is no error.
	Host(ctx context.Context, stdout, stderr io.Writer, args ...string) (code int, err error)
	// Wait returns the exit code of process 1, which is 128 and the number of the signal if one killed it.
	Wait(ctx context.Context) (code int, err error)
	// Logs is what was written to stdout and stderr until now, at most the first 8 MiB.
	Logs() string
	// Close kills the container and removes it.
	Close() error
}

// maxOutput is the most that is kept of what a program wrote, in bytes: its beginning.
const maxOutput = 8 << 20

// Output is what a program of the image wrote, at most the first 8 MiB, and how it ended.
type Output struct {
	Stdout, Stderr string
	Code           int
}

// base is what containers of both runners have.
type base struct {
	state    *state
	via      netip.Addr
	at       map[string]netip.AddrPort
	forwards *forwards
	close    func() error // only once
	// run runs a program: "exec" one of the image, "host" one of this machine in the container's network.
	run func(ctx context.Context, op string, stdout, stderr io.Writer, args []string) (code int, err error)
}

func (b *base) Addr(p Port) (netip.AddrPort, error) {
	a, ok := b.at[p.String()]
	if !ok {
		return a, fmt.Errorf("port %v is not published", p)
	}
	return a, nil
}

func (b *base) Via() netip.Addr { return b.via }

func (b *base) Close() error { return b.close() }

func (b *base) Exec(ctx context.Context, args ...string) (Output, error) {
	out, errs := &limit.Buffer{Max: maxOutput}, &limit.Buffer{Max: maxOutput}
	code, err := b.run(ctx, "exec", out, errs, args)
	return Output{out.String(), errs.String(), code}, err
}

func (b *base) Host(ctx context.Context, stdout, stderr io.Writer, args ...string) (int, error) {
	return b.run(ctx, "host", stdout, stderr, args)
}

// exitCode is a shell's: 128 and the number of the signal for who was killed.
func exitCode(p *os.ProcessState) int {
	if p == nil {
		return -1
	}
	if st, ok := p.Sys().(syscall.WaitStatus); ok && st.Signaled() {
		return 128 + int(st.Signal())
	}
	return p.ExitCode()
}

// explainPort says what to do about the error that is the user's to solve.
func explainPort(err error) error {
	if err != nil && (strings.Contains(err.Error(), "address already in use") || strings.Contains(err.Error(), "port is already allocated")) {
		return fmt.Errorf("port is taken by another program: stop it or choose another: %w", err)
	}
	return err
}

// validate refuses what no runner could run. Otherwise it returns the image's platform.
func (s Spec) validate() (p v1.Platform, err error) {
	if s.Image == nil {
		return p, errors.New("no image given")
	}
	file, err := s.Image.ConfigFile()
	if err != nil {
		return p, fmt.Errorf("image config: %w", err)
	}
	if _, _, err := parseUser(s.User); err != nil {
		return p, err
	}
	for _, o := range s.Ports {
		if o.Number < 1 || o.Number > 65535 || o.Host < 0 || o.Host > 65535 || o.Proto != "tcp" && o.Proto != "udp" {
			return p, fmt.Errorf("port %v: not a port of tcp or udp", o)
		}
	}
	for _, v := range s.Volumes {
		if _, err := os.Stat(v.Host); err != nil {
			return p, fmt.Errorf("volume: %w", err)
		}
		if !path.IsAbs(v.Host) || !path.IsAbs(v.Container) {
			return p, fmt.Errorf("volume %s:%s: not absolute", v.Host, v.Container)
		}
	}
	for _, e := range s.Env {
		if k, _, ok := strings.Cut(e, "="); !ok || k == "" {
			return p, fmt.Errorf("environment %q: not of the form KEY=value", e)
		}
	}
	for _, a := range s.Reach {
		if !a.Addr().IsLoopback() {
			return p, fmt.Errorf("reach %v: not on the loopback", a)
		}
	}
	p = *file.Platform()
	return p, Runnable(p)
}

// parseUser reads UID or UID:GID. A name would have to be looked up in the image, and ours go by number.
func parseUser(s string) (uid, gid int, err error) {
	if s == "" {
		return 0, 0, nil
	}
	u, g, both := strings.Cut(s, ":")
	if uid, err = strconv.Atoi(u); err == nil && both {
		gid, err = strconv.Atoi(g)
	}
	if err != nil || uid < 0 || gid < 0 {
		return 0, 0, fmt.Errorf("user %q: not UID or UID:GID", s)
	}
	return uid, gid, nil
}

// process is what the image's config and a spec come to: what process 1 is.
type process struct {
	Args     []string
	Env      []string
	Dir      string
	UID, GID int
}

func (s Spec) process() (process, error) {
	file, err := s.Image.ConfigFile()
	if err != nil {
		return process{}, fmt.Errorf("image config: %w", err)
	}
	c := file.Config
	p := process{Dir: cmp.Or(c.WorkingDir, "/")}
	cmd := s.Args
	if cmd == nil {
		cmd = c.Cmd
	}
	if p.Args = append(append(p.Args, c.Entrypoint...), cmd...); len(p.Args) == 0 {
		return process{}, errors.New("image has neither an entrypoint nor a command, and no arguments were given")
	}
	if p.UID, p.GID, err = parseUser(cmp.Or(s.User, c.User)); err != nil {
		return process{}, err
	}
	p.Env = mergeEnv([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=container"}, c.Env, s.Env)
	return p, nil
}

// mergeEnv joins environments; a later value wins.
func mergeEnv(envs ...[]string) []string {
	return (&exec.Cmd{Env: slices.Concat(envs...)}).Environ()
}
