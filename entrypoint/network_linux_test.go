package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
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
	const here, gateway = "\xc0\x00\x02\x01", "\xc0\x00\x02\x02" // 192.0.2.1, 192.0.2.2
	peer := attribute(1, link(0, 0), attribute(unix.IFLA_IFNAME, "dead1\x00"))
	veth := attribute(unix.IFLA_LINKINFO, attribute(unix.IFLA_INFO_KIND, "veth"), attribute(unix.IFLA_INFO_DATA, peer))
	if err := netlink(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, link(0, 0), attribute(unix.IFLA_IFNAME, "dead0\x00"), veth); err != nil {
		return fmt.Errorf("make an interface: %w", err)
	}
	var index uint32
	for _, name := range []string{"lo", "dead1", "dead0"} {
		i, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		index = uint32(i.Index)
		if err := netlink(unix.RTM_NEWLINK, 0, link(index, unix.IFF_UP)); err != nil {
			return fmt.Errorf("bring up %s: %w", name, err)
		}
	}
	address := number([]byte{unix.AF_INET, 24, 0, unix.RT_SCOPE_UNIVERSE}, index)
	if err := netlink(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, address, attribute(unix.IFA_LOCAL, here), attribute(unix.IFA_ADDRESS, here)); err != nil {
		return fmt.Errorf("give an address: %w", err)
	}
	route := number([]byte{unix.AF_INET, 0, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST}, 0)
	if err := netlink(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, route, attribute(unix.RTA_GATEWAY, gateway), attribute(unix.RTA_OIF, number(nil, index))); err != nil {
		return fmt.Errorf("make a default route: %w", err)
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
