package gobinary

import (
	"errors"
	"runtime/debug"
	"syscall"
)

// confine bounds the memory and the processor time of this process. Memory that is only
// reserved, of which Go has much, does not count.
func confine() error {
	debug.SetMemoryLimit(maxMemory * 3 / 4) // collect before
	seconds := uint64(maxTime.Seconds())
	return errors.Join(
		syscall.Setrlimit(syscall.RLIMIT_DATA, &syscall.Rlimit{Cur: maxMemory, Max: maxMemory}),
		syscall.Setrlimit(syscall.RLIMIT_CPU, &syscall.Rlimit{Cur: 4 * seconds, Max: 4 * seconds}), // of all threads
		syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}),
	)
}
