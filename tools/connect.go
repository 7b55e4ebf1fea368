package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// A stream is a connection, or what is sent to and comes from one peer by UDP.
type stream interface {
	io.ReadWriter
	SetReadDeadline(time.Time) error
}

// nc connects the standard input and output with a TCP or UDP port, or waits at one for a peer.
func nc(args []string) error {
	flags := new(pflag.FlagSet)
	udp := flags.BoolP("udp", "u", false, "UDP")
	listen := flags.BoolP("listen", "l", false, "wait for a peer")
	port := flags.StringP("port", "p", "", "with -l, the port to wait at")
	scan := flags.BoolP("zero", "z", false, "only connect")
	verbose := flags.BoolP("verbose", "v", false, "say who the peer is")
	flags.BoolP("numeric", "n", true, "as always")
	seconds := flags.IntP("wait", "w", 10, "seconds to wait for a connection; with UDP for more, once the input has ended")
	const usage = "[-uvz] [-w SECONDS] HOST PORT, nc -l [-uv] [HOST] PORT"
	rest, err := parse(flags, args, usage, 0, 2)
	if err != nil {
		return err
	}
	if *port != "" {
		rest = append(rest, *port)
	}
	if *listen && len(rest) == 1 {
		rest = []string{"", rest[0]}
	}
	if len(rest) != 2 || !*listen && *port != "" {
		return usageError{errors.New("usage: nc " + usage)}
	}
	if *udp && *scan {
		return usageError{errors.New("-z with -u says nothing: no answer comes of connecting")}
	}
	network := "tcp"
	if *udp {
		network = "udp"
	}
	address, wait := net.JoinHostPort(rest[0], rest[1]), time.Duration(*seconds)*time.Second
	var peer stream
	var of net.Addr
	switch {
	case *listen && *udp:
		peer, of, err = firstPacket(address)
	case *listen:
		peer, of, err = firstConnection(address)
	default:
		var conn net.Conn
		if conn, err = net.DialTimeout(network, address, wait); err == nil {
			peer, of = conn, conn.RemoteAddr()
		}
	}
	if err != nil {
		return err
	}
	if *verbose || *scan {
		fmt.Fprintln(os.Stderr, of, "connected")
	}
	if *scan {
		return nil
	}
	return exchange(peer, wait)
}

// exchange ends when the peer does, or, by UDP, some time after the standard input. What is to
// be sent is, unless somebody types it.
func exchange(peer stream, wait time.Duration) error {
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		io.Copy(peer, os.Stdin) //nolint:errcheck // the peer says whether it got what it needs
		if c, ok := peer.(*net.TCPConn); ok {
			c.CloseWrite() //nolint:errcheck // likewise
			return
		}
		peer.SetReadDeadline(time.Now().Add(wait)) //nolint:errcheck // it does for UDP
	}()
	_, err := io.Copy(os.Stdout, peer)
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		select {
		case <-sent:
		case <-time.After(wait):
		}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

func firstConnection(address string) (stream, net.Addr, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, nil, err
	}
	conn, err := l.Accept()
	if err = cmp.Or(err, l.Close()); err != nil {
		return nil, nil, err
	}
	return conn.(*net.TCPConn), conn.RemoteAddr(), nil
}

// firstPacket prints the first packet that comes; its sender is the peer.
func firstPacket(address string) (stream, net.Addr, error) {
	l, err := net.ListenPacket("udp", address)
	if err != nil {
		return nil, nil, err
	}
	packet := make([]byte, 64<<10)
	n, from, err := l.ReadFrom(packet)
	if err == nil {
		_, err = os.Stdout.Write(packet[:n])
	}
	return &packets{l, from}, from, err
}

type packets struct {
	net.PacketConn
	peer net.Addr
}

func (p *packets) Read(b []byte) (int, error) {
	for {
		n, from, err := p.ReadFrom(b)
		if err != nil || from.String() == p.peer.String() {
			return n, err
		}
	}
}

func (p *packets) Write(b []byte) (int, error) { return p.WriteTo(b, p.peer) }
