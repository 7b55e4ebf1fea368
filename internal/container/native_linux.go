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
	"path/filepath"
	"sync"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// Native returns the runner that needs no daemon. Without root it uses a user namespace.
func Native() Runner { return native{} }

type native struct{}

func (native) String() string { return "native" }

// unpacked are the images that are kept, in directories.
var unpacked keeper

func (native) Keep(_ context.Context, img v1.Image) (release func() error, err error) {
	return unpacked.keep(img, func() (string, func() error, error) {
		st, err := newState()
		if err != nil {
			return "", nil, err
		}
		dir := st.path("rootfs")
		for _, do := range []func() error{
			func() error { return os.Chmod(st.dir, 0o755) }, // see Start
			func() error { return os.Mkdir(dir, 0o755) },
			func() error { return unpack(img, dir) },
		} {
			if err := do(); err != nil {
				return "", nil, errors.Join(err, st.remove())
			}
		}
		return dir, st.remove, nil
	})
}

func (native) Sweep(context.Context) error { return sweepState() }

func (native) Start(ctx context.Context, s Spec) (_ Container, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("native: %w", err)
		}
	}()
	if err := s.validate(); err != nil {
		return nil, err
	}
	p, err := s.process()
	if err != nil {
		return nil, err
	}
	file, err := s.Image.ConfigFile()
	if err != nil {
		return nil, err
	}
	if err := Runnable(*file.Platform()); err != nil {
		return nil, err
	}
	for i, v := range s.Volumes {
		if s.Volumes[i].Host, err = filepath.EvalSymlinks(v.Host); err != nil {
			return nil, fmt.Errorf("volume: %w", err)
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	st, err := newState()
	if err != nil {
		return nil, err
	}
	c := &nativeContainer{state: st, waiting: map[int]chan answer{}, exited: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if err := os.Mkdir(st.path("run"), 0o755); err != nil {
		return nil, err
	}
	// The container's user has to get at the image, and nobody else past the directory above.
	if err := os.Chmod(st.dir, 0o755); err != nil {
		return nil, err
	}
	kept, err := unpacked.where(s.Image)
	if err != nil {
		return nil, err
	}
	if kept != "" {
		err = os.Symlink(kept, st.path("rootfs")) // it is only ever read
	} else if err = os.Mkdir(st.path("rootfs"), 0o755); err == nil {
		err = unpack(s.Image, st.path("rootfs"))
	}
	if err != nil {
		return nil, err
	}
	cfg := config{
		Dir: st.dir, Process: p, UserNS: os.Getuid() != 0,
		ReadOnly: s.ReadOnly, NoCaps: s.NoCaps, NoNewPrivs: s.NoNewPrivs, Volumes: s.Volumes, Tmpfs: s.Tmpfs, Hosts: s.Hosts,
	}
	if err := c.startShim(cfg); err != nil {
		return nil, err
	}
	if c.at, err = socketFunc(c.socket).connect(&c.forwards, s); err != nil {
		return nil, err
	}
	c.stop = context.AfterFunc(ctx, func() { c.Close() })
	return c, nil
}

// nativeContainer is the tester's end of a shim.
type nativeContainer struct {
	state    *state
	forwards forwards
	at       map[string]netip.AddrPort
	log      *os.File
	cmd      *exec.Cmd // the shim
	conn     *shimConn
	stop     func() bool

	mu      sync.Mutex
	lastID  int
	waiting map[int]chan answer // by request
	gone    error               // why there will be no more answers

	exited chan struct{} // closed with code set
	code   int

	close sync.Once
	err   error // of close
}

type answer struct {
	reply
	fds []int
}

func (c *nativeContainer) startShim(cfg config) error {
	var err error
	if c.log, err = os.OpenFile(c.state.path("log"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600); err != nil {
		return err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	theirs := os.NewFile(uintptr(pair[1]), "shim")
	defer theirs.Close()
	if c.conn, err = newShimConn(os.NewFile(uintptr(pair[0]), "tester")); err != nil {
		return err
	}
	c.cmd = &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{shimName}, Env: os.Environ(),
		Stderr: c.log, ExtraFiles: []*os.File{theirs},
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
			Setpgid:    true, // Ctrl-C is for the tester, who then ends us in order
		},
	}
	if cfg.UserNS {
		a := c.cmd.SysProcAttr
		a.Cloneflags |= unix.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: cfg.Process.UID, HostID: os.Getuid(), Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: cfg.Process.GID, HostID: os.Getgid(), Size: 1}}
		a.AmbientCaps = cfg.ambient()
	}
	if err := c.cmd.Start(); err != nil {
		c.cmd = nil
		return fmt.Errorf("start in new namespaces: %w\nhint: %s", err, namespaceHint())
	}
	if err := c.conn.send(cfg); err != nil {
		return err
	}
	theirs.Close() // else a shim that dies is not noticed
	var started reply
	if _, err := c.conn.recv(&started); err != nil {
		return fmt.Errorf("shim ended: %s: does main, or TestMain, call container.Init?", c.Logs())
	}
	if started.Err != "" {
		return errors.New(started.Err)
	}
	go c.receive()
	return nil
}

// namespaceHint says what usually forbids namespaces.
func namespaceHint() string {
	if os.Getuid() == 0 {
		return "in a container of its own this takes --privileged; otherwise use the docker runner"
	}
	return "user namespaces are switched off for users here (see sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, " +
		"kernel.apparmor_restrict_unprivileged_userns): run as root, or use the docker runner"
}

// receive hands out the shim's answers until it ends.
func (c *nativeContainer) receive() {
	for {
		var r reply
		fds, err := c.conn.recv(&r)
		if err != nil {
			break
		}
		if r.ID == -1 {
			c.code = r.Code
			close(c.exited)
			continue
		}
		c.mu.Lock()
		ch := c.waiting[r.ID]
		delete(c.waiting, r.ID)
		c.mu.Unlock()
		ch <- answer{r, fds}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = errors.New("container is closed")
	for _, ch := range c.waiting {
		ch <- answer{reply: reply{Err: c.gone.Error()}}
	}
	c.waiting = nil
	select {
	case <-c.exited:
	default:
		c.code = 128 + int(syscall.SIGKILL)
		close(c.exited)
	}
}

// ask sends a request. The answer comes out of the channel.
func (c *nativeContainer) ask(r request, fds ...int) (id int, _ <-chan answer, err error) {
	ch := make(chan answer, 1)
	c.mu.Lock()
	if c.gone != nil {
		c.mu.Unlock()
		return 0, nil, c.gone
	}
	c.lastID++
	r.ID = c.lastID
	c.waiting[r.ID] = ch
	c.mu.Unlock()
	if err := c.conn.send(r, fds...); err != nil {
		return 0, nil, fmt.Errorf("container is closed: %w", err)
	}
	return r.ID, ch, nil
}

func (c *nativeContainer) socket(domain, typ int) (int, error) {
	_, ch, err := c.ask(request{Op: "socket", N: [2]int{domain, typ}})
	if err != nil {
		return 0, err
	}
	a := <-ch
	if a.Err != "" || len(a.fds) != 1 {
		return 0, fmt.Errorf("socket in the container: %s", a.Err)
	}
	return a.fds[0], nil
}

func (c *nativeContainer) Addr(p Port) (netip.AddrPort, error) {
	a, ok := c.at[p.String()]
	if !ok {
		return a, fmt.Errorf("port %v is not published", p)
	}
	return a, nil
}

func (c *nativeContainer) Via() netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 0, 1}) }

func (c *nativeContainer) Signal(s syscall.Signal) error {
	_, ch, err := c.ask(request{Op: "signal", N: [2]int{int(s)}})
	if err != nil {
		return err
	}
	if a := <-ch; a.Err != "" {
		return errors.New(a.Err)
	}
	return nil
}

func (c *nativeContainer) Exec(ctx context.Context, args ...string) (o Output, err error) {
	var out, errs bytes.Buffer
	o.Code, err = c.run(ctx, "exec", &out, &errs, args)
	o.Stdout, o.Stderr = out.String(), errs.String()
	return o, err
}

func (c *nativeContainer) Host(ctx context.Context, stdout, stderr io.Writer, args ...string) (int, error) {
	return c.run(ctx, "host", stdout, stderr, args)
}

func (c *nativeContainer) run(ctx context.Context, op string, stdout, stderr io.Writer, args []string) (int, error) {
	if len(args) == 0 {
		return 0, errors.New("no program given")
	}
	var mu sync.Mutex // both may be the same writer
	var copies sync.WaitGroup
	var theirs []*os.File
	var fds []int
	for _, w := range []io.Writer{stdout, stderr} {
		pr, pw, err := os.Pipe()
		if err != nil {
			return 0, err
		}
		defer pw.Close()
		theirs, fds = append(theirs, pw), append(fds, int(pw.Fd()))
		copies.Go(func() {
			io.Copy(lockedWriter{&mu, w}, pr)
			pr.Close()
		})
	}
	id, ch, err := c.ask(request{Op: op, Args: args}, fds...)
	for _, f := range theirs {
		f.Close()
	}
	defer copies.Wait()
	if err != nil {
		return 0, err
	}
	select {
	case a := <-ch:
		if a.Err != "" {
			return 0, errors.New(a.Err)
		}
		return a.Code, nil
	case <-ctx.Done():
		c.conn.send(request{Op: "kill", N: [2]int{id}})
		<-ch
		return 0, fmt.Errorf("%s: %w", args[0], context.Cause(ctx))
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

func (c *nativeContainer) Wait(ctx context.Context) (int, error) {
	select {
	case <-c.exited:
		return c.code, nil
	default:
	}
	select {
	case <-c.exited:
		return c.code, nil
	case <-ctx.Done():
		return 0, fmt.Errorf("container still runs: %w", context.Cause(ctx))
	}
}

func (c *nativeContainer) Logs() string {
	if c.log == nil {
		return ""
	}
	b, err := io.ReadAll(io.NewSectionReader(c.log, 0, 1<<30))
	if err != nil {
		return fmt.Sprintf("%s(log: %v)", b, err)
	}
	return string(b)
}

func (c *nativeContainer) Close() error {
	c.close.Do(func() {
		if c.stop != nil {
			c.stop()
		}
		if c.conn != nil {
			c.conn.Close() // the shim ends with it
		}
		if c.cmd != nil {
			c.cmd.Wait()
		}
		c.forwards.close()
		c.err = c.state.remove()
	})
	return c.err
}
