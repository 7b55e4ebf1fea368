// Package redact keeps secrets out of errors: a server may put what it was sent into its
// answer.
package redact

import (
	"encoding/base64"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// Secrets are passwords and tokens that have been used.
type Secrets struct {
	mu   sync.Mutex
	list []string // longest first
}

// Add adds secrets, in each form in which they are sent.
func (s *Secrets) Add(values ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range values {
		for _, form := range []string{v, url.QueryEscape(v), base64.StdEncoding.EncodeToString([]byte(v))} {
			if v != "" && !slices.Contains(s.list, form) {
				s.list = append(s.list, form)
			}
		}
	}
	slices.SortFunc(s.list, func(a, b string) int { return len(b) - len(a) })
}

// tokenAnswer is how go-containerregistry begins to quote an answer that may have a
// token of another kind in it.
const tokenAnswer = "no token in bearer response:"

// Longest is how much of an error is worth reading, in bytes: a proxy between may
// answer with a web page.
const Longest = 1000

// Error is err on one line, with its secrets blackened.
func (s *Secrets) Error(err error) error {
	if err == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	said := err.Error()
	clean := said
	for _, v := range s.list {
		clean = strings.ReplaceAll(clean, v, "[secret]")
	}
	if before, _, ok := strings.Cut(clean, tokenAnswer); ok {
		clean = before + "no token in the answer of the token server"
	}
	clean = strings.Join(strings.Fields(clean), " ")
	if len(clean) > Longest {
		clean = strings.ToValidUTF8(clean[:Longest], "") + "…"
	}
	if clean == said {
		return err
	}
	return &redacted{clean, err}
}

// redacted is an error that says less than the one that it wraps.
type redacted struct {
	said string
	err  error
}

func (e *redacted) Error() string { return e.said }
func (e *redacted) Unwrap() error { return e.err }
