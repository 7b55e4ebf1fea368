// Package retry does again what failed in a way that may pass.
package retry

import (
	"cmp"
	"context"
	"math/rand/v2"
	"time"
)

// A Policy says how often something is tried, and how long the waits between are.
type Policy struct {
	// Attempts is how often it is tried.
	Attempts int
	// Backoff is the wait after the first failure. It doubles with each, up to
	// 30 seconds, and varies by half of itself, so that those who failed together
	// do not come back together.
	Backoff time.Duration
	// Asked says how long a server asks to wait after an error, 0 if it does not; nil
	// for never. Sleep waits; nil for the function of that name.
	Asked func(err error) time.Duration
	Sleep func(ctx context.Context, d time.Duration) error
}

// Do calls try until it says not to try again, or until its last attempt, which last
// announces, and returns its error. While it waits, the end of ctx ends it, with the
// cause as the error.
func (p Policy) Do(ctx context.Context, try func(last bool) (again bool, err error)) error {
	for n := 1; ; n++ {
		again, err := try(n >= p.Attempts)
		if !again || n >= p.Attempts {
			return err
		}
		d := min(p.Backoff<<(n-1), 30*time.Second)
		d = d/2 + rand.N(d+1)
		if p.Asked != nil {
			d = cmp.Or(p.Asked(err), d)
		}
		sleep := p.Sleep
		if sleep == nil {
			sleep = Sleep
		}
		if err := sleep(ctx, d); err != nil {
			return err
		}
	}
}

// Sleep waits, or returns the cause when ctx ends before.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
