package suite

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"tailscale.com/util/must"

	"github.com/xavieralpha/derper/internal/container"
	"github.com/xavieralpha/derper/internal/limit"
	"github.com/xavieralpha/derper/internal/probe"
)

// A worker is this program again, started in the network of a container, to see that as the container does.

// workerName is the argument by which this program knows that it is a worker.
const workerName = "derper-suite-worker"

var workers = map[string]func(arg []byte) any{
	"probe":     workProbe,
	"processes": workProcesses,
	"hold":      workHold,
	"address":   workAddress,
}

// Init runs what this program is when the suite started it, and then does not return. Otherwise it does nothing.
func Init() {
	container.Init()
	if len(os.Args) != 4 || os.Args[1] != workerName || workers[os.Args[2]] == nil {
		return
	}
	if err := probe.Caught(func() {
		must.Do(json.NewEncoder(os.Stdout).Encode(workers[os.Args[2]]([]byte(os.Args[3]))))
	}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// maxAnswer is the most that a worker says, in bytes: what a relay answered may be among it.
const maxAnswer = 64 << 20

// work has a worker do something in the container's network.
func work[A any](ctx context.Context, c *box, what string, arg any) (answer A) {
	out := &limit.Buffer{Max: maxAnswer}
	must.Do(runWorker(ctx, c, what, arg, out))
	if err := json.Unmarshal([]byte(out.String()), &answer); err != nil {
		fail("%s: %w: %s", what, err, out.String())
	}
	return answer
}

func runWorker(ctx context.Context, c *box, what string, arg any, out io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	text, err := json.Marshal(arg)
	if err != nil {
		return err
	}
	errs := &limit.Buffer{Max: maxAnswer}
	code, err := c.Host(ctx, out, errs, self, workerName, what, string(text))
	if err == nil && code != 0 {
		err = fmt.Errorf("%s: code %d: %s", what, code, strings.TrimSpace(errs.String()))
	}
	return err
}

func workProbe(arg []byte) any {
	var t probe.Target
	must.Do(json.Unmarshal(arg, &t))
	must.Do(t.Validate())
	return probe.Run(context.Background(), t)
}

// process is one that runs in a container.
type process struct {
	PID        int
	Args       []string
	UID        int
	CapEff     string
	NoNewPrivs string
}

// workProcesses lists the processes that are in this one's network namespace, except for workers and the runner's own.
func workProcesses([]byte) any {
	own := must.Get(os.Readlink("/proc/self/ns/net"))
	list := []process{}
	for _, dir := range must.Get(filepath.Glob("/proc/[0-9]*")) {
		if ns, err := os.Readlink(dir + "/ns/net"); err != nil || ns != own {
			continue
		}
		cmdline, err := os.ReadFile(dir + "/cmdline")
		status, serr := os.ReadFile(dir + "/status")
		if err != nil || serr != nil || len(cmdline) == 0 {
			continue // it has just ended
		}
		p := process{Args: strings.Split(strings.TrimSuffix(string(cmdline), "\x00"), "\x00")}
		if slices.Contains(p.Args, workerName) || strings.HasPrefix(p.Args[0], "derper-container-") {
			continue
		}
		p.PID, _ = strconv.Atoi(filepath.Base(dir))
		first := map[string]string{}
		for line := range strings.Lines(string(status)) {
			if f := strings.Fields(line); len(f) > 1 {
				first[f[0]] = f[1]
			}
		}
		p.UID, _ = strconv.Atoi(first["Uid:"])
		p.CapEff, p.NoNewPrivs = first["CapEff:"], first["NoNewPrivs:"]
		list = append(list, p)
	}
	return list
}

// derper is the relay's process.
func (c *box) derper(ctx context.Context) process { return c.process(ctx, "derper") }

// process is a program's of the container. Where an emulator runs it, that comes first in its arguments.
func (c *box) process(ctx context.Context, program string) (found process) {
	list := work[[]process](ctx, c, "processes", nil)
	for _, p := range list {
		for i, a := range p.Args {
			if filepath.Base(a) == program && i < 3 {
				p.Args = p.Args[i:]
				return p
			}
		}
	}
	fail("no %s among the %d processes of the container", program, len(list))
	return found
}

// workHold takes a UDP port as soon as it is free, says so, and keeps it.
func workHold(arg []byte) any {
	var port int
	must.Do(json.Unmarshal(arg, &port))
	fmt.Println("waiting")
	for {
		c, err := net.ListenUDP("udp", &net.UDPAddr{Port: port})
		if err != nil {
			continue // at full speed: derper is after it, too
		}
		fmt.Println("held")
		for {
			c.Read(make([]byte, 1)) // and answer nothing
		}
	}
}

// address gives the container's loopback another address, which leads nowhere, and again another every second. Without
// any but 127.0.0.1 tailscaled takes the network to be down, and waits for a change, which it may miss while it starts.
func (c *box) address() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		runWorker(ctx, c, "address", nil, io.Discard)
	}()
	c.bed.onClose(func() error {
		cancel()
		<-ended
		return nil
	})
}

func workAddress([]byte) any {
	for i := byte(1); ; i = i%100 + 1 {
		must.Do(container.SetAddress("lo:1", netip.AddrFrom4([4]byte{192, 0, 2, i})))
		time.Sleep(time.Second)
	}
}
