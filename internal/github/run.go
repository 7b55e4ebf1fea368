package github

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// A Failure is a job of a workflow run that failed.
type Failure struct {
	// Job is its name, Step that of the step it failed in, which may be empty.
	Job, Step string
	// Log is the end of its log, empty if there is none to be had.
	Log string
}

// logLines is how much of a job's log a Failure has.
const logLines = 60

// Failures are the failed jobs of a workflow run that has not ended yet.
func (c *Client) Failures(ctx context.Context, run string) ([]Failure, error) {
	return do(ctx, c, func() ([]Failure, error) {
		type outcome struct{ Name, Conclusion string }
		var page struct {
			Jobs []struct {
				outcome
				ID    int64
				Steps []outcome
			}
		}
		// A release has far fewer jobs than a page.
		if err := c.call(ctx, http.MethodGet, "/actions/runs/"+run+"/jobs?filter=latest&per_page=100", nil, &page); err != nil {
			return nil, err
		}
		failed := func(o outcome) bool {
			// A job that took too long is cancelled, as is what somebody stops.
			return o.Conclusion == "failure" || o.Conclusion == "timed_out" || o.Conclusion == "cancelled"
		}
		var list []Failure
		for _, job := range page.Jobs {
			if !failed(job.outcome) {
				continue
			}
			f := Failure{Job: job.Name}
			if i := slices.IndexFunc(job.Steps, failed); i >= 0 {
				f.Step = job.Steps[i].Name
			}
			var log []byte
			err := c.call(ctx, http.MethodGet, fmt.Sprintf("/actions/jobs/%d/logs", job.ID), nil, &log)
			if answer, ok := errors.AsType[*Error](err); err != nil && (!ok || answer.passes()) {
				return nil, err // but a report without the log is better than none
			}
			f.Log = tail(string(log))
			list = append(list, f)
		}
		return list, nil
	})
}

// noise is the time at the beginning of a line, and half of a line's end.
var noise = regexp.MustCompile(`(?m)^[^ :]*:[^ :]*:[^ :]*Z |\r`)

// tail is the end of a job's log, up to its error, without the times at which its lines
// were written.
func tail(log string) string {
	lines := strings.Split(strings.TrimRight(noise.ReplaceAllString(log, ""), "\n"), "\n")
	// What comes after the error is GitHub's own tidying up.
	for i, line := range slices.Backward(lines) {
		if strings.HasPrefix(line, "##[error]") {
			lines = lines[:i+1]
			break
		}
	}
	return strings.Join(lines[max(0, len(lines)-logLines):], "\n")
}
