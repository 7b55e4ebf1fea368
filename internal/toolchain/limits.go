package toolchain

import (
	"fmt"
	"runtime"
	"sync"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// Limits say what may run at once on a machine, and with how much memory. They change how
// long a compile takes and what it holds, never what it makes: no key covers them.
type Limits struct {
	// Commands is the number of go commands at once.
	Commands int
	// Processes is the number of compilers and linkers at once that each command starts.
	Processes int
	// Heap is what each of these, and each go command, may fill, in bytes, before it collects
	// garbage; 0 if nothing is known of the machine's memory.
	Heap uint64
}

// ThisMachine has the limits of the machine that this program runs on, or of the container.
var ThisMachine = sync.OnceValue(func() Limits {
	return limits(memory(memlimit.FromCgroup, memlimit.FromSystem), runtime.GOMAXPROCS(0))
})

// memory is the smaller of what the control group of this process and those above it leave
// it, and what the machine has; 0 if neither says.
func memory(group, machine memlimit.Provider) uint64 {
	total, err := machine()
	if err != nil {
		total = 0
	}
	limit, err := group()
	if err != nil || total > 0 && limit > total { // most often [memlimit.ErrNoLimit]
		return total
	}
	return limit
}

// leastHeap is enough for the linker, and for the compiler on all packages but a few, to
// work without collecting garbage.
const leastHeap = 512 << 20

// limits divides memory, in bytes, and processors among compilers. A compiler or linker
// seldom lives long enough for the collection of garbage to pay, so that each fills its
// share of memory first. All at once may, and the go commands that start them: the sum of the
// shares is three quarters of the memory, the rest is for this program, and for what is not heap. Two
// commands at once keep all cores busy while one of them links, which uses a single core;
// there are fewer, and then fewer compilers, where shares would be too small.
func limits(memory uint64, cores int) Limits {
	l := Limits{Commands: max(2, cores/4), Processes: cores}
	if memory == 0 {
		return l
	}
	heaps := memory / 4 * 3
	fit := int(heaps / leastHeap)
	l.Commands = max(1, min(l.Commands, fit/(cores+1)))
	l.Processes = max(1, min(cores, fit-1)) // of one command if it does not fit
	l.Heap = heaps / uint64(l.Commands*(l.Processes+1))
	return l
}

// env is the limits of one go command and of what it starts.
func (l Limits) env() []string {
	env := []string{fmt.Sprintf("GOMAXPROCS=%d", l.Processes)}
	if l.Heap > 0 {
		env = append(env, "GOGC=off", fmt.Sprintf("GOMEMLIMIT=%d", l.Heap))
	}
	return env
}
