// Package stall gives up requests to servers that have gone silent.
package stall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Err says that a connection moved nothing for too long.
var Err = errors.New("stalled")

// A Transport gives a request up when it moves no byte for some time: none of its
// body, none of the answer. A large transfer over a slow line takes as long as it
// takes.
type Transport struct {
	Inner http.RoundTripper
	After time.Duration
}

// RoundTrip is that of [http.RoundTripper].
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	stalled := fmt.Errorf("%s: %w: nothing moved for %s", req.URL.Host, Err, t.After)
	timer := time.AfterFunc(t.After, func() { cancel(stalled) })
	end := func() {
		timer.Stop()
		cancel(nil)
	}
	// What the connection's failure is called is an accident; why is not.
	why := func(err error) error {
		if err != nil && err != io.EOF && context.Cause(ctx) == stalled {
			return stalled
		}
		return err
	}
	watched := req.WithContext(ctx)
	if req.Body != nil {
		watched.Body = &watch{body: req.Body, moved: func() { timer.Reset(t.After) }, why: why, end: func() {}}
	}
	resp, err := t.Inner.RoundTrip(watched)
	if err != nil {
		err = why(err)
		end()
		return nil, err
	}
	timer.Reset(t.After)
	resp.Body = &watch{body: resp.Body, moved: func() { timer.Reset(t.After) }, why: why, end: end}
	return resp, nil
}

// watch tells when something is read.
type watch struct {
	body  io.ReadCloser
	moved func()
	why   func(error) error
	end   func()
}

func (w *watch) Read(p []byte) (int, error) {
	n, err := w.body.Read(p)
	if n > 0 {
		w.moved()
	}
	return n, w.why(err)
}

func (w *watch) Close() error {
	w.end()
	return w.body.Close()
}
