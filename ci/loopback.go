package main

import (
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"dagger.io/dagger"
)

// clientName is the name under which a container reaches this machine's loopback. Names
// in .localhost may be spoken to without encryption.
const clientName = "client.localhost"

// switches are the flags of build that have no value of their own.
var switches = []string{"again", "github", "json", "keyless", "retag", "source", "trust-cache", "unsigned", "update", "verify-cache"}

// eachReference calls f with each reference to a registry among the arguments that are
// passed on: the repositories of --repo, and what verify is to verify. What f returns
// takes its place. Nothing else is a reference, whatever it looks like.
func (o *options) eachReference(f func(ref string) string) {
	each := func(list string) string {
		words := strings.Split(list, ",")
		for i, word := range words {
			words[i] = f(strings.TrimSpace(word))
		}
		return strings.Join(words, ",")
	}
	for i := 0; i < len(o.passed); i++ {
		arg := o.passed[i]
		name, value, inline := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		switch {
		case !strings.HasPrefix(arg, "-"):
			if o.command == "verify" {
				o.passed[i] = f(arg)
			}
		case inline && name == "repo":
			o.passed[i] = strings.TrimSuffix(arg, value) + each(value)
		case inline || slices.Contains(switches, name):
		case i+1 < len(o.passed):
			i++
			if name == "repo" {
				o.passed[i] = each(o.passed[i])
			}
		}
	}
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
