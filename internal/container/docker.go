package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	images "github.com/xavieralpha/derper/internal/image"
)

// Docker returns the runner that uses Docker, through its command line.
func Docker() Runner { return docker{} }

type docker struct{}

const (
	dockerLabel = "derper.container.run" // of a container of ours: the run that it belongs to
	dockerRepo  = "derper-container"     // of an image of ours: its tag is the run
)

func (docker) String() string { return "docker" }

// dockerError is what docker wrote when it failed.
type dockerError struct {
	args   []string
	stderr string
	err    error
}

func (e *dockerError) Error() string {
	msg := strings.TrimSpace(e.stderr)
	msg = strings.TrimSuffix(strings.TrimSpace(strings.ReplaceAll(msg, "See 'docker run --help'.", "")), "\n")
	if msg == "" {
		msg = e.err.Error()
	}
	return fmt.Sprintf("docker %s: %s", e.args[0], msg)
}

func (e *dockerError) Unwrap() error { return e.err }

// run runs docker and returns what it wrote to stdout.
func (docker) run(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.WaitDelay = 5 * time.Second
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errs
	ownGroup(cmd)
	err := cmd.Run()
	switch {
	case err == nil:
		return strings.TrimSpace(out.String()), nil
	case ctx.Err() != nil:
		return "", fmt.Errorf("docker %s: %w", args[0], context.Cause(ctx))
	case errors.Is(err, exec.ErrNotFound):
		return "", errors.New("docker is not installed\nhint: install docker.io, or use the native runner")
	}
	return "", &dockerError{args, errs.String(), err}
}

// ready says whether Docker runs, and what to do if it does not.
func (d docker) ready(ctx context.Context) error {
	_, err := d.run(ctx, nil, "version", "--format", "{{.Server.Version}}")
	var de *dockerError
	if !errors.As(err, &de) {
		return err
	}
	if strings.Contains(de.stderr, "permission denied") {
		return fmt.Errorf("%w\nhint: add yourself to the group docker, run as root, or use the native runner", err)
	}
	return fmt.Errorf("docker does not run: %w\nhint: systemctl start docker, or use the native runner", err)
}

// Sweep removes containers and images of dead runs. Where there is no Docker there are none.
func (d docker) Sweep(ctx context.Context) error {
	if d.ready(ctx) != nil {
		return sweepState()
	}
	var errs []error
	list, err := d.run(ctx, nil, "ps", "--all", "--filter", "label="+dockerLabel, "--format", `{{.ID}} {{.Label "`+dockerLabel+`"}}`)
	if err != nil {
		return err
	}
	for line := range strings.Lines(list) {
		id, run, _ := strings.Cut(strings.TrimSpace(line), " ")
		if on, err := alive(run); err != nil || on {
			errs = append(errs, err)
			continue
		}
		_, err := d.run(ctx, nil, "rm", "--force", "--volumes", id)
		errs = append(errs, err)
	}
	list, err = d.run(ctx, nil, "images", "--format", "{{.Tag}}", dockerRepo)
	if err != nil {
		return err
	}
	for run := range strings.Lines(list) {
		run = strings.TrimSpace(run)
		if on, err := alive(run); err != nil || on {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, d.removeImage(ctx, dockerRepo+":"+run))
	}
	return errors.Join(append(errs, sweepState())...)
}

// removeImage removes a tag of ours, and the image with its last tag. Docker may report an error and yet have done it,
// when two tags of one image go at once; and there is none if loading it was cut short.
func (d docker) removeImage(ctx context.Context, tag string) error {
	_, err := d.run(ctx, nil, "rmi", tag)
	if err != nil {
		if left, lerr := d.run(ctx, nil, "images", "--quiet", tag); lerr == nil && left == "" {
			return nil
		}
	}
	return err
}

// loaded are the images that are kept, by tag.
var loaded keeper

func (d docker) Keep(ctx context.Context, img v1.Image) (release func() error, err error) {
	if err := d.ready(ctx); err != nil {
		return nil, err
	}
	return loaded.keep(img, func() (string, func() error, error) {
		st, err := newState()
		if err != nil {
			return "", nil, err
		}
		tag := dockerRepo + ":" + st.id()
		remove := func() error {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			return errors.Join(d.removeImage(ctx, tag), st.remove())
		}
		if err := images.LoadDocker(ctx, tag, img); err != nil {
			return "", nil, errors.Join(err, remove())
		}
		return tag, remove, nil
	})
}

func (d docker) Start(ctx context.Context, s Spec) (_ Container, err error) {
	if err := s.validate(); err != nil {
		return nil, fmt.Errorf("docker: %w", err)
	}
	file, err := s.Image.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("docker: image config: %w", err)
	}
	platform := *file.Platform()
	if err := Runnable(platform); err != nil {
		return nil, fmt.Errorf("docker: %w", err)
	}
	if err := d.ready(ctx); err != nil {
		return nil, err
	}
	if s.Isolated && os.Getuid() != 0 {
		return nil, errors.New("docker: an isolated container takes root: its network is entered\nhint: use the native runner")
	}
	if len(s.Reach) > 0 && !s.Isolated {
		return nil, errors.New("docker: reach is for isolated containers")
	}
	st, err := newState()
	if err != nil {
		return nil, err
	}
	c := &dockerContainer{state: st}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	tag, err := loaded.where(s.Image)
	if err != nil {
		return nil, err
	}
	if tag == "" {
		tag = dockerRepo + ":" + st.id()
		c.tag = tag
		if err := images.LoadDocker(ctx, tag, s.Image); err != nil {
			return nil, err
		}
	}
	if c.id, err = d.run(ctx, nil, append([]string{"create", "--platform", platform.String()}, c.flags(s, tag)...)...); err != nil {
		return nil, explainPort(err)
	}
	if _, err := d.run(ctx, nil, "start", c.id); err != nil {
		return nil, explainPort(err)
	}
	out, err := d.run(ctx, nil, "inspect", "--format", "{{.State.Pid}} {{range .NetworkSettings.Networks}}{{.Gateway}} {{end}}", c.id)
	if err != nil {
		return nil, err
	}
	pid, gateway, _ := strings.Cut(strings.TrimSpace(out), " ")
	if c.pid, err = strconv.Atoi(pid); err != nil {
		return nil, err
	}
	switch {
	case c.pid == 0: // it has ended already: Wait and Logs say how
	case s.Isolated:
		c.via = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		c.at, err = socketsOf(c.pid).connect(&c.forwards, s)
	default:
		c.via, _ = netip.ParseAddr(strings.TrimSpace(gateway)) // none if it ends in this moment
		c.at, err = c.published(ctx, s)
	}
	if err != nil {
		if out, ierr := d.run(ctx, nil, "inspect", "--format", "{{.State.Running}}", c.id); ierr == nil && out == "false" {
			err = nil
		}
	}
	if err != nil {
		return nil, err
	}
	c.stop = context.AfterFunc(ctx, func() { c.Close() })
	return c, nil
}

// explainPort says what to do about the error that is the user's to solve.
func explainPort(err error) error {
	if err != nil && (strings.Contains(err.Error(), "address already in use") || strings.Contains(err.Error(), "port is already allocated")) {
		return fmt.Errorf("port is taken by another program: stop it or choose another: %w", err)
	}
	return err
}

// dockerContainer is one of a Docker daemon's.
type dockerContainer struct {
	docker
	state    *state
	tag      string // of the image, if it was loaded for this container
	id       string // "" before it is created
	pid      int    // of process 1; 0 if it had ended when we looked
	via      netip.Addr
	at       map[string]netip.AddrPort
	forwards forwards
	stop     func() bool

	close sync.Once
	err   error // of close

	mu      sync.Mutex
	removed bool
	logs    string // from before it was removed
}

// flags are the arguments of docker create that a spec comes to, with image and command.
func (c *dockerContainer) flags(s Spec, tag string) []string {
	f := []string{"--label", dockerLabel + "=" + c.state.id(), "--hostname", "container",
		"--sysctl", "net.ipv6.conf.all.disable_ipv6=0", "--sysctl", "net.ipv6.conf.default.disable_ipv6=0"}
	add := func(on bool, args ...string) {
		if on {
			f = append(f, args...)
		}
	}
	add(s.User != "", "--user", s.User)
	add(s.ReadOnly, "--read-only")
	add(s.NoCaps, "--cap-drop", "ALL")
	add(s.NoNewPrivs, "--security-opt", "no-new-privileges")
	add(s.Isolated, "--network", "none")
	for _, e := range s.Env {
		add(true, "--env", e)
	}
	for _, v := range s.Volumes {
		ro := ""
		if v.ReadOnly {
			ro = ",readonly"
		}
		add(true, "--mount", fmt.Sprintf("type=bind,source=%s,target=%s%s", v.Host, v.Container, ro))
	}
	for _, t := range s.Tmpfs {
		add(true, "--tmpfs", t)
	}
	for n, a := range s.Hosts {
		add(true, "--add-host", n+":"+a.String())
	}
	for _, p := range s.Ports {
		host := ""
		if p.Host != 0 {
			host = strconv.Itoa(p.Host)
		}
		add(!s.Isolated, "--publish", fmt.Sprintf("127.0.0.1:%s:%v", host, p))
	}
	return append(append(f, tag), s.Args...)
}

// published asks Docker where the ports are.
func (c *dockerContainer) published(ctx context.Context, s Spec) (map[string]netip.AddrPort, error) {
	at := map[string]netip.AddrPort{}
	for _, p := range s.Ports {
		out, err := c.run(ctx, nil, "port", c.id, p.String())
		if err != nil {
			return nil, err
		}
		addr, _, _ := strings.Cut(out, "\n")
		if at[p.String()], err = netip.ParseAddrPort(addr); err != nil {
			return nil, fmt.Errorf("docker port: %w", err)
		}
	}
	return at, nil
}

func (c *dockerContainer) Addr(p Port) (netip.AddrPort, error) {
	a, ok := c.at[p.String()]
	if !ok {
		return a, fmt.Errorf("port %v is not published", p)
	}
	return a, nil
}

func (c *dockerContainer) Via() netip.Addr { return c.via }

func (c *dockerContainer) Signal(s syscall.Signal) error {
	_, err := c.run(context.Background(), nil, "kill", "--signal", strconv.Itoa(int(s)), c.id)
	return err
}

func (c *dockerContainer) Exec(ctx context.Context, args ...string) (o Output, err error) {
	var out, errs bytes.Buffer
	o.Code, err = command(ctx, &out, &errs, append([]string{"docker", "exec", c.id}, args...)...)
	o.Stdout, o.Stderr = out.String(), errs.String()
	return o, err
}

func (c *dockerContainer) Host(ctx context.Context, stdout, stderr io.Writer, args ...string) (int, error) {
	if c.pid == 0 {
		return 0, errors.New("container has ended")
	}
	return command(ctx, stdout, stderr, append([]string{"nsenter", "--net", "--target", strconv.Itoa(c.pid)}, args...)...)
}

// command runs a program of this machine and returns its exit code.
func command(ctx context.Context, stdout, stderr io.Writer, args ...string) (int, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.WaitDelay = 5 * time.Second
	ownGroup(cmd)
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return 0, fmt.Errorf("%s: %w", args[0], context.Cause(ctx))
	case errors.As(err, &exit):
		if st, ok := exit.Sys().(syscall.WaitStatus); ok && st.Signaled() {
			return 128 + int(st.Signal()), nil
		}
		return exit.ExitCode(), nil
	}
	return 0, err
}

func (c *dockerContainer) Wait(ctx context.Context) (int, error) {
	out, err := c.run(ctx, nil, "wait", c.id)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(out)
}

func (c *dockerContainer) Logs() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.removed || c.id == "" {
		return c.logs
	}
	cmd := exec.Command("docker", "logs", c.id)
	out, err := cmd.CombinedOutput() // stdout and stderr in one, as they came
	if err != nil {
		return fmt.Sprintf("%s(docker logs: %v)", out, err)
	}
	return string(out)
}

func (c *dockerContainer) Close() error {
	c.close.Do(func() {
		if c.stop != nil {
			c.stop()
		}
		c.forwards.close()
		// The run's own context may be over, and this must be done all the same.
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		var errs []error
		if c.id != "" {
			logs := c.Logs()
			c.mu.Lock()
			c.logs, c.removed = logs, true
			c.mu.Unlock()
			_, err := c.run(ctx, nil, "rm", "--force", "--volumes", c.id)
			errs = append(errs, err)
		}
		if c.tag != "" {
			errs = append(errs, c.removeImage(ctx, c.tag))
		}
		c.err = errors.Join(append(errs, c.state.remove())...)
	})
	return c.err
}
