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
	"runtime"
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
	platform, err := s.validate()
	if err != nil {
		return nil, err
	}
	s.Env = append(cpu(platform), s.Env...)
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
	dir, err := unpacked.where(s.Image)
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
	if dir == "" {
		if err := st.unpack(s.Image); err != nil {
			return nil, err
		}
		dir = st.dir
	}
	cfg := config{Spec: s, Process: p, Arch: platform.Architecture, Given: os.Getuid() == 0}
	cfg.Image = nil // which is in the directory
	if err := c.startShim(cfg, dir); err != nil {
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

// startShim starts the shim in the directory of the image. As root it hands over the volumes, to which the shim, who is
// nobody, may find no way.
func (c *nativeContainer) startShim(cfg config, dir string) error {
	program, err := self()
	if err != nil {
		return fmt.Errorf("copy this program to memory: %w", err)
	}
	if c.log, err = os.OpenFile(c.state.path("log"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600); err != nil {
		return err
	}
	image, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer image.Close()
	conn, theirs, err := socketPair()
	if err != nil {
		return err
	}
	c.conn = conn
	files := []*os.File{theirs}
	defer func() {
		for _, f := range files {
			f.Close() // the socket, too: else a shim that dies is not noticed
		}
	}()
	uid, gid := os.Getuid(), os.Getgid()
	attr := &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWCGROUP,
		Setpgid:    true, // Ctrl-C is for the tester, who then ends us in order
		// No parent-death signal, which would come when a thread of the tester ends: the shim notices by the socket.
		AmbientCaps: ambient(),
	}
	if cfg.Given {
		for _, v := range cfg.Volumes {
			f, err := v.open()
			if err != nil {
				return err
			}
			files = append(files, f)
		}
		uid, gid = nobody, nobody
		attr.Credential, attr.GidMappingsEnableSetgroups = &syscall.Credential{Uid: uint32(cfg.Process.UID), Gid: uint32(cfg.Process.GID)}, true
	}
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: cfg.Process.UID, HostID: uid, Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: cfg.Process.GID, HostID: gid, Size: 1}}
	cmd := &exec.Cmd{
		Path: ofThisProcess(program), Args: []string{shimName}, Env: append(os.Environ(), cfg.variable()), Dir: ofThisProcess(image),
		Stderr: c.log, ExtraFiles: files, SysProcAttr: attr,
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start in new namespaces: %w\nhint: %s", err, namespaceHint())
	}
	runtime.KeepAlive(image)
	theirs.Close()
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

// self is this program in memory, where nobody can change it: a program of the image can be made to start what started
// it, and then has it at hand (CVE-2019-5736). And any user can run it, wherever the file is.
var self = sync.OnceValues(func() (*os.File, error) {
	program, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	defer program.Close()
	fd, err := unix.MemfdCreate("derper", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3 all of them can be run
		fd, err = unix.MemfdCreate("derper", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "derper")
	if _, err := io.Copy(f, program); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	return f, err
})

// ofThisProcess names an open file for a child of this process, until that runs another program.
func ofThisProcess(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// namespaceHint says what usually forbids namespaces.
func namespaceHint() string {
	if os.Getuid() == 0 {
		return "in a container of its own this takes --privileged, and user namespaces that are switched on (see sysctl user.max_user_namespaces); otherwise use the docker runner"
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

func (c *nativeContainer) program(ctx context.Context, op string, stdout, stderr io.Writer, args []string) (code int, err error) {
	if len(args) == 0 {
		return 0, errors.New("no program given")
	}
	var mu sync.Mutex // both may be the same writer
	var copies sync.WaitGroup
	defer func() {
		if copies.Wait(); err == nil && ctx.Err() != nil {
			code, err = 0, fmt.Errorf("%s: %w", args[0], context.Cause(ctx))
		}
	}()
	var theirs []*os.File
	for _, w := range []io.Writer{stdout, stderr} {
		pr, pw, err := os.Pipe()
		if err != nil {
			return 0, err
		}
		defer pw.Close()
		theirs = append(theirs, pw)
		copies.Go(func() {
			// What the program has started may go on, and keep the other end open.
			stop := context.AfterFunc(ctx, func() { pr.Close() })
			io.Copy(lockedWriter{&mu, w}, pr)
			if stop() {
				pr.Close()
			}
		})
	}
	if own, err := os.Executable(); err == nil && op == "host" && args[0] == own {
		args = append([]string{"/proc/self/exe"}, args[1:]...) // which the shim has in memory
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
