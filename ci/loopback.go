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

// takeLoopback finds the registries on this machine's loopback among the arguments
// that are passed on, and names them as a container reaches them.
func (o *options) takeLoopback() {
	for i, arg := range o.passed {
		flag, value, ok := strings.Cut(arg, "=")
		if !ok {
			flag, value = "", arg
		}
		words := strings.Split(value, ",")
		for j, word := range words {
			if port, rest, ok := loopback(word); ok {
				words[j] = "http://" + net.JoinHostPort(clientName, strconv.Itoa(port)) + rest
				if !slices.Contains(o.ports, port) {
					o.ports = append(o.ports, port)
				}
			}
		}
		o.passed[i] = strings.Join(words, ",")
		if flag != "" {
			o.passed[i] = flag + "=" + o.passed[i]
		}
	}
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
