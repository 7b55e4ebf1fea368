package suite

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/xavieralpha/derper/internal/probe"
)

// Result is the outcome of one row, as of a check of a relay. When it is Skip, Reason says why.
type Result = probe.Result

const (
	Pass = probe.Pass
	Fail = probe.Fail
	Skip = probe.Skip
)

// Row is what came out of a case, or of a part of one.
type Row struct {
	Name   string
	Result Result
	Reason string        // why it failed or was skipped; what was seen when it passed
	Took   time.Duration // of the whole case
	Log    string        // of the containers of a case that failed
}

// MarshalJSON writes the duration in milliseconds, which people read.
func (r Row) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Name   string `json:"name"`
		Result Result `json:"result"`
		Reason string `json:"reason,omitempty"`
		Ms     int64  `json:"ms"`
		Log    string `json:"log,omitempty"`
	}{r.Name, r.Result, r.Reason, r.Took.Milliseconds(), r.Log})
}

// String is the row in the text form, without the log.
func (r Row) String() string {
	return strings.TrimRight(fmt.Sprintf("%-4s  %-36s %7.2fs  %s", r.Result, r.Name, r.Took.Seconds(), r.Reason), " ")
}

// Results are what came out for one platform. Text, JSON and JUnit follow from it.
type Results struct {
	Platform string        `json:"platform"`
	Runner   string        `json:"runner"`
	Time     time.Time     `json:"time"` // when the first case began
	Took     time.Duration `json:"-"`
	Rows     []Row         `json:"cases"`
}

// Count returns the number of rows with that result.
func (r *Results) Count(of Result) int {
	n := 0
	for _, row := range r.Rows {
		if row.Result == of {
			n++
		}
	}
	return n
}

// Find returns the row of that name.
func (r *Results) Find(name string) (Row, bool) {
	if i := slices.IndexFunc(r.Rows, func(row Row) bool { return row.Name == name }); i >= 0 {
		return r.Rows[i], true
	}
	return Row{}, false
}

// OK reports whether the image passed: some cases did and none failed.
func (r *Results) OK() bool { return r.Count(Fail) == 0 && r.Count(Pass) > 0 }

// Summary is the results in one line.
func (r *Results) Summary() string {
	return fmt.Sprintf("%s with %s: %d passed, %d failed, %d skipped in %.1fs", r.Platform, r.Runner, r.Count(Pass), r.Count(Fail), r.Count(Skip), r.Took.Seconds())
}

// WriteJUnit writes results in the form of JUnit that CI systems read.
func WriteJUnit(w io.Writer, source string, results []*Results) error {
	type message struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
	type testcase struct {
		Name      string   `xml:"name,attr"`
		Classname string   `xml:"classname,attr"`
		Time      string   `xml:"time,attr"`
		Failure   *message `xml:"failure"`
		Skipped   *message `xml:"skipped"`
	}
	type testsuite struct {
		Name      string     `xml:"name,attr"`
		Tests     int        `xml:"tests,attr"`
		Failures  int        `xml:"failures,attr"`
		Skipped   int        `xml:"skipped,attr"`
		Time      string     `xml:"time,attr"`
		Timestamp string     `xml:"timestamp,attr"`
		Cases     []testcase `xml:"testcase"`
	}
	all := struct {
		XMLName xml.Name    `xml:"testsuites"`
		Name    string      `xml:"name,attr"`
		Suites  []testsuite `xml:"testsuite"`
	}{Name: source}
	for _, r := range results {
		s := testsuite{
			Name: r.Platform + " with " + r.Runner, Tests: len(r.Rows), Failures: r.Count(Fail), Skipped: r.Count(Skip),
			Time: seconds(r.Took), Timestamp: r.Time.UTC().Format("2006-01-02T15:04:05"),
		}
		for _, row := range r.Rows {
			c := testcase{Name: row.Name, Classname: s.Name, Time: seconds(row.Took)}
			switch row.Result {
			case Fail:
				c.Failure = &message{printable(row.Reason), printable(row.Log)}
			case Skip:
				c.Skipped = &message{Message: printable(row.Reason)}
			}
			s.Cases = append(s.Cases, c)
		}
		all.Suites = append(all.Suites, s)
	}
	b, err := xml.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s%s\n", xml.Header, b)
	return err
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }

// printable drops what XML has no way to say.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' {
			return -1
		}
		return r
	}, s)
}
