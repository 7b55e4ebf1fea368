//go:build !linux

package gobinary

import "runtime/debug"

// confine keeps the memory of this process low, as far as Go's collector can. Only Linux
// bounds what a process may ask for.
func confine() error {
	debug.SetMemoryLimit(maxMemory * 3 / 4)
	return nil
}
