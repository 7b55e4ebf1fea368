// Guest is the program in the images of this package's tests.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	switch os.Args[1] {
	case "serve": // echo on TCP and UDP, until SIGTERM
		serve(os.Args[2])
	case "report":
		report()
	case "exit":
		n, _ := strconv.Atoi(os.Args[2])
		fmt.Println("bye from", n)
		os.Exit(n)
	case "dial": // say what an echo server answers
		c, err := net.DialTimeout("tcp", os.Args[2], 3*time.Second)
		if err != nil {
			fail(err)
		}
		fmt.Fprint(c, "ping")
		c.(*net.TCPConn).CloseWrite()
		io.Copy(os.Stdout, c)
	case "write":
		if err := os.WriteFile(os.Args[2], []byte("written"), 0o644); err != nil {
			fail(err)
		}
	case "create": // a file that is not there yet
		if _, err := os.OpenFile(os.Args[2], os.O_CREATE|os.O_EXCL, 0o644); err != nil {
			fail(err)
		}
	case "cat":
		b, err := os.ReadFile(os.Args[2])
		if err != nil {
			fail(err)
		}
		os.Stdout.Write(b)
	case "sleep":
		time.Sleep(time.Hour)
	case "detach": // end, and leave a program that keeps what this one writes to
		c := exec.Command("/proc/self/exe", "sleep")
		c.Stdout, c.Stderr = os.Stdout, os.Stderr
		if err := c.Start(); err != nil {
			fail(err)
		}
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func serve(port string) {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	pc, err := net.ListenPacket("udp", ":"+port)
	if err != nil {
		fail(err)
	}
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		fail(err)
	}
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			pc.WriteTo(append([]byte(from.(*net.UDPAddr).IP.String()+" says "), buf[:n]...), from)
		}
	}()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	fmt.Println("serving")
	<-stop
	fmt.Fprintln(os.Stderr, "stopping")
}

// report says what the container is like from inside.
func report() {
	status := map[string]string{}
	b, _ := os.ReadFile("/proc/self/status")
	for _, line := range strings.Split(string(b), "\n") {
		k, v, _ := strings.Cut(line, ":")
		status[k] = strings.TrimSpace(v)
	}
	dir, _ := os.Getwd()
	host, _ := os.Hostname()
	var arch syscall.Utsname
	syscall.Uname(&arch)
	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"pid": os.Getpid(), "uid": os.Getuid(), "gid": os.Getgid(), "dir": dir, "host": host,
		"args": os.Args[1:], "env": os.Environ(),
		"eff": status["CapEff"], "bnd": status["CapBnd"], "amb": status["CapAmb"], "inh": status["CapInh"],
		"nnp": status["NoNewPrivs"], "groups": status["Groups"],
	})
}
