package supervisor

import (
	"syscall"
	"time"
)

// A Child is a program that is kept running. Nothing here waits: its owner
// selects on Done, Due and Overdue, and calls what belongs to each.
type Child struct {
	// Restarts is how often it was started again, for whatever reason.
	Restarts int
	// Quick is how often in a row it could not be started, or ended within ten
	// seconds without being asked to.
	Quick int

	start   func() (*Process, error)
	process *Process
	since   time.Time
	asked   bool // its end was asked for
	anew    bool // and a new start, too
	due     <-chan time.Time
	overdue <-chan time.Time
}

// NewChild returns a Child that is started by the given function.
func NewChild(start func() (*Process, error)) *Child { return &Child{start: start} }

// quick is how soon an end is one of a row. After as many as that, the next
// start waits the longest.
const quick = 10 * time.Second

// Start starts the program. When it cannot be started, it is Due again later.
func (c *Child) Start() error {
	c.due, c.asked, c.anew, c.since = nil, false, false, time.Now()
	var err error
	if c.process, err = c.start(); err != nil {
		c.Quick++
		c.due = time.After(c.Wait())
	}
	return err
}

// Again starts the program once more.
func (c *Child) Again() error {
	c.Restarts++
	return c.Start()
}

// Done is ready when the program has ended; call Ended then.
func (c *Child) Done() <-chan struct{} {
	if c == nil {
		return nil
	}
	return c.process.Done()
}

// Due is ready when the program is to be started again; call Again then.
func (c *Child) Due() <-chan time.Time {
	if c == nil {
		return nil
	}
	return c.due
}

// Overdue is ready when the program has not ended in time; call Kill then.
func (c *Child) Overdue() <-chan time.Time {
	if c == nil {
		return nil
	}
	return c.overdue
}

// Running reports whether the program runs.
func (c *Child) Running() bool { return c != nil && c.process != nil }

// Uptime is how long the program has been running.
func (c *Child) Uptime() time.Duration { return time.Since(c.since) }

// Stop asks the program to end, once and for all. It is killed if it takes
// longer than the given time.
func (c *Child) Stop(grace time.Duration) { c.end(grace, false) }

// Renew asks the program to end, and starts it again when it has.
func (c *Child) Renew(grace time.Duration) { c.end(grace, true) }

func (c *Child) end(grace time.Duration, anew bool) {
	if c == nil {
		return
	}
	c.asked, c.anew, c.due = true, anew, nil
	if c.process == nil {
		if anew {
			c.due = time.After(0)
		}
		return
	}
	c.process.Signal(syscall.SIGTERM)
	c.overdue = time.After(grace)
}

// Kill ends the program.
func (c *Child) Kill() {
	c.overdue = nil
	c.process.Signal(syscall.SIGKILL)
}

// Signal sends the program a signal.
func (c *Child) Signal(sig syscall.Signal) { c.process.Signal(sig) }

// Ended takes notice of the end. It returns the exit code, how long the program
// ran, and whether its end was asked for. Unless it was stopped for good, it is
// Due again: at once, or later when it has ended quickly several times in a row.
func (c *Child) Ended() (code int, ran time.Duration, asked bool) {
	code, ran, asked = c.process.Code(), time.Since(c.since), c.asked
	c.process, c.overdue = nil, nil
	switch {
	case asked && !c.anew:
		return code, ran, asked
	case asked || ran >= quick:
		c.Quick = 0
	default:
		c.Quick++
	}
	c.due = time.After(c.Wait())
	return code, ran, asked
}

// Wait is how long the next start waits: not at all after the first quick end
// in a row, then 1 s, 2 s, 4 s and so on up to a minute.
func (c *Child) Wait() time.Duration {
	if c.Quick < 2 {
		return 0
	}
	return min(time.Second<<min(c.Quick-2, 6), time.Minute)
}
