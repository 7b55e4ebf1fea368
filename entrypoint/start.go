package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/xavieralpha/derper/entrypoint/certificate"
	"github.com/xavieralpha/derper/entrypoint/check"
	"github.com/xavieralpha/derper/entrypoint/relay"
	"github.com/xavieralpha/derper/entrypoint/setting"
	"github.com/xavieralpha/derper/entrypoint/tailscaled"
)

// run starts the relay and returns only to end the program.
func run(args []string) int {
	environ := os.Environ()
	set, problems := setting.Read(environ, args)
	if set.Bool("VERSION_FLAG") {
		return become(program("derper"), []string{"-version"}, setting.Environ(environ))
	}
	r := relay.Relay{Set: set}
	found := check.Relay(r, time.Now())
	for _, w := range append(setting.Misspelt(environ), found.Warnings...) {
		logf("warning: %v", w)
	}
	problems = append(problems, found.Problems...)
	if len(problems) > 0 {
		report(problems)
		logf("not started: %d of the settings above must change", len(problems))
		hint("docker run IMAGE env shows the effective values, --help what each one means")
		return 1
	}
	cert, err := preparePair(r)
	if err != nil {
		logf("certificate: %v", err)
		return 1
	}
	printNode(r, cert)
	if r.Verifies() && !r.Sidecar() {
		r.Set = r.With("SOCKET", r.HostSocket())
		warnOfOtherRevision(r.Get("SOCKET"))
	}
	l := launch{relay: r, environ: setting.Environ(environ)}
	if err := l.chooseKey(); err != nil {
		logf("node key: %v", err)
		return 1
	}
	if reason := staysFor(r, cert); reason != "" {
		logf("staying as process %d: %s", os.Getpid(), reason)
		return supervise(l, cert)
	}
	return l.become()
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

func printNode(r relay.Relay, cert *certificate.Certificate) {
	if r.Bool("DEV") {
		return
	}
	logf("derp map: the node for the tailnet policy is %s", r.Node(cert).JSON())
	logf("derp map: %s", r.Port80())
}

// warnOfOtherRevision compares the host's tailscaled with derper. derper talks
// to it in a way that changes between versions, and says little when it fails.
func warnOfOtherRevision(socket string) {
	status, err := ask(socket)
	if err != nil {
		return // the health check and the reminder report that
	}
	own, err := derperVersion()
	if err != nil {
		logf("warning: %v", err)
		return
	}
	if !tailscaled.SameRevision(status.Version, own) {
		logf("warning: the host's tailscaled is %s, derper is %s: verification may fail; bring both to one version, or set TS_AUTHKEY to use the tailscaled in this image", status.Version, own)
	}
}

// staysFor says why derper needs the entrypoint beside it, or "".
func staysFor(r relay.Relay, cert *certificate.Certificate) string {
	switch {
	case r.Sidecar():
		return "tailscaled runs beside derper"
	case r.Verifies() && !relay.IsSocket(r.Get("SOCKET")):
		return "there is no tailscaled to verify clients yet"
	case cert != nil && (!r.IsIP() || !cert.SelfSigned):
		return "a new certificate restarts derper"
	}
	return ""
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
		l.relay.Set = l.relay.With("CONFIG_PATH", path)
		return nil
	}
	if err := certificate.Writable(filepath.Dir(path)); err != nil {
		logf("warning: node key: cannot be stored in CERT_DIR, so each start has a new one: %v; set CONFIG_PATH to a file in a volume", err)
		l.nodeKey = relay.NewKey()
		return nil
	}
	l.relay.Set = l.relay.With("CONFIG_PATH", path)
	return nil
}

// secrets returns the flags of derper that name a file with a secret, and the
// pipes that stand for the files. A pipe leaves nothing on a disk, and works
// without a writable one. Each start of derper needs new ones.
func (l launch) secrets(firstFD func(i int, f *os.File) uintptr) (flags []string, files []*os.File, err error) {
	add := func(flag string, content []byte) {
		if len(content) == 0 || err != nil {
			return
		}
		var f *os.File
		if f, err = filled(content); err == nil {
			flags = append(flags, fmt.Sprintf("-%s=/proc/self/fd/%d", flag, firstFD(len(files), f)))
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

// become turns the entrypoint into derper.
func (l launch) become() int {
	flags, files, err := l.secrets(func(_ int, f *os.File) uintptr { return f.Fd() })
	if err != nil {
		logf("derper: %v", err)
		return 1
	}
	for _, f := range files {
		if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, f.Fd(), syscall.F_SETFD, 0); errno != 0 {
			logf("derper: hand over a secret: %v", errno)
			return 1
		}
	}
	// A derper that has nothing to do on SIGHUP would end on it. This outlives
	// execve, and derper still gets it when it asks for it (RATE_CONFIG).
	signal.Ignore(syscall.SIGHUP)
	return become(program("derper"), append(l.relay.Flags(), flags...), l.environ)
}
