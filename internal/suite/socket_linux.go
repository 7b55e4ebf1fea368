package suite

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/xavieralpha/derper/internal/limit"
)

// maxSocket is the most that is read of a connection to a socket, in bytes. Who asks reads an answer to its end.
const maxSocket = 64 << 20

// dialSocket connects to a socket that a program of the image has made in a folder. The image chooses the name, and what
// has that name. Neither may lead out of the folder, to a socket of this machine, whose programs trust the tester.
func dialSocket(dir, name string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		root, err := os.OpenRoot(dir)
		if err != nil {
			return nil, err
		}
		defer root.Close()
		// What is held cannot be exchanged any more. With O_PATH, a link at the end is held itself.
		f, err := root.OpenFile(name, unix.O_PATH, 0)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		if info, err := f.Stat(); err != nil {
			return nil, err
		} else if info.Mode().Type() != os.ModeSocket {
			return nil, fmt.Errorf("%s is no socket", name)
		}
		c, err := new(net.Dialer).DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
		runtime.KeepAlive(f)
		if err != nil {
			return nil, err
		}
		return boundedConn{c, limit.Reader(c, maxSocket)}, nil
	}
}

// boundedConn is a connection of which only so much is read.
type boundedConn struct {
	net.Conn
	r io.Reader
}

func (c boundedConn) Read(p []byte) (int, error) { return c.r.Read(p) }
