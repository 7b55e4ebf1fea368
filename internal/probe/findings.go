package probe

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Result is the outcome of one check.
type Result string

const (
	Pass Result = "pass" // the relay did what a Tailscale client needs
	Fail Result = "fail" // it did not
	Skip Result = "skip" // not asked: Reason says why
)

// Skipped is the reason that something was not judged, as an error.
type Skipped string

func (s Skipped) Error() string { return string(s) }

// Judge is the outcome of what ended with an error or none, and the reason.
func Judge(err error) (Result, string) {
	var why Skipped
	switch {
	case err == nil:
		return Pass, ""
	case errors.As(err, &why):
		return Skip, why.Error()
	}
	return Fail, err.Error()
}

// Check is one row of the findings.
type Check struct {
	Name   string        // group and check, such as "stun/ipv4"
	Result Result        //
	Reason string        // why it failed or was skipped; what was seen when it passed
	Took   time.Duration //
}

// MarshalJSON writes the duration in milliseconds, which people read. Who reads it back gets all but that.
func (c Check) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Name   string  `json:"name"`
		Result Result  `json:"result"`
		Reason string  `json:"reason,omitempty"`
		Ms     float64 `json:"ms"`
	}{c.Name, c.Result, c.Reason, float64(c.Took.Microseconds()) / 1000})
}

// String is the row of the check in the text form.
func (c Check) String() string {
	return fmt.Sprintf("%-4s  %-18s %8s  %s", c.Result, c.Name, round(c.Took), c.Reason)
}

// Findings are what a relay answered. Text and JSON follow from it.
type Findings struct {
	Relay  string    `json:"relay"` // host:port
	Time   time.Time `json:"time"`  // when the first check began
	Checks []Check   `json:"checks"`
}

// Count returns the number of checks with result r.
func (r *Findings) Count(of Result) int {
	n := 0
	for _, c := range r.Checks {
		if c.Result == of {
			n++
		}
	}
	return n
}

// OK reports whether the relay passed: some checks did and none failed. That a check was skipped is no failure:
// who needs a certain check to have run looks it up with Find.
func (r *Findings) OK() bool { return r.Count(Fail) == 0 && r.Count(Pass) > 0 }

// Find returns the check of that name.
func (r *Findings) Find(name string) (Check, bool) {
	if i := slices.IndexFunc(r.Checks, func(c Check) bool { return c.Name == name }); i >= 0 {
		return r.Checks[i], true
	}
	return Check{}, false
}

// Summary is the findings in one line.
func (r *Findings) Summary() string {
	return fmt.Sprintf("%s: %d passed, %d failed, %d skipped", r.Relay, r.Count(Pass), r.Count(Fail), r.Count(Skip))
}

func round(d time.Duration) time.Duration {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond)
	case d >= 10*time.Millisecond:
		return d.Round(time.Millisecond)
	}
	return d.Round(10 * time.Microsecond)
}
