//go:build !linux

package main

import (
	"errors"
	"os/exec"
	"testing"
)

// runIsolated runs the tests without a network of their own, which only Linux has.
func runIsolated(m *testing.M) (code int, err error) {
	notIsolated = errors.New("only Linux has namespaces")
	return m.Run(), nil
}

func ownMounts(*exec.Cmd) {}
