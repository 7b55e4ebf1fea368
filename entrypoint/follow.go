package main

import (
	"bytes"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/xavieralpha/derper/entrypoint/printable"
)

// Lines of derper that the entrypoint has something to say to.
// Source: cmd/derper/cert.go, and package net/http.
const (
	derperNode     = "Using self-signed certificate for IP address"
	handshakeError = "http: TLS handshake error from "
	limited        = "cannot accept connection; rate limited"
)

// An output is the pipe that a program prints into. What comes out of it is passed on, made
// printable: clients and control servers have a word in it.
type output struct {
	*os.File               // nil before the first program has it
	drained  chan struct{} // closed when all is passed on
}

// follow passes on what a program prints, as it comes. Each line is read along, unless each
// is nil.
func (o *output) follow(each func(line string)) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	o.File, o.drained = w, make(chan struct{})
	to := io.Writer(lossy{printable.NewWriter(os.Stderr)})
	if each != nil {
		to = io.MultiWriter(to, &lines{each: each})
	}
	go func() {
		defer close(o.drained)
		io.Copy(to, r) //nolint:errcheck // the pipe has ended
	}()
	return nil
}

// end lets a program that has ended have its last words.
func (o *output) end() {
	if o.File == nil {
		return
	}
	o.Close()
	select {
	case <-o.drained:
	case <-time.After(200 * time.Millisecond): // a process that the program left holds it
	}
}

// lossy loses what cannot be written, as on a full disk. To stop reading derper's
// output because of it would end derper.
type lossy struct{ io.Writer }

func (l lossy) Write(b []byte) (int, error) {
	l.Writer.Write(b) //nolint:errcheck // nobody is left to tell
	return len(b), nil
}

// heard is called with each line that derper prints.
func (p *pod) heard(line string) {
	switch {
	case strings.HasPrefix(strings.TrimSpace(line), `{"Name":"custom"`):
		// It follows derperNode, leaves out the ports, and is printed for a
		// CA's certificate, too.
		go p.do(func() { logf("derp map: not that one; use this node: %s", p.relay.Node(p.pair.served).JSON()) })
	case strings.Contains(line, handshakeError):
		// The health check's own: with Let's Encrypt it tells why there is no certificate.
		_, rest, _ := strings.Cut(line, handshakeError)
		from, cause, _ := strings.Cut(rest, ": ")
		if addr, err := netip.ParseAddrPort(from); err == nil && addr.Addr().IsLoopback() {
			p.acme.Failed(cause)
		}
	case strings.Contains(line, limited):
		logf("derper: ended because of ACCEPT_CONNECTION_LIMIT: the first connection above it ends derper, and those of all clients")
	}
}

// lines calls each with every whole line that is written to it, as far as the
// first few kilobytes of it go.
type lines struct {
	each func(string)
	rest []byte
}

const maxLine = 4 << 10

func (l *lines) Write(b []byte) (int, error) {
	n := len(b)
	for {
		line, rest, whole := bytes.Cut(b, []byte("\n"))
		l.rest = append(l.rest, line[:min(len(line), maxLine-len(l.rest))]...)
		if !whole {
			return n, nil
		}
		l.each(string(l.rest))
		l.rest, b = l.rest[:0], rest
	}
}
