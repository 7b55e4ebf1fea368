package suite

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/xavieralpha/derper/internal/probe"
)

// Row is what came out of a case, or of a part of one, with the log of the containers if the case failed.
type Row = probe.Check

// NameWidth is room for the name of any row.
const NameWidth = 36

// Rows are those of the cases in the order in which they ran.
type Rows = probe.Checks

// Results are what came out for one platform of a variant. Text, JSON and JUnit follow from
// it.
type Results struct {
	Platform string        `json:"platform"`
	Digest   string        `json:"digest"`  // of the image's manifest
	Variant  string        `json:"variant"` // as the image says, such as default
	Runner   string        `json:"runner"`
	Time     time.Time     `json:"time"` // when the first case began
	Took     time.Duration `json:"-"`
	Rows     `json:"cases"`
}

// name is of what they are: linux/amd64 nonroot with native.
func (r *Results) name() string { return nameOf(r.Platform, r.Variant) + " with " + r.Runner }

func nameOf(platform, variant string) string { return strings.TrimSpace(platform + " " + variant) }

// Summary is the results in one line.
func (r *Results) Summary() string {
	return fmt.Sprintf("%s: %d passed, %d failed, %d skipped in %.1fs", r.name(),
		r.Count(probe.Pass), r.Count(probe.Fail), r.Count(probe.Skip), r.Took.Seconds())
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
			Name: r.name(), Tests: len(r.Rows), Failures: r.Count(probe.Fail), Skipped: r.Count(probe.Skip),
			Time: seconds(r.Took), Timestamp: r.Time.UTC().Format("2006-01-02T15:04:05"),
		}
		for _, row := range r.Rows {
			c := testcase{Name: row.Name, Classname: s.Name, Time: seconds(row.Took)}
			switch row.Result {
			case probe.Fail:
				c.Failure = &message{row.Reason, row.Log}
			case probe.Skip:
				c.Skipped = &message{Message: row.Reason}
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
