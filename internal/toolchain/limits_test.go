package toolchain

import (
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

const gib = 1 << 30

// TestMemory guards against a control group's limit that is not seen, and against one that
// is believed where the machine has less.
func TestMemory(t *testing.T) {
	says := memlimit.Limit
	fails := func(err error) memlimit.Provider { return func() (uint64, error) { return 0, err } }
	for _, test := range []struct {
		name           string
		group, machine memlimit.Provider
		want           uint64
	}{
		{"a limit", says(3 * gib), says(24 * gib), 3 * gib},
		{"a limit above what there is", says(64 * gib), says(24 * gib), 24 * gib},
		{"no limit", fails(memlimit.ErrNoLimit), says(24 * gib), 24 * gib},
		{"no control groups", fails(memlimit.ErrCgroupsNotSupported), says(8 * gib), 8 * gib},
		{"a limit, and nothing known of the machine", says(3 * gib), fails(errors.New("no /proc")), 3 * gib},
		{"nothing known", fails(errors.New("no /proc")), fails(memlimit.ErrNoLimit), 0},
	} {
		if got := memory(test.group, test.machine); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
}

// TestLimits guards against compilers that together hold more than the machine has, and
// against thrift where there is enough.
func TestLimits(t *testing.T) {
	for _, test := range []struct {
		memory  uint64
		cores   int
		want    Limits // Heap is not compared
		minimum uint64
	}{
		{24 * gib, 2, Limits{Commands: 2, Processes: 2}, 3 * gib},
		{16 * gib, 4, Limits{Commands: 2, Processes: 4}, 1200 << 20},
		{4 * gib, 2, Limits{Commands: 2, Processes: 2}, 512 << 20},
		{3 * gib, 2, Limits{Commands: 1, Processes: 2}, 768 << 20},
		{2 * gib, 2, Limits{Commands: 1, Processes: 2}, 512 << 20},
		{1 * gib, 1, Limits{Commands: 1, Processes: 1}, 384 << 20},
		{4 * gib, 16, Limits{Commands: 1, Processes: 5}, 512 << 20},
		{64 * gib, 32, Limits{Commands: 2, Processes: 32}, 512 << 20},
		{512 << 20, 64, Limits{Commands: 1, Processes: 1}, 0},
		{0, 16, Limits{Commands: 4, Processes: 16}, 0},
	} {
		got := limits(test.memory, test.cores)
		if got.Commands != test.want.Commands || got.Processes != test.want.Processes || got.Heap < test.minimum {
			t.Errorf("%d MiB, %d cores: %+v, want %+v and a heap of %d at least", test.memory>>20, test.cores, got, test.want, test.minimum)
		}
		if sum := got.Heap * uint64(got.Commands*(got.Processes+1)); sum > test.memory/4*3 {
			t.Errorf("%d MiB, %d cores: all heaps are %d MiB", test.memory>>20, test.cores, sum>>20)
		}
	}
}

// TestUnknownMemory guards against a collector that is switched off without a limit.
func TestUnknownMemory(t *testing.T) {
	if env := limits(0, 2).env(); slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "GO") && !strings.HasPrefix(e, "GOMAXPROCS=") }) {
		t.Errorf("environment: %q", env)
	}
	if env := limits(4*gib, 2).env(); !slices.Contains(env, "GOGC=off") || !slices.Contains(env, "GOMEMLIMIT=536870912") {
		t.Errorf("environment: %q", env)
	}
}

// TestThisMachine guards against a machine whose memory is not found.
func TestThisMachine(t *testing.T) {
	l := ThisMachine()
	if l.Heap == 0 || l.Processes > runtime.GOMAXPROCS(0) {
		t.Errorf("limits: %s", strings.Join(l.env(), " "))
	}
}
