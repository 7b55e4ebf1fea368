package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// The native runner is three processes of this program: the tester; the shim, in the container's network and user
// namespace, which does there what the tester asks for; and process 1, which becomes the image's program. The shim
// ends when the tester's end of their socket closes, however that comes about, and process 1 ends with the shim.

// Names by which this program calls itself, as argument 0.
const (
	shimName = "derper-container-shim"
	initName = "derper-container-init"
)

// Init runs what this program is when it was called by itself, and then does not return. Otherwise it does nothing.
func Init() {
	var main func() error
	switch os.Args[0] {
	case shimName:
		main = shim
	case initName:
		main = initMain
	default:
		return
	}
	runtime.LockOSThread() // namespaces, capabilities and the parent-death signal belong to a thread
	if err := main(); err != nil {
		fmt.Fprintf(os.Stderr, "container: %v\n", err)
		os.Exit(127)
	}
	os.Exit(0)
}

// request is what the tester asks of the shim, and reply the answer, with file descriptors beside them.
type request struct {
	ID   int
	Op   string // "socket", "signal", "exec", "host", "kill"
	Args []string
	N    [2]int // domain and type of a socket; a signal; the ID to kill
}

type reply struct {
	ID   int // 0 is the start, -1 the end of process 1
	Err  string
	Code int
}

// shimConn sends and receives JSON messages, one a packet.
type shimConn struct {
	*net.UnixConn
	mu sync.Mutex
}

func newShimConn(f *os.File) (*shimConn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return &shimConn{UnixConn: c.(*net.UnixConn)}, nil
}

func (c *shimConn) send(v any, fds ...int) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _, err = c.WriteMsgUnix(b, unix.UnixRights(fds...), nil)
	return err
}

func (c *shimConn) recv(v any) (fds []int, err error) {
	buf, oob := make([]byte, 128<<10), make([]byte, 128)
	n, oobn, flags, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, io.EOF
	}
	if flags&unix.MSG_TRUNC != 0 {
		return nil, errors.New("message too long")
	}
	if oobn > 0 {
		msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			return nil, err
		}
		for _, m := range msgs {
			got, err := unix.ParseUnixRights(&m)
			if err != nil {
				return nil, err
			}
			fds = append(fds, got...)
		}
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	return fds, json.Unmarshal(buf[:n], v)
}

// shimState is the shim's view of the container.
type shimState struct {
	*shimConn
	cfg  config
	main *exec.Cmd

	mu    sync.Mutex
	procs map[int]*program // by the ID of the request that starts them
}

// shim is the main function of the shim: file 3 is the socket to the tester, standard error the container's log.
func shim() error {
	for fd := range 4 {
		unix.CloseOnExec(fd)
	}
	conn, err := newShimConn(os.NewFile(3, "tester"))
	if err != nil {
		return err
	}
	s := &shimState{shimConn: conn, procs: map[int]*program{}}
	if _, err := conn.recv(&s.cfg); err != nil {
		return err
	}
	if err := s.start(); err != nil {
		return conn.send(reply{Err: err.Error()})
	}
	if err := conn.send(reply{}); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.main.Wait()
		conn.send(reply{ID: -1, Code: exitCode(s.main.ProcessState)})
	}()
	for {
		var r request
		fds, err := conn.recv(&r)
		if err != nil { // the tester is gone, or done
			s.main.Process.Kill()
			<-ended
			return nil // and whoever else is left ends with us
		}
		s.serve(r, fds)
	}
}

// start brings up the network and process 1.
func (s *shimState) start() error {
	if err := unix.Sethostname([]byte("container")); err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	// As Docker does, so that 80 and 443 are for any user.
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0); err != nil {
		return err
	}
	cfgr, cfgw, err := os.Pipe()
	if err != nil {
		return err
	}
	errr, errw, err := os.Pipe()
	if err != nil {
		return err
	}
	s.main = &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{initName}, Env: []string{},
		Stdout: os.Stderr, Stderr: os.Stderr, ExtraFiles: []*os.File{cfgr, errw},
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS, Setsid: true, AmbientCaps: s.cfg.ambient(),
		},
	}
	if err := s.main.Start(); err != nil {
		return err
	}
	cfgr.Close()
	errw.Close()
	json.NewEncoder(cfgw).Encode(s.cfg)
	cfgw.Close()
	// The other end closes when the image's program takes over.
	if why, err := io.ReadAll(errr); err != nil || len(why) > 0 {
		s.main.Wait()
		return errors.New(string(why))
	}
	return nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

func (s *shimState) serve(r request, fds []int) {
	answer := func(err error, code int, fds ...int) {
		rep := reply{ID: r.ID, Code: code}
		if err != nil {
			rep.Err = err.Error()
		}
		s.send(rep, fds...)
	}
	switch r.Op {
	case "socket":
		fd, err := unix.Socket(r.N[0], r.N[1], 0)
		if err != nil {
			answer(err, 0)
			return
		}
		answer(nil, 0, fd)
		unix.Close(fd)
	case "signal":
		answer(s.main.Process.Signal(syscall.Signal(r.N[0])), 0)
	case "kill":
		s.mu.Lock()
		if p := s.procs[r.N[0]]; p != nil {
			p.kill()
		}
		s.mu.Unlock()
	case "exec", "host":
		p := new(program)
		s.mu.Lock()
		s.procs[r.ID] = p
		s.mu.Unlock()
		// On a thread of its own, because Pdeathsig means the thread, and because exec leaves it in other namespaces.
		go func() {
			runtime.LockOSThread()
			code, err := s.run(r, p, fds)
			s.mu.Lock()
			delete(s.procs, r.ID)
			s.mu.Unlock()
			answer(err, code)
		}()
	}
}

// program is one that the tester asked for, from then on, so that it can be killed while it starts.
type program struct {
	process *os.Process // nil until it has started
	killed  bool
}

func (p *program) kill() {
	p.killed = true
	if p.process != nil {
		p.process.Kill()
	}
}

// run runs a program, in the container or with only its network, and returns its exit code.
func (s *shimState) run(r request, p *program, fds []int) (int, error) {
	out, errs := os.NewFile(uintptr(fds[0]), "stdout"), os.NewFile(uintptr(fds[1]), "stderr")
	defer out.Close()
	defer errs.Close()
	cmd := &exec.Cmd{Args: r.Args, Stdout: out, Stderr: errs}
	var err error
	if r.Op == "exec" {
		err = s.inside(cmd)
	} else {
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, AmbientCaps: s.cfg.ambient()}
		cmd.Path, err = exec.LookPath(r.Args[0])
	}
	if err == nil {
		err = cmd.Start()
	}
	if r.Op == "exec" && (errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist)) {
		fmt.Fprintln(errs, err)
		return 127, nil // as Docker and shells have it
	}
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	if p.process = cmd.Process; p.killed {
		p.kill()
	}
	s.mu.Unlock()
	cmd.Wait()
	return exitCode(cmd.ProcessState), nil
}

// inside makes cmd one of the image's programs, started from this thread, which it puts into the container. The
// program ends with process 1, whose namespace it is in.
func (s *shimState) inside(cmd *exec.Cmd) error {
	if err := enter(s.main.Process.Pid); err != nil {
		return fmt.Errorf("enter the container: %w", err)
	}
	if err := s.cfg.confine(); err != nil {
		return err
	}
	p := s.cfg.Process
	p.Args = cmd.Args
	cmd.Dir, cmd.Env = p.Dir, p.environ()
	if !s.cfg.UserNS {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(p.UID), Gid: uint32(p.GID)}}
	}
	var err error
	cmd.Path, err = p.lookPath()
	return err
}

// enter puts this thread, and what it starts, into the mount and process namespaces of a process.
func enter(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Unshare(unix.CLONE_FS); err != nil { // threads share root and working directory
		return err
	}
	return unix.Setns(fd, unix.CLONE_NEWNS|unix.CLONE_NEWPID)
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

// lastCap is the highest capability that the kernel knows.
func lastCap() int {
	b, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return unix.CAP_LAST_CAP
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return unix.CAP_LAST_CAP
	}
	return n
}
