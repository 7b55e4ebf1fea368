package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/xavieralpha/derper/entrypoint/certificate"
	"github.com/xavieralpha/derper/entrypoint/check"
	"github.com/xavieralpha/derper/entrypoint/relay"
)

// run starts the relay and returns only to end the program.
func run(args []string) int {
	table, ok := variables()
	if !ok {
		return 1
	}
	environ := os.Environ()
	machine, _ := os.Hostname() // then none equals it
	set, problems := table.Read(environ, args, machine)
	if set.Bool("VERSION_FLAG") {
		return become(program("derper"), []string{"-version"}, table.Environ(environ))
	}
	r := relay.New(set)
	if r.Manual() {
		if err := r.Pair().Recover(); err != nil {
			logf("warning: certificate: a renewal that was interrupted: %v", err)
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo") // without it one warning is missing
	found := check.Relay(r, check.System{Environ: environ, Tailscaled: program("tailscaled"), Mounts: mounts, Now: time.Now()})
	for _, w := range append(table.Misspelt(environ), found.Warnings...) {
		logf("warning: %v", w)
	}
	problems = append(problems, found.Problems...)
	if len(problems) > 0 {
		for _, p := range problems {
			logf("%v", p)
		}
		logf("not started: %d of the settings above must change", len(problems))
		hint("docker run IMAGE env shows the effective values, --help what each one means")
		return 1
	}
	host := set.Value("HOSTNAME")
	logf("HOSTNAME=%s, from %s", host.Text, host.Source())
	cert, err := preparePair(r)
	if err != nil {
		logf("certificate: %v", err)
		return 1
	}
	l := launch{relay: r, environ: table.Environ(environ)}
	if err := l.chooseKey(); err != nil {
		logf("node key: %v", err)
		return 1
	}
	p, err := newPod(l, cert)
	if err != nil {
		logf("%v", err)
		return 1
	}
	return p.run()
}

// preparePair makes the pair of manual mode if there is none. derper would do
// that for an IP address, too, but not tell the ports in the node that it
// prints.
func preparePair(r relay.Relay) (*certificate.Certificate, error) {
	if !r.Manual() {
		return nil, nil
	}
	pair := r.Pair()
	cert, err := pair.Load()
	if errors.Is(err, certificate.ErrMissing) {
		if err := pair.Create(time.Now()); err != nil {
			return nil, err
		}
		logf("certificate: none for %s, made a self-signed one: %s", pair.Host, pair.Crt)
		cert, err = pair.Load()
	}
	return &cert, err
}

// A launch is all that derper is started with.
type launch struct {
	relay   relay.Relay
	environ []string
	nodeKey []byte // handed over in a pipe, if it cannot be stored
}

// chooseKey decides where the node key is. It survives a new container when it
// is in a volume, which CERT_DIR is.
func (l *launch) chooseKey() error {
	if l.relay.Bool("DEV") {
		return nil // derper makes a new one each time
	}
	path := l.relay.KeyPath()
	if _, err := os.Stat(path); err == nil || l.relay.Get("CONFIG_PATH") != "" {
		l.relay.Set = l.relay.With("CONFIG_PATH", path, "")
		return nil
	}
	if err := certificate.Writable(filepath.Dir(path)); err != nil {
		logf("warning: node key: cannot be stored in CERT_DIR, so each start has a new one: %v; set CONFIG_PATH to a file in a volume", err)
		l.nodeKey = relay.NewKey()
		return nil
	}
	l.relay.Set = l.relay.With("CONFIG_PATH", path, "")
	return nil
}

// secrets returns the flags of derper that name a file with a secret, and the
// pipes that stand for the files, which derper inherits as 3 and up. A pipe
// leaves nothing on a disk, and works without a writable one. Each start of
// derper needs new ones.
func (l launch) secrets() (flags []string, files []*os.File, err error) {
	add := func(flag string, content []byte) {
		if len(content) == 0 || err != nil {
			return
		}
		var f *os.File
		if f, err = filled(content); err == nil {
			flags = append(flags, fmt.Sprintf("-%s=/proc/self/fd/%d", flag, 3+len(files)))
			files = append(files, f)
		}
	}
	add("c", l.nodeKey)
	if !l.relay.Bool("DEV") {
		add("mesh-psk-file", []byte(l.relay.Get("MESH_PSK")))
	}
	return flags, files, err
}

// filled returns the reading end of a pipe that holds content, which must fit
// the pipe's buffer of at least 4 KiB.
func filled(content []byte) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	if err := w.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		return nil, err
	}
	if _, err := w.Write(content); err != nil {
		return nil, fmt.Errorf("hand over a secret: %w", err)
	}
	return r, nil
}
