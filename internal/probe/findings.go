package probe

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
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

// Caught runs what ends with its first error, by must.Do and must.Get, and returns that error. Other panics go on.
func Caught(run func()) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case runtime.Error:
			panic(r)
		case error:
			err = r
		default:
			panic(r)
		}
	}()
	run()
	return nil
}

// Check is one row of the findings.
type Check struct {
	Name   string // group and check, such as "stun/ipv4"
	Result Result
	Reason string // why it failed or was skipped; what was seen when it passed
	Took   time.Duration
	Log    string // of what was judged, if it failed and its log can be had
}

// MarshalJSON writes the duration in milliseconds, which people read. Who reads it back gets all but that.
func (c Check) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Name   string  `json:"name"`
		Result Result  `json:"result"`
		Reason string  `json:"reason,omitempty"`
		Ms     float64 `json:"ms"`
		Log    string  `json:"log,omitempty"`
	}{c.Name, c.Result, c.Reason, float64(c.Took.Microseconds()) / 1000, c.Log})
}

// String is the row of the check in the text form, as wide as a relay's are.
func (c Check) String() string { return c.Text(18) }

// Text is the row in the text form, without the log, with room for names of a width. Further
// lines of the reason are indented: a relay's words are no row.
func (c Check) Text(width int) string {
	reason := strings.ReplaceAll(c.Reason, "\n", "\n      ")
	return strings.TrimRight(fmt.Sprintf("%-4s  %-*s %8s  %s", c.Result, width, c.Name, round(c.Took), reason), " ")
}

// Checks are rows in the order in which they were asked.
type Checks []Check

// Count returns the number of checks with that result.
func (l Checks) Count(of Result) int {
	n := 0
	for _, c := range l {
		if c.Result == of {
			n++
		}
	}
	return n
}

// OK reports whether what was asked passed: some checks did and none failed. That a check was skipped is no failure:
// who needs a certain check to have run looks it up with Find.
func (l Checks) OK() bool { return l.Count(Fail) == 0 && l.Count(Pass) > 0 }

// Find returns the check of that name.
func (l Checks) Find(name string) (Check, bool) {
	if i := slices.IndexFunc(l, func(c Check) bool { return c.Name == name }); i >= 0 {
		return l[i], true
	}
	return Check{}, false
}

// Findings are what a relay answered. Text and JSON follow from it.
type Findings struct {
	Relay  string    `json:"relay"` // host:port
	Time   time.Time `json:"time"`  // when the first check began
	Checks `json:"checks"`
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
