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
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	oci "github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/limit"
)

// Docker returns the runner that uses Docker, through its command line.
func Docker() Runner { return docker{} }

type docker struct{}

const (
	dockerLabel = "derper.container.run" // of a container of ours: the run that it belongs to
	dockerRepo  = "derper-container"     // of an image of ours: its tag is the run
)

func (docker) String() string { return "docker" }

// dockerError is what docker said when it failed.
type dockerError string

func (e dockerError) Error() string { return string(e) }

// run runs docker and returns what it wrote to stdout.
func (docker) run(ctx context.Context, args ...string) (string, error) {
	out, errs := &limit.Buffer{Max: maxOutput}, &limit.Buffer{Max: maxOutput}
	code, err := command(ctx, out, errs, append([]string{"docker"}, args...)...)
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return "", errors.New("docker is not installed\nhint: install docker.io, or use the native runner")
	case err != nil:
		return "", err
	case code != 0:
		said := strings.TrimSpace(strings.ReplaceAll(errs.String(), "See 'docker run --help'.", ""))
		return "", dockerError(fmt.Sprintf("docker %s: %s", args[0], cmp.Or(said, fmt.Sprintf("exit status %d", code))))
	}
	return strings.TrimSpace(out.String()), nil
}

// ready says whether Docker runs, and what to do if it does not.
func (d docker) ready(ctx context.Context) error {
	_, err := d.run(ctx, "version", "--format", "{{.Server.Version}}")
	switch said, ok := err.(dockerError); {
	case !ok:
		return err
	case strings.Contains(string(said), "permission denied"):
		return fmt.Errorf("%w\nhint: add yourself to the group docker, run as root, or use the native runner", err)
	}
	return fmt.Errorf("docker does not run: %w\nhint: systemctl start docker, or use the native runner", err)
}

// Sweep removes containers and images of dead runs. Where there is no Docker there are none.
func (d docker) Sweep(ctx context.Context) error {
	if d.ready(ctx) != nil {
		return sweepState()
	}
	// The lists have a name and the run that it belongs to.
	dead := func(remove func(name string) error, list ...string) error {
		out, err := d.run(ctx, list...)
		for line := range strings.Lines(out) {
			name, run, _ := strings.Cut(strings.TrimSpace(line), " ")
			on, aerr := alive(run)
			if aerr == nil && !on {
				aerr = remove(name)
			}
			err = errors.Join(err, aerr)
		}
		return err
	}
	return errors.Join(
		dead(func(id string) error { return d.removeContainer(ctx, id) },
			"ps", "--all", "--filter", "label="+dockerLabel, "--format", `{{.ID}} {{.Label "`+dockerLabel+`"}}`),
		dead(func(tag string) error { return d.removeImage(ctx, tag) },
			"images", "--format", "{{.Repository}}:{{.Tag}} {{.Tag}}", dockerRepo),
		sweepState())
}

func (d docker) removeContainer(ctx context.Context, id string) error {
	_, err := d.run(ctx, "rm", "--force", "--volumes", id)
	return err
}

// removeImage removes a tag of ours, and the image with its last tag. Docker may report an error and yet have done it,
// when two tags of one image go at once; and there is none if loading it was cut short.
func (d docker) removeImage(ctx context.Context, tag string) error {
	_, err := d.run(ctx, "rmi", tag)
	if err != nil {
		if left, lerr := d.run(ctx, "images", "--quiet", tag); lerr == nil && left == "" {
			return nil
		}
	}
	return err
}

// loaded are the images that are kept, by tag.
var loaded = keeper{kept: map[v1.Hash]*keptImage{}}

func (d docker) Keep(ctx context.Context, img v1.Image) (release func() error, err error) {
	if err := d.ready(ctx); err != nil {
		return nil, err
	}
	return loaded.keep(img,
		func(st *state) (string, error) {
			tag := dockerRepo + ":" + st.id()
			return tag, oci.LoadDocker(ctx, tag, img)
		},
		func(tag string) error {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			return d.removeImage(ctx, tag)
		})
}

func (d docker) Start(ctx context.Context, s Spec) (_ Container, err error) {
	platform, err := s.validate()
	if err != nil {
		return nil, fmt.Errorf("docker: %w", err)
	}
	s.Env = append(cpu(platform), s.Env...)
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
	c := &dockerContainer{base: base{state: st, forwards: newForwards()}}
	c.close, c.run = sync.OnceValue(c.end), c.program
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	tag, err := loaded.where(s.Image)
	if err == nil && tag == "" {
		tag = dockerRepo + ":" + st.id()
		c.tag = tag
		err = oci.LoadDocker(ctx, tag, s.Image)
	}
	if err != nil {
		return nil, err
	}
	create := []string{"create", "--platform", platform.String()}
	if profile, perr := seccompProfile(platform.Architecture); perr != nil {
		err = perr
	} else if profile != nil {
		create = append(create, "--security-opt", "seccomp="+st.path("seccomp.json"))
		err = os.WriteFile(st.path("seccomp.json"), profile, 0o600)
	}
	if err == nil {
		c.id, err = d.run(ctx, append(create, c.flags(s, tag)...)...)
	}
	if err == nil {
		_, err = d.run(ctx, "start", c.id)
	}
	if err != nil {
		return nil, explainPort(err)
	}
	out, err := d.run(ctx, "inspect", "--format", "{{.State.Pid}} {{range .NetworkSettings.Networks}}{{.Gateway}} {{end}}", c.id)
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
		c.via = loopback
		c.at, err = socketsOf(c.pid).connect(c.forwards, s)
	default:
		c.via, _ = netip.ParseAddr(strings.TrimSpace(gateway)) // none if it ends in this moment
		c.at, err = c.published(ctx, s)
	}
	if err != nil {
		if out, ierr := d.run(ctx, "inspect", "--format", "{{.State.Running}}", c.id); ierr != nil || out != "false" {
			return nil, err
		}
		err = nil
	}
	context.AfterFunc(ctx, func() { c.Close() })
	return c, nil
}

// dockerContainer is one of a Docker daemon's.
type dockerContainer struct {
	base
	tag string // of the image, if it was loaded for this container
	id  string // "" before it is created
	pid int    // of process 1; 0 if it had ended when we looked

	mu   sync.Mutex
	logs *string // from before it was removed
}

// flags are the arguments of docker create that a spec comes to, with image and command.
func (c *dockerContainer) flags(s Spec, tag string) []string {
	f := []string{"--label", dockerLabel + "=" + c.state.id(), "--hostname", "container",
		"--cap-drop", "MKNOD", "--pids-limit", "4096", "--memory", "4g", "--ulimit", "core=0",
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
		out, err := docker{}.run(ctx, "port", c.id, p.String())
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

func (c *dockerContainer) Signal(s syscall.Signal) error {
	_, err := docker{}.run(context.Background(), "kill", "--signal", strconv.Itoa(int(s)), c.id)
	return err
}

func (c *dockerContainer) program(ctx context.Context, op string, stdout, stderr io.Writer, args []string) (int, error) {
	enter := []string{"docker", "exec", c.id}
	switch {
	case op == "host" && c.pid == 0:
		return 0, errors.New("container has ended")
	case op == "host":
		enter = []string{"nsenter", "--net", "--target", strconv.Itoa(c.pid)}
	}
	return command(ctx, stdout, stderr, append(enter, args...)...)
}

// command runs a program of this machine and returns its exit code.
func command(ctx context.Context, stdout, stderr io.Writer, args ...string) (int, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.WaitDelay = 5 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us, and we end it in order
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case ctx.Err() != nil:
		return 0, fmt.Errorf("%s: %w", args[0], context.Cause(ctx))
	case errors.As(err, &exit):
		return exitCode(exit.ProcessState), nil
	}
	return 0, err
}

func (c *dockerContainer) Wait(ctx context.Context) (int, error) {
	out, err := docker{}.run(ctx, "wait", c.id)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(out)
}

func (c *dockerContainer) Logs() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.logs != nil:
		return *c.logs
	case c.id == "":
		return ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out := &limit.Buffer{Max: maxOutput} // stdout and stderr in one, as they came
	if code, err := command(ctx, out, out, "docker", "logs", c.id); err != nil || code != 0 {
		return fmt.Sprintf("%s(docker logs: code %d, %v)", out, code, err)
	}
	return out.String()
}

// end is Close, the first time.
func (c *dockerContainer) end() error {
	c.forwards.close()
	// The run's own context may be over, and this must be done all the same.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	if c.id != "" {
		logs := c.Logs()
		c.mu.Lock()
		c.logs = &logs
		c.mu.Unlock()
		errs = append(errs, docker{}.removeContainer(ctx, c.id))
	}
	if c.tag != "" {
		errs = append(errs, docker{}.removeImage(ctx, c.tag))
	}
	return errors.Join(append(errs, c.state.remove())...)
}
