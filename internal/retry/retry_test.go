package retry

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestDo(t *testing.T) {
	failed := errors.New("failed")
	p := Policy{Attempts: 4, Backoff: 20 * time.Second}
	for _, test := range []struct {
		name     string
		passes   int // the attempt that does not fail
		forGood  int // the attempt that fails for good
		attempts int
		shortest time.Duration
		longest  time.Duration
	}{
		{"at once", 1, 0, 1, 0, 0},
		{"third", 3, 0, 3, 25 * time.Second, 75 * time.Second},
		{"never", 0, 0, 4, 40 * time.Second, 120 * time.Second},
		{"for good", 0, 2, 2, 10 * time.Second, 30 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began, n := time.Now(), 0
				err := p.Do(t.Context(), func(last bool) (bool, error) {
					n++
					if last != (n == p.Attempts) {
						t.Errorf("attempt %d of %d: last is %v", n, p.Attempts, last)
					}
					if n == test.passes {
						return false, nil
					}
					return n != test.forGood, failed
				})
				if (err == nil) != (test.passes > 0) || err != nil && err != failed || n != test.attempts {
					t.Errorf("%v after %d attempts", err, n)
				}
				if took := time.Since(began); took < test.shortest || took > test.longest {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

// TestDoStops guards against a wait that nobody can end.
func TestDoStops(t *testing.T) {
	stopped := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	n := 0
	err := Policy{Attempts: 9, Backoff: time.Hour}.Do(ctx, func(bool) (bool, error) {
		n++
		cancel(stopped)
		return true, errors.New("failed")
	})
	if err != stopped || n != 1 {
		t.Errorf("%v after %d attempts", err, n)
	}
}
