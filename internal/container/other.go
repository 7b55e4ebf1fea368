//go:build !linux

package container

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
)

// Init does nothing: there are no namespaces here.
func Init() {}

func (native) Start(context.Context, Spec) (Container, error) {
	return nil, fmt.Errorf("native: needs Linux, this is %s\nhint: use the docker runner", runtime.GOOS)
}

type socketFunc func(domain, typ int) (*os.File, error)

func socketsOf(int) socketFunc { return nil }

func (socketFunc) connect(*forwards, Spec) (map[string]netip.AddrPort, error) {
	return nil, errors.New("an isolated container in Docker needs Linux, and root")
}

// seccompProfile is none: Docker's default applies, in the virtual machine that Docker runs in.
func seccompProfile(string) ([]byte, error) { return nil, nil }

// SetAddress needs Linux.
func SetAddress(string, netip.Addr) error { return errors.New("needs Linux") }

func openBinfmt() (dir string, closeIt func()) { return binfmtDir, func() {} }

func runs(string) bool { return true }
