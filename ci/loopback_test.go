package main

import (
	"slices"
	"strings"
	"testing"
)

// TestLoopback guards against a container that looks for a registry on its own loopback,
// and against one that is led to this machine for another's.
func TestLoopback(t *testing.T) {
	for _, test := range []struct {
		passed, want string
		ports        []int
	}{
		{"--html 127.0.0.1:5000/derper x/y", "--html 127.0.0.1:5000/derper x/y", nil}, // a folder
		{"--to 127.0.0.1:5000/derper", "--to http://client.localhost:5000/derper", []int{5000}},
		{"--to=http://localhost:5000/a,http://localhost:5001/b", "--to=http://client.localhost:5000/a,http://client.localhost:5001/b", []int{5000, 5001}},
		{"--to localhost:5000/a --to [::1]:5000/b", "--to http://client.localhost:5000/a --to http://client.localhost:5000/b", []int{5000}},
		{"127.0.0.1:5000/derper:latest", "http://client.localhost:5000/derper:latest", []int{5000}},
		{"--to ghcr.io/a/derper,10.0.0.1:5000/derper --unsigned", "--to ghcr.io/a/derper,10.0.0.1:5000/derper --unsigned", nil},
		{"--to localhost/derper", "--to localhost/derper", nil}, // a name of Docker Hub's
		{"--identity https://github.com/a/b/.github/workflows/x.yml@refs/heads/main", "--identity https://github.com/a/b/.github/workflows/x.yml@refs/heads/main", nil},
	} {
		o := &options{command: "verify", passed: strings.Fields(test.passed)}
		o.takeLoopback()
		if got := strings.Join(o.passed, " "); got != test.want || !slices.Equal(o.ports, test.ports) {
			t.Errorf("%s: %s %v, want %s %v", test.passed, got, o.ports, test.want, test.ports)
		}
	}
}
