package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
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

// configEnv is the variable in which shim and process 1 find their config.
const configEnv = "DERPER_CONTAINER_CONFIG"

// Init runs what this program is when it was called by itself, and then does not return. Otherwise it does nothing.
func Init() {
	var main func(config) error
	switch os.Args[0] {
	case shimName:
		main = shim
	case initName:
		main = initMain
	default:
		return
	}
	runtime.LockOSThread() // namespaces, capabilities and the parent-death signal belong to a thread
	var cfg config
	err := json.Unmarshal([]byte(os.Getenv(configEnv)), &cfg)
	os.Unsetenv(configEnv)
	if err == nil {
		err = main(cfg)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "container: %v\n", err)
		os.Exit(127)
	}
	os.Exit(0)
}

// request is what the tester asks of the shim. With it come file descriptors: a socket for the reply, and what a
// program writes to. When the tester shuts that socket down, the program is killed.
type request struct {
	Op   string // "socket", "signal", "exec", "host"
	Args []string
	N    [2]int // domain and type of a socket; a signal
}

// reply is the answer to a request, with the socket asked for. The first two on the shim's own socket are about the
// start of process 1 and its end.
type reply struct {
	Err  string
	Code int
}

// socketPair returns the ends of a socket that carries packets.
func socketPair() (mine *net.UnixConn, theirs *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	theirs = os.NewFile(uintptr(pair[1]), "socket")
	if mine, err = unixConn(os.NewFile(uintptr(pair[0]), "socket")); err != nil {
		theirs.Close()
	}
	return mine, theirs, err
}

func unixConn(f *os.File) (*net.UnixConn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

// send sends a JSON message in one packet, with copies of files.
func send(c *net.UnixConn, v any, files ...*os.File) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	_, _, err = c.WriteMsgUnix(b, unix.UnixRights(fds...), nil)
	return err
}

func recv(c *net.UnixConn, v any) (files []*os.File, err error) {
	buf, oob := make([]byte, 128<<10), make([]byte, 128)
	n, oobn, flags, _, err := c.ReadMsgUnix(buf, oob)
	if err == nil && flags&unix.MSG_TRUNC != 0 {
		err = errors.New("message too long")
	}
	if err != nil {
		return nil, err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return nil, err
	}
	for _, m := range msgs {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return nil, err
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, json.Unmarshal(buf[:n], v)
}

// shimState is the shim's view of the container.
type shimState struct {
	cfg  config
	main *exec.Cmd
}

// shim is the main function of the shim: file 3 is the socket to the tester, standard error the container's log.
func shim(cfg config) error {
	// Whatever else the tester was started with is for nobody here.
	if err := unix.CloseRange(0, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return err
	}
	tester, err := unixConn(os.NewFile(3, "tester"))
	if err != nil {
		return err
	}
	s := &shimState{cfg: cfg}
	if err := s.start(); err != nil {
		return send(tester, reply{Err: err.Error()})
	}
	if err := send(tester, reply{}); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.main.Wait()
		send(tester, reply{Code: exitCode(s.main.ProcessState)})
	}()
	for {
		var r request
		files, err := recv(tester, &r)
		if err != nil { // the tester is gone, or done
			s.main.Process.Kill()
			<-ended
			return nil // and whoever else is left ends with us
		}
		go s.serve(r, files)
	}
}

// start brings up the network and process 1.
func (s *shimState) start() error {
	if err := unix.Sethostname([]byte("container")); err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	if err := configure("lo", unix.SIOCSIFFLAGS, func(i *unix.Ifreq) error {
		i.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
		return nil
	}); err != nil {
		return err
	}
	// As Docker does, so that 80 and 443 are for any user.
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0); err != nil {
		return err
	}
	errr, errw, err := os.Pipe()
	if err != nil {
		return err
	}
	defer errr.Close()
	files := []*os.File{errw}
	for i, v := range s.cfg.Volumes {
		if s.cfg.Given {
			f := os.NewFile(uintptr(4+i), v.Host)
			defer f.Close()
			files = append(files, f)
		}
	}
	s.main = s.cfg.command(context.Background(), os.Stderr, os.Stderr, files...)
	s.main.SysProcAttr.Cloneflags = unix.CLONE_NEWPID | unix.CLONE_NEWNS
	err = s.main.Start()
	errw.Close()
	if err != nil {
		return err
	}
	// The other end closes when the image's program takes over.
	if why, err := io.ReadAll(errr); err != nil || len(why) > 0 {
		s.main.Wait()
		return errors.New(strings.TrimSpace(string(why)))
	}
	return nil
}

// configure sets one thing of a network interface.
func configure(name string, what uint, set func(*unix.Ifreq) error) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		err = set(ifr)
	}
	if err == nil {
		err = unix.IoctlIfreq(fd, what, ifr)
	}
	if err != nil {
		return fmt.Errorf("network interface %s: %w", name, err)
	}
	return nil
}

// SetAddress gives a network interface an IPv4 address, in the network that this program is in.
func SetAddress(name string, ip netip.Addr) error {
	return configure(name, unix.SIOCSIFADDR, func(i *unix.Ifreq) error { return i.SetInet4Addr(ip.AsSlice()) })
}

// serve does what a request asks for, and answers it.
func (s *shimState) serve(r request, files []*os.File) {
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	conn, err := unixConn(files[0])
	if err != nil {
		return
	}
	defer conn.Close()
	var a reply
	var socket []*os.File
	switch r.Op {
	case "socket":
		var fd int
		if fd, err = unix.Socket(r.N[0], r.N[1], 0); err == nil {
			socket = []*os.File{os.NewFile(uintptr(fd), "socket")}
			files = append(files, socket...)
		}
	case "signal":
		err = s.main.Process.Signal(syscall.Signal(r.N[0]))
	default:
		a.Code, err = s.run(r, conn, files[1], files[2])
	}
	if err != nil {
		a.Err = err.Error()
	}
	send(conn, a, socket...)
}

// run runs a program, in the container or with only its network, and returns its exit code. Its goroutine ends with it.
func (s *shimState) run(r request, conn *net.UnixConn, stdout, stderr *os.File) (int, error) {
	// Never unlocked: the thread ends with this goroutine, in whatever namespaces it is. And not earlier: the program's
	// parent-death signal means this thread, not this process (go.dev/issue/27505).
	runtime.LockOSThread()
	ctx, kill := context.WithCancel(context.Background())
	go func() {
		conn.Read(make([]byte, 1)) // nothing: the tester wants no more of it, or it has ended
		kill()
	}()
	var cmd *exec.Cmd
	if r.Op == "exec" {
		pid1, err := unix.PidfdOpen(s.main.Process.Pid, 0)
		if err != nil {
			return 0, fmt.Errorf("enter the container: %w", err)
		}
		f := os.NewFile(uintptr(pid1), "process 1")
		defer f.Close()
		if err := unix.Setns(pid1, unix.CLONE_NEWPID); err != nil { // for what this thread starts
			return 0, fmt.Errorf("enter the container: %w", err)
		}
		cfg := s.cfg
		cfg.Join, cfg.Process.Args = true, r.Args
		cmd = cfg.command(ctx, stdout, stderr, stderr, f)
	} else {
		cmd = exec.CommandContext(ctx, r.Args[0], r.Args[1:]...)
		cmd.Stdout, cmd.Stderr, cmd.Dir = stdout, stderr, "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, AmbientCaps: ambient()}
	}
	if err := cmd.Run(); cmd.ProcessState == nil {
		return 0, err
	}
	return exitCode(cmd.ProcessState), nil
}
