package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

func (native) Start(ctx context.Context, s Spec) (_ Container, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("native: %w", err)
		}
	}()
	if _, err := s.validate(); err != nil {
		return nil, err
	}
	p, err := s.process()
	if err != nil {
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
	kept, err := unpacked.where(s.Image)
	if err != nil {
		return nil, err
	}
	st, err := newState()
	if err != nil {
		return nil, err
	}
	c := &nativeContainer{base: base{state: st, via: loopback, forwards: newForwards()}, exited: make(chan struct{})}
	c.close, c.run = sync.OnceValue(c.end), c.program
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if err := os.Mkdir(st.path("run"), 0o755); err != nil {
		return nil, err
	}
	if kept == "" {
		err = st.unpack(s.Image)
	} else if err = os.Chmod(st.dir, 0o755); err == nil {
		err = os.Symlink(kept, st.path("rootfs")) // it is only ever read
	}
	if err != nil {
		return nil, err
	}
	cfg := config{Spec: s, Dir: st.dir, Process: p, UserNS: os.Getuid() != 0}
	cfg.Image = nil // which is in the directory
	if err := c.startShim(cfg); err != nil {
		return nil, err
	}
	if c.at, err = socketFunc(c.socket).connect(c.forwards, s); err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { c.Close() })
	return c, nil
}

// nativeContainer is the tester's end of a shim.
type nativeContainer struct {
	base
	log  *os.File
	cmd  *exec.Cmd // the shim; nil before it is started
	conn *net.UnixConn

	exited chan struct{} // closed with code set
	code   int
}

func (c *nativeContainer) startShim(cfg config) error {
	var err error
	if c.log, err = os.OpenFile(c.state.path("log"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600); err != nil {
		return err
	}
	conn, theirs, err := socketPair()
	if err != nil {
		return err
	}
	c.conn = conn
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{shimName}, Env: append(os.Environ(), cfg.variable()),
		Stderr: c.log, ExtraFiles: []*os.File{theirs},
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
			Setpgid:    true, // Ctrl-C is for the tester, who then ends us in order
			// No parent-death signal, which would come when a thread of the tester ends: the shim notices by the socket.
		},
	}
	if cfg.UserNS {
		a := cmd.SysProcAttr
		a.Cloneflags |= unix.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: cfg.Process.UID, HostID: os.Getuid(), Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: cfg.Process.GID, HostID: os.Getgid(), Size: 1}}
		a.AmbientCaps = cfg.ambient()
	}
	err = cmd.Start()
	theirs.Close() // else a shim that dies is not noticed
	if err != nil {
		return fmt.Errorf("start in new namespaces: %w\nhint: %s", err, namespaceHint())
	}
	c.cmd = cmd
	var started reply
	if _, err := recv(c.conn, &started); err != nil {
		return fmt.Errorf("shim ended: %s: does main, or TestMain, call container.Init?", c.Logs())
	}
	if started.Err != "" {
		return errors.New(started.Err)
	}
	go func() {
		end := reply{Code: 128 + int(syscall.SIGKILL)} // with the shim
		recv(c.conn, &end)
		c.code = end.Code
		close(c.exited)
	}()
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

// ask sends a request with files, and waits for the answer. When ctx ends, so does the program that was asked for.
func (c *nativeContainer) ask(ctx context.Context, r request, files ...*os.File) (a reply, socket []*os.File, err error) {
	conn, theirs, err := socketPair()
	if err != nil {
		return a, nil, err
	}
	defer conn.Close()
	err = send(c.conn, r, append([]*os.File{theirs}, files...)...)
	theirs.Close() // else a shim that dies is not noticed
	if err == nil {
		defer context.AfterFunc(ctx, func() { conn.CloseWrite() })()
		socket, err = recv(conn, &a)
	}
	switch {
	case ctx.Err() != nil:
		return a, nil, context.Cause(ctx)
	case err != nil:
		return a, nil, fmt.Errorf("container is closed: %w", err)
	case a.Err != "":
		return a, nil, errors.New(a.Err)
	}
	return a, socket, nil
}

func (c *nativeContainer) socket(domain, typ int) (*os.File, error) {
	_, files, err := c.ask(context.Background(), request{Op: "socket", N: [2]int{domain, typ}})
	if err != nil {
		return nil, fmt.Errorf("socket in the container: %w", err)
	}
	return files[0], nil
}

func (c *nativeContainer) Signal(s syscall.Signal) error {
	_, _, err := c.ask(context.Background(), request{Op: "signal", N: [2]int{int(s)}})
	return err
}

func (c *nativeContainer) program(ctx context.Context, op string, stdout, stderr io.Writer, args []string) (int, error) {
	if len(args) == 0 {
		return 0, errors.New("no program given")
	}
	var mu sync.Mutex // both may be the same writer
	var copies sync.WaitGroup
	defer copies.Wait()
	var theirs []*os.File
	for _, w := range []io.Writer{stdout, stderr} {
		pr, pw, err := os.Pipe()
		if err != nil {
			return 0, err
		}
		defer pw.Close()
		theirs = append(theirs, pw)
		copies.Go(func() {
			io.Copy(lockedWriter{&mu, w}, pr)
			pr.Close()
		})
	}
	a, _, err := c.ask(ctx, request{Op: op, Args: args}, theirs...)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", args[0], err)
	}
	return a.Code, nil
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
	case <-ctx.Done():
	}
	select {
	case <-c.exited:
		return c.code, nil
	default:
		return 0, fmt.Errorf("container still runs: %w", context.Cause(ctx))
	}
}

func (c *nativeContainer) Logs() string {
	if c.log == nil {
		return ""
	}
	b, err := io.ReadAll(io.NewSectionReader(c.log, 0, maxOutput))
	if err != nil {
		return fmt.Sprintf("%s(log: %v)", b, err)
	}
	return string(b)
}

// end is Close, the first time.
func (c *nativeContainer) end() error {
	if c.conn != nil {
		c.conn.Close() // the shim ends with it
	}
	if c.cmd != nil {
		c.cmd.Wait()
	}
	c.forwards.close()
	return c.state.remove()
}
