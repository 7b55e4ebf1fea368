// Package localapi is how the commands of the image, such as healthcheck, ask
// the entrypoint that runs the relay: over a unix socket with an abstract name,
// which needs no writable disk.
//
// The name holds the number of the mount namespace, which each container has of
// its own, whatever network or process namespace it shares with others and
// whatever init runs in it. An abstract name has no permissions, so both ends
// ask the kernel who is at the other one (SO_PEERCRED, unix(7)).
package localapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"
)

// An Answer is what a command prints, and its exit code.
type Answer struct {
	Out  string // on standard output
	Err  string // on standard error
	Code int
}

// And is both answers, one behind the other; the worse code counts.
func (a Answer) And(b Answer) Answer {
	return Answer{Out: a.Out + b.Out, Err: a.Err + b.Err, Code: max(a.Code, b.Code)}
}

// ErrNobody says that no entrypoint runs a relay in this container.
var ErrNobody = errors.New("no relay runs in this container")

// name is that of the socket.
func name() (string, error) {
	ns, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return "", fmt.Errorf("which mount namespace this is: %w", err)
	}
	return "@derper-entrypoint/" + ns, nil
}

// Serve answers commands until it is closed. The error says why it cannot:
// ErrTaken when another entrypoint does so in this container.
func Serve(answer func(ctx context.Context, command string) Answer) (io.Closer, error) {
	name, err := name()
	if err != nil {
		return nil, err
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, ErrTaken
	}
	if err != nil {
		return nil, err
	}
	server := &http.Server{
		ReadTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			json.NewEncoder(w).Encode(answer(r.Context(), r.URL.Path[1:])) //nolint:errcheck // who asked has gone
		}),
	}
	go server.Serve(guarded{ln}) //nolint:errcheck // it ends when it is closed
	return server, nil
}

// ErrTaken says that another entrypoint runs a relay in this container.
var ErrTaken = errors.New("another entrypoint runs in this container, and answers its commands")

// Ask asks the entrypoint that runs the relay. The error is ErrNobody if there
// is none.
func Ask(ctx context.Context, command string) (Answer, error) {
	var a Answer
	name, err := name()
	if err != nil {
		return a, err
	}
	var server peer
	client := http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: name, Net: "unix"})
			if errors.Is(err, syscall.ECONNREFUSED) {
				return nil, ErrNobody
			}
			if err != nil {
				return nil, err
			}
			// Root may ask a relay that runs as somebody else.
			if server, err = peerOf(conn); err != nil || !server.near() || os.Geteuid() != 0 && !server.trusted() {
				conn.Close()
				return nil, fmt.Errorf("a process of uid %d has the socket of the entrypoint, and is not asked", server.uid)
			}
			return conn, nil
		},
	}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://entrypoint/"+command, nil)
	if err != nil {
		return a, err
	}
	res, err := client.Do(req)
	if uid := os.Geteuid(); err != nil && server.near() && uid != 0 && uid != server.uid {
		return a, fmt.Errorf("the relay runs as uid %d, and answers that user and root; this is uid %d", server.uid, uid)
	}
	if err != nil {
		return a, errors.Unwrap(err) // what url.Error adds is of no use to anybody
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&a); err != nil {
		return a, fmt.Errorf("the entrypoint's answer: %w", err)
	}
	return a, nil
}

// A peer is the process at the other end.
type peer struct{ pid, uid int }

// near reports whether the process is in this container: one that is not has no
// number here.
func (p peer) near() bool { return p.pid != 0 }

// trusted reports whether it runs as the same user, or as root.
func (p peer) trusted() bool { return p.uid == os.Geteuid() || p.uid == 0 }

// guarded accepts only whom it trusts.
type guarded struct{ *net.UnixListener }

// Accept waits for the next one.
func (g guarded) Accept() (net.Conn, error) {
	for {
		conn, err := g.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if p, err := peerOf(conn); err == nil && p.near() && p.trusted() {
			return conn, nil
		}
		conn.Close()
	}
}
