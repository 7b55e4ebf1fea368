// Package freeport finds ports for servers that can only be told one, and cannot
// be asked which one they took.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// The kernel gives no port below its ephemeral range (Linux: from 32768, others:
// from 49152) to a connection, or to a listener that asks for port 0. So a port
// from here stays free between Choose and its use, but for another server that is
// told the same one.
const first, count = 20000, 10000

// given are the ports that Choose has returned. A server that is stopped and started
// again needs its port a second time, and meanwhile another test must not get it.
var given sync.Map

// Choose returns a port of the IP address that is free for TCP and UDP at this
// moment, another one each time.
func Choose(ip string) (int, error) {
	var err error
	for range 100 {
		port := first + rand.IntN(count)
		if _, twice := given.LoadOrStore(port, true); twice {
			err = errors.New("too many are in use")
			continue
		}
		if err = free(net.JoinHostPort(ip, strconv.Itoa(port))); err == nil {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port from %d to %d of %s: %w", first, first+count-1, ip, err)
}

func free(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	pc, err := net.ListenPacket("udp", addr)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	return errors.Join(l.Close(), pc.Close())
}
