//go:build !linux

package suite

import (
	"context"
	"errors"
	"net"
)

// dialSocket is for the machine that the containers run on, which this is not.
func dialSocket(string, string) func(context.Context, string, string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("sockets of a container can be reached on Linux only")
	}
}
