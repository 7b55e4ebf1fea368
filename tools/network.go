package main

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// ip shows addresses and routes, and changes none.
func ip(args []string) error {
	four, six := slices.Contains(args, "-4"), slices.Contains(args, "-6")
	wanted := func(a netip.Addr) bool { return four == six || four == a.Is4() }
	args = slices.DeleteFunc(slices.Clone(args), func(arg string) bool { return arg == "-4" || arg == "-6" })
	what, device := "address", ""
	if len(args) > 0 {
		what, args = args[0], args[1:]
	}
	if len(args) > 0 && (strings.HasPrefix("show", args[0]) || strings.HasPrefix("list", args[0]) || args[0] == "ls") {
		args = args[1:]
	}
	if len(args) > 1 && args[0] == "dev" {
		args = args[1:]
	}
	if len(args) > 0 {
		device, args = args[0], args[1:]
	}
	for _, word := range []string{"address", "link", "route"} {
		if len(args) == 0 && strings.HasPrefix(word, what) {
			if word == "route" {
				return routes(device, wanted)
			}
			return addresses(device, word == "link", wanted)
		}
	}
	return usageError{errors.New("usage: ip [-4 | -6] [addr | link | route] [[show] [dev] NAME]")}
}

func addresses(device string, linkOnly bool, wanted func(netip.Addr) bool) error {
	list, err := net.Interfaces()
	if device != "" {
		var one *net.Interface
		if one, err = net.InterfaceByName(device); err == nil {
			list = []net.Interface{*one}
		}
	}
	if err != nil {
		return err
	}
	for _, i := range list {
		fmt.Printf("%d: %s: <%s> mtu %d\n", i.Index, i.Name, i.Flags, i.MTU)
		if len(i.HardwareAddr) > 0 {
			fmt.Printf("    link %s\n", i.HardwareAddr)
		}
		if linkOnly {
			continue
		}
		addresses, err := i.Addrs()
		if err != nil {
			return err
		}
		for _, a := range addresses {
			prefix, err := netip.ParsePrefix(a.String())
			if err != nil {
				return err
			}
			family := "inet6"
			if prefix.Addr().Is4() {
				family = "inet"
			}
			if wanted(prefix.Addr()) {
				fmt.Printf("    %s %s\n", family, a)
			}
		}
	}
	return nil
}

// routes prints the tables of /proc, whose numbers are in hexadecimal.
func routes(device string, wanted func(netip.Addr) bool) error {
	table, err := os.ReadFile("/proc/net/route")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) < 8 || f[0] == "Iface" {
			continue
		}
		mask, _ := address(f[7])
		ones, _ := net.IPMask(mask.AsSlice()).Size()
		if wanted(mask) && (device == "" || device == f[0]) {
			printRoute(f[0], f[1], ones, f[2], f[6], 10)
		}
	}
	table, _ = os.ReadFile("/proc/net/ipv6_route") // not there without IPv6
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) < 10 || f[9] == "lo" {
			continue
		}
		ones, _ := strconv.ParseUint(f[1], 16, 8)
		if wanted(netip.IPv6Unspecified()) && (device == "" || device == f[9]) {
			printRoute(f[9], f[0], int(ones), f[4], f[5], 16)
		}
	}
	return nil
}

func printRoute(device, to string, ones int, via, metric string, base int) {
	destination, _ := address(to)
	text := netip.PrefixFrom(destination, ones).String()
	if ones == 0 {
		text = "default"
	}
	if gateway, err := address(via); err == nil && !gateway.IsUnspecified() {
		text += " via " + gateway.String()
	}
	if n, err := strconv.ParseUint(metric, base, 32); err == nil && n > 0 {
		metric = fmt.Sprintf(" metric %d", n)
	} else {
		metric = ""
	}
	fmt.Printf("%s dev %s%s\n", text, device, metric)
}

// address parses an address of /proc: a route's IPv6 address has 32 digits in the order
// of the network; others consist of words in that of the machine, see [swapped].
func address(digits string) (netip.Addr, error) {
	data, err := hex.DecodeString(digits)
	if err == nil && len(data) == 4 {
		swapped(data)
	}
	a, ok := netip.AddrFromSlice(data)
	if err == nil && !ok {
		err = fmt.Errorf("no address: %q", digits)
	}
	return a, err
}

// swapped puts 32-bit words that /proc prints in the order of this machine into that of
// the network.
func swapped(data []byte) {
	for ; len(data) >= 4; data = data[4:] {
		binary.NativeEndian.PutUint32(data, binary.BigEndian.Uint32(data))
	}
}

// A socket is a line of /proc/net/tcp and its like.
type socket struct {
	proto, state string
	local, peer  netip.AddrPort
	inode        string
}

// states are those of TCP, in the order of their numbers. UDP has two of them.
var states = []string{"", "ESTAB", "SYN-SENT", "SYN-RECV", "FIN-WAIT-1", "FIN-WAIT-2", "TIME-WAIT", "UNCONN", "CLOSE-WAIT", "LAST-ACK", "LISTEN", "CLOSING", "NEW-SYN-RECV"}

func sockets(table, proto string) (list []socket, err error) {
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 10 || f[0] == "sl" {
			continue
		}
		s := socket{proto: proto, inode: f[9]}
		if s.local, err = endpoint(f[1]); err == nil {
			s.peer, err = endpoint(f[2])
		}
		if n, perr := strconv.ParseUint(f[3], 16, 8); perr == nil && int(n) < len(states) {
			s.state = states[n]
		}
		if err != nil {
			return nil, fmt.Errorf("/proc/net/%s: %w", proto, err)
		}
		list = append(list, s)
	}
	return list, nil
}

func endpoint(text string) (netip.AddrPort, error) {
	digits, port, _ := strings.Cut(text, ":")
	data, err := hex.DecodeString(digits)
	if err != nil {
		return netip.AddrPort{}, err
	}
	swapped(data)
	a, ok := netip.AddrFromSlice(data)
	n, err := strconv.ParseUint(port, 16, 16)
	if err == nil && !ok {
		err = fmt.Errorf("no address: %q", text)
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), err
}

// ss lists sockets, with the processes that have them, as far as this user may know.
func ss(args []string) error {
	flags := new(pflag.FlagSet)
	tcp := flags.BoolP("tcp", "t", false, "TCP only")
	udp := flags.BoolP("udp", "u", false, "UDP only")
	unix := flags.BoolP("unix", "x", false, "Unix sockets, with their paths")
	four := flags.BoolP("ipv4", "4", false, "IPv4 only")
	six := flags.BoolP("ipv6", "6", false, "IPv6 only")
	listening := flags.BoolP("listening", "l", false, "only those that wait for peers")
	for _, always := range []string{"all", "numeric", "processes"} {
		flags.BoolP(always, always[:1], true, "as always")
	}
	if _, err := parse(flags, args, "[-46alnptux]", 0, 0); err != nil {
		return err
	}
	owners := owners()
	w := table("PROTO", "STATE", "LOCAL", "PEER", "PROCESS")
	for _, proto := range []string{"tcp", "tcp6", "udp", "udp6"} {
		if *tcp != *udp && *tcp != strings.HasPrefix(proto, "tcp") || *unix && !*tcp && !*udp ||
			*four != *six && *six != strings.HasSuffix(proto, "6") {
			continue
		}
		data, err := os.ReadFile("/proc/net/" + proto)
		if errors.Is(err, os.ErrNotExist) {
			continue // no IPv6
		}
		if err != nil {
			return err
		}
		list, err := sockets(string(data), proto)
		if err != nil {
			return err
		}
		for _, s := range list {
			if !*listening || s.state == "LISTEN" || s.state == "UNCONN" {
				row(w, s.proto, s.state, s.local, s.peer, owners[s.inode])
			}
		}
	}
	if *unix {
		data, err := os.ReadFile("/proc/net/unix")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(data)) {
			f := strings.Fields(line)
			if len(f) < 8 || f[0] == "Num" {
				continue // of a pair, without a name
			}
			state := "ESTAB"
			if f[3] == "00010000" { // SO_ACCEPTCON, see unix_seq_show in the kernel
				state = "LISTEN"
			}
			if !*listening || state == "LISTEN" {
				row(w, "unix", state, f[7], "", owners[f[6]])
			}
		}
	}
	return w.Flush()
}

// owners are the processes that have sockets, by inode.
func owners() map[string]string {
	by := map[string]string{}
	open, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, file := range open {
		to, err := os.Readlink(file)
		inode, isSocket := strings.CutPrefix(to, "socket:[")
		if err != nil || !isSocket {
			continue
		}
		folder := filepath.Dir(filepath.Dir(file))
		name, _ := os.ReadFile(filepath.Join(folder, "comm"))
		by[strings.TrimSuffix(inode, "]")] = filepath.Base(folder) + "/" + strings.TrimSpace(string(name))
	}
	return by
}
