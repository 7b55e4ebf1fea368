package main

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"dagger.io/dagger"

	"github.com/xavieralpha/derper/internal/cli"
	"github.com/xavieralpha/derper/internal/registry"
)

// clientName is the name under which a container reaches this machine's loopback. Names
// in .localhost may be spoken to without encryption.
const clientName = registry.EngineLoopback

// switches are the flags of build that have no value of their own.
var switches = []string{"again", "github", "h", "help", "json", "keyless", "q", "quiet", "retag", "source", "trust-cache", "unsigned", "update", "verify-cache"}

// oneDash matches a long flag with one dash.
var oneDash = regexp.MustCompile(`^-[a-z][a-z-]+(=|$)`)

// eachPassed calls f with the name and the value of each flag among the arguments that
// are passed on, and with "" and each argument that belongs to none. What f returns takes
// the value's place.
func (o *options) eachPassed(f func(name, value string) string) {
	for i := 0; i < len(o.passed); i++ {
		arg := o.passed[i]
		name, value, inline := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		switch {
		case !strings.HasPrefix(arg, "-"):
			o.passed[i] = f("", arg)
		case inline:
			o.passed[i] = strings.TrimSuffix(arg, value) + f(name, value)
		case slices.Contains(switches, name) || i+1 == len(o.passed):
			f(name, "")
		default:
			i++
			o.passed[i] = f(name, o.passed[i])
		}
	}
}

// eachReference calls f with each reference to a registry among the arguments that are
// passed on: the repositories of --to, and what verify is to verify. What f returns
// takes its place. Nothing else is a reference, whatever it looks like.
func (o *options) eachReference(f func(ref string) string) {
	o.eachPassed(func(name, value string) string {
		if name != "to" && (name != "" || o.command != "verify") {
			return value
		}
		words := strings.Split(value, ",")
		for i, word := range words {
			words[i] = f(strings.TrimSpace(word))
		}
		return strings.Join(words, ",")
	})
}

// take takes from the arguments that are passed on what is only on this machine: the file
// of a private key, and registries on its loopback. It names there what a container has
// in its place.
func (o *options) take() (err error) {
	for _, arg := range o.passed {
		if oneDash.MatchString(arg) { // before minutes of work, and not after
			return cli.Coded(cli.ExitUsage, fmt.Errorf("unknown flag %s", arg), "a long flag has two dashes: -"+arg)
		}
	}
	o.eachPassed(func(name, value string) string {
		switch {
		case err != nil:
		case o.command == "release" && name == "update" && value != "false":
			err = cli.Usage("--update: the engine builds what the lock names by now: run build update before")
		case name == "key" && value == "":
			err = cli.Usage("--key: no file given")
		case name == "key":
			key, rerr := os.ReadFile(value)
			if rerr != nil {
				err = fmt.Errorf("--key: %w", rerr)
			}
			o.key, value = string(key), keyFile
		}
		return value
	})
	o.takeLoopback()
	return err
}

// takeLoopback finds the registries on this machine's loopback among the arguments
// that are passed on, and names them as a container reaches them.
func (o *options) takeLoopback() {
	o.eachReference(func(ref string) string {
		port, rest, ok := loopback(ref)
		if !ok {
			return ref
		}
		if !slices.Contains(o.ports, port) {
			o.ports = append(o.ports, port)
		}
		return "http://" + net.JoinHostPort(clientName, strconv.Itoa(port)) + rest
	})
}

// loopback takes apart a reference to a registry on this machine's loopback.
func loopback(ref string) (port int, rest string, ok bool) {
	u, err := url.Parse("http://" + strings.TrimPrefix(ref, "http://"))
	if err != nil || u.Path == "" {
		return 0, "", false
	}
	ip := net.ParseIP(u.Hostname())
	if u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return 0, "", false
	}
	port, err = strconv.Atoi(u.Port())
	return port, u.Path, err == nil
}

// outside are the names that a registry has on this machine, by the one that it has in
// a container.
func outside(host string) []string {
	name, port, err := net.SplitHostPort(host)
	if err != nil || name != clientName {
		return []string{host}
	}
	return []string{net.JoinHostPort("localhost", port), net.JoinHostPort("127.0.0.1", port), net.JoinHostPort("::1", port)}
}

// forward binds this machine's loopback to a container.
func (e *engine) forward(c *dagger.Container) *dagger.Container {
	if len(e.o.ports) == 0 {
		return c
	}
	var ports []dagger.PortForward
	for _, port := range e.o.ports {
		ports = append(ports, dagger.PortForward{Frontend: port, Backend: port})
	}
	return c.WithServiceBinding(clientName, e.client.Host().Service(ports))
}
