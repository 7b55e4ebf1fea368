package main

import (
	"encoding/binary"
)

// swapped puts 32-bit words that /proc prints in the order of this machine into that of
// the network.
func swapped(data []byte) {
	for ; len(data) >= 4; data = data[4:] {
		binary.NativeEndian.PutUint32(data, binary.BigEndian.Uint32(data))
	}
}
