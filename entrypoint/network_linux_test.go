package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xavieralpha/derper/internal/testing/need"
	"github.com/xavieralpha/derper/internal/testing/releasetest"
)

// isolated tells the second process of a run from the first, by the folder of the
// programs. With the value try, a process only tries whether there can be a second.
const (
	isolated = "ENTRYPOINT_TEST_BIN"
	try      = "try"
)

// runIsolated runs the tests, in a network of their own where that can be.
func runIsolated(m *testing.M) (code int, err error) {
	if binDir = os.Getenv(isolated); binDir != "" {
		os.Unsetenv(isolated)
		if err := deadEnd(); err != nil {
			return 1, err
		}
		if binDir == try {
			return 0, nil
		}
		return m.Run(), nil
	}
	if notIsolated = need.HasNamespaces(); notIsolated != nil {
		return m.Run(), nil
	}
	if out, err := inNetwork(try).CombinedOutput(); err != nil {
		notIsolated = fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
		return m.Run(), nil
	}
	dir, err := os.MkdirTemp("", "entrypoint-test")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	// Tests run the programs as another user, too.
	if err := os.Chmod(dir, 0o755); err != nil {
		return 1, err
	}
	if err := releasetest.Programs(context.Background(), "..", dir); err != nil {
		return 1, err
	}
	// That of a person's device can connect to others, too.
	device := filepath.Join(dir, "device")
	if err := os.Mkdir(device, 0o755); err != nil {
		return 1, err
	}
	if err := releasetest.Programs(context.Background(), "..", device, "outboundproxy"); err != nil {
		return 1, err
	}
	cmd := inNetwork(dir, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 1, fmt.Errorf("no network namespace for the tests: %w", err)
	}
	return 0, nil
}

// inNetwork is the second process, in a network namespace.
func inNetwork(dir string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), isolated+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Getuid() != 0 {
		// A user namespace gives an ordinary user a network namespace.
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return cmd
}

// ownMounts has a program start in a mount namespace of its own.
func ownMounts(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
}

// deadEnd brings up loopback, and an interface with a default route that ends
// in nothing: tailscaled logs in nowhere, not even over loopback, as long as
// the machine has no network.
func deadEnd() error {
	if err := up("lo"); err != nil {
		return err
	}
	if err := cable("dead0", "dead1"); err != nil {
		return err
	}
	if err := up("dead1"); err != nil {
		return err
	}
	if err := addAddress("dead0", netip.MustParsePrefix("192.0.2.1/24")); err != nil {
		return err
	}
	return addRoute("dead0", netip.Prefix{}, attribute(unix.RTA_GATEWAY, "\xc0\x00\x02\x02")) // 192.0.2.2
}

// cable makes two connected interfaces and brings up the first. The attributes are
// the second one's.
func cable(name, other string, attributes ...string) error {
	second := attribute(1, append([]string{link(0, 0), attribute(unix.IFLA_IFNAME, other+"\x00")}, attributes...)...) // VETH_INFO_PEER
	veth := attribute(unix.IFLA_LINKINFO, attribute(unix.IFLA_INFO_KIND, "veth"), attribute(unix.IFLA_INFO_DATA, second))
	if err := netlink(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, link(0, 0), attribute(unix.IFLA_IFNAME, name+"\x00"), veth); err != nil {
		return fmt.Errorf("make an interface: %w", err)
	}
	return up(name)
}

// index is the number of an interface of the thread's network.
func index(name string) (uint32, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return 0, err
	}
	return uint32(i.Index), nil
}

func up(name string) error {
	i, err := index(name)
	if err == nil {
		err = netlink(unix.RTM_NEWLINK, 0, link(i, unix.IFF_UP))
	}
	if err != nil {
		return fmt.Errorf("bring up %s: %w", name, err)
	}
	return nil
}

// addAddress gives an interface an address of IPv4, with the network around it.
func addAddress(name string, p netip.Prefix) error {
	i, err := index(name)
	if err == nil {
		ip := string(p.Addr().AsSlice())
		head := number([]byte{unix.AF_INET, byte(p.Bits()), 0, unix.RT_SCOPE_UNIVERSE}, i)
		err = netlink(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, head, attribute(unix.IFA_LOCAL, ip), attribute(unix.IFA_ADDRESS, ip))
	}
	if err != nil {
		return fmt.Errorf("give %s the address %s: %w", name, p, err)
	}
	return nil
}

// addRoute makes packets to an address of IPv4 leave through an interface; those to
// any other if there is none.
func addRoute(name string, to netip.Prefix, attributes ...string) error {
	i, err := index(name)
	if err == nil {
		scope := unix.RT_SCOPE_UNIVERSE
		if to.IsValid() {
			attributes, scope = append(attributes, attribute(unix.RTA_DST, string(to.Addr().AsSlice()))), unix.RT_SCOPE_LINK
		}
		head := number([]byte{unix.AF_INET, byte(max(0, to.Bits())), 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, byte(scope), unix.RTN_UNICAST}, 0)
		err = netlink(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, append([]string{head, attribute(unix.RTA_OIF, number(nil, i))}, attributes...)...)
	}
	if err != nil {
		return fmt.Errorf("make a route through %s: %w", name, err)
	}
	return nil
}

// number adds a number to a message.
func number(to []byte, n uint32) string { return string(binary.NativeEndian.AppendUint32(to, n)) }

// link is the head of a message about an interface, with the flags to set.
func link(index, flags uint32) string {
	return string(make([]byte, 4)) + number(nil, index) + number(nil, flags) + number(nil, flags)
}

// attribute is a part of a message.
func attribute(kind uint16, parts ...string) string {
	var b bytes.Buffer
	for _, p := range parts {
		b.WriteString(p)
	}
	head := binary.NativeEndian.AppendUint16(nil, uint16(4+b.Len()))
	head = binary.NativeEndian.AppendUint16(head, kind)
	return string(head) + b.String() + string(make([]byte, -b.Len()&3))
}

// netlink asks the kernel for a change of the network. It takes no program, which a
// machine can lack.
// Source: rtnetlink(7).
func netlink(kind, flags uint16, parts ...string) error {
	var b bytes.Buffer
	for _, p := range parts {
		b.WriteString(p)
	}
	m := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+b.Len()))
	m = binary.NativeEndian.AppendUint16(m, kind)
	m = binary.NativeEndian.AppendUint16(m, unix.NLM_F_REQUEST|unix.NLM_F_ACK|flags)
	m = append(append(m, make([]byte, 8)...), b.Bytes()...)
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return err
	}
	messages, err := syscall.ParseNetlinkMessage(answer[:n])
	if err != nil || len(messages) == 0 || messages[0].Header.Type != unix.NLMSG_ERROR {
		return fmt.Errorf("an answer of %d bytes: %w", n, err)
	}
	if code := int32(binary.NativeEndian.Uint32(messages[0].Data)); code != 0 {
		return syscall.Errno(-code)
	}
	return nil
}
