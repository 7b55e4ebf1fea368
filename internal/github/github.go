// Package github makes the few calls of GitHub's REST API that a release needs:
// commit a file, open an issue, create a release, say what a workflow run failed of.
//
// It promises that every operation can be run again, after any failure and after
// success: it first reads what is there and does what is still missing. A fault that
// may pass (network, 429, 5xx) is tried again. It never writes over what somebody
// else changed, and no error has the token.
//
// API: https://docs.github.com/en/rest, version 2022-11-28.
package github

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/xavieralpha/derper/internal/limit"
	"github.com/xavieralpha/derper/internal/retry"
)

// API is the address of github.com's API.
const API = "https://api.github.com"

// A Client makes calls for one repository. Its fields are set before its first use.
type Client struct {
	// API is the address of the API, without a slash at its end.
	API string
	// Repository is owner/name.
	Repository string
	// Token is a token of GitHub's, as a workflow has it.
	Token string

	// pause waits between two tries; nil means as long as it takes.
	pause func(ctx context.Context, d time.Duration) error
}

// An Error is an answer of the API that is not what was asked for.
type Error struct {
	// Call is the request's method and path.
	Call string
	// Status is the HTTP status code.
	Status int
	// Message is GitHub's own, and may be empty.
	Message string
	// Wait is how long the server asks to wait, 0 if it says nothing.
	Wait time.Duration
}

func (e *Error) Error() string {
	s := fmt.Sprintf("github: %s: %d %s", e.Call, e.Status, http.StatusText(e.Status))
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// passes says whether another try may succeed. GitHub answers 403 or 429 to too many
// requests, and says so in a header.
// Source: https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api.
func (e *Error) passes() bool {
	return e.Status == http.StatusTooManyRequests || e.Status >= 500 || e.Status == http.StatusForbidden && e.Wait > 0
}

// passing is an error after which the whole operation is tried again.
type passing struct{ error }

func (p passing) Unwrap() error { return p.error }

const (
	tries   = 5                // how often an operation is tried before its error counts
	maxWait = 2 * time.Minute  // the longest pause that a server gets
	timeout = 60 * time.Second // for one request, with its answer

	maxAnswer = 64 << 20 // bytes; the log of a job may have some megabytes
)

// do carries out an operation that finds out by itself what was done before. It is
// repeated as a whole: a request whose answer was lost may have been carried out.
func do[T any](ctx context.Context, c *Client, operation func() (T, error)) (result T, err error) {
	policy := retry.Policy{Attempts: tries, Backoff: time.Second, Sleep: c.pause, Asked: func(err error) time.Duration {
		if answer, ok := errors.AsType[*Error](err); ok {
			return min(answer.Wait, maxWait)
		}
		return 0
	}}
	err = policy.Do(ctx, func(last bool) (again bool, err error) {
		result, err = operation()
		answer, ok := errors.AsType[*Error](err)
		switch passes := ok && answer.passes() || errors.As(err, new(passing)); {
		case err != nil && ctx.Err() != nil:
			return false, ctx.Err()
		case passes && last:
			return false, fmt.Errorf("%w (tried %d times)", err, tries)
		default:
			return passes, err
		}
	})
	return result, err
}

// call makes one request below the repository's address and decodes its answer into
// result, unless that is nil. A *[]byte gets the answer as it is.
func (c *Client) call(ctx context.Context, method, path string, body, result any) error {
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return fmt.Errorf("github: %s %s: %w", method, path, err)
		}
	}
	return c.send(ctx, method, c.API+"/repos/"+c.Repository, path, "application/json", data, result)
}

// send makes one request for a path below a base, with a body of that content type unless it is nil.
func (c *Client) send(ctx context.Context, method, base, path, kind string, body []byte, result any) error {
	what, _, _ := strings.Cut(method+" "+path, "?")
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, base+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("github: %s: not an address: %q", what, base)
	}
	req.Header.Set("Accept", "application/vnd.github+json")
	req.Header.Set("X-GitHub-Api-Version", "2022-11-28")
	req.Header.Set("User-Agent", "derper-build")
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	if body != nil {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		if uerr, ok := errors.AsType[*url.Error](err); ok {
			err = uerr.Err
		}
		return passing{fmt.Errorf("github: %s: %w", what, err)}
	}
	defer resp.Body.Close()
	data, err := limit.ReadAll(resp.Body, maxAnswer)
	if errors.Is(err, limit.Err) {
		return fmt.Errorf("github: %s: answer: %w", what, err)
	}
	if err != nil {
		return passing{fmt.Errorf("github: %s: answer broke off: %w", what, err)}
	}
	if resp.StatusCode >= 300 {
		return c.refused(what, resp, data)
	}
	switch raw, ok := result.(*[]byte); {
	case ok:
		*raw = data
	case result != nil:
		if err := json.Unmarshal(data, result); err != nil {
			return fmt.Errorf("github: %s: answer: %w", what, err)
		}
	}
	return nil
}

// refused makes an error of an answer.
func (c *Client) refused(what string, resp *http.Response, body []byte) error {
	e := &Error{Call: what, Status: resp.StatusCode}
	var said struct {
		Message string
		Errors  []struct{ Code, Message string }
	}
	if json.Unmarshal(body, &said) == nil {
		e.Message = said.Message
		for _, detail := range said.Errors {
			e.Message += strings.TrimRight("; "+detail.Code+" "+detail.Message, " ")
		}
	}
	if c.Token != "" {
		e.Message = strings.ReplaceAll(e.Message, c.Token, "***")
	}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s >= 0 {
		e.Wait = max(time.Duration(s)*time.Second, time.Second)
	} else if resp.Header.Get("X-RateLimit-Remaining") == "0" {
		e.Wait = maxWait
	}
	return e
}

// is says whether err is an answer with that status.
func is(err error, status int) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Status == status
}
