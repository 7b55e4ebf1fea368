package freeport

import (
	"net"
	"strconv"
	"testing"

	"github.com/xavieralpha/derper/internal/testing/need"
)

// TestChoose guards against a port that the kernel may hand to somebody else before it is used, or that is taken.
func TestChoose(t *testing.T) {
	for _, ip := range []string{"127.0.0.1", "::1"} {
		t.Run(ip, func(t *testing.T) {
			if ip == "::1" {
				need.IPv6(t)
			}
			port, err := Choose(ip)
			if err != nil {
				t.Fatal(err)
			}
			if port < first || port >= first+count {
				t.Errorf("port %d is in the ephemeral range", port)
			}
			addr := net.JoinHostPort(ip, strconv.Itoa(port))
			if err := free(addr); err != nil {
				t.Errorf("Choose left %s taken: %v", addr, err)
			}
			pc, err := net.ListenPacket("udp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer pc.Close()
			if free(addr) == nil {
				t.Errorf("%s/udp is taken, and called free", addr)
			}
		})
	}
	if _, err := Choose("192.0.2.1"); err == nil {
		t.Error("a port of an address that this machine does not have")
	}
}

// TestChooseOnce guards against two tests with the same port, while neither has it open.
func TestChooseOnce(t *testing.T) {
	seen := map[int]bool{}
	for range 1000 {
		port, err := Choose("127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		if seen[port] {
			t.Fatalf("port %d is given twice", port)
		}
		seen[port] = true
	}
}
