//go:build !linux

package suite

import (
	"errors"
	"net/netip"
)

func addAddress(string, netip.Addr) error { return errors.New("needs Linux") }
