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
	moved := func(n int, err error) error {
		if n > 0 {
			timer.Reset(t.After)
		}
		// What the connection's failure is called is an accident; why is not.
		if err != nil && err != io.EOF && context.Cause(ctx) == stalled {
			return stalled
		}
		return err
	}
	watched := req.WithContext(ctx)
	if req.Body != nil {
		watched.Body = &watch{req.Body, moved, func() {}}
	}
	resp, err := t.Inner.RoundTrip(watched)
	if err != nil {
		err = moved(0, err)
		end()
		return nil, err
	}
	timer.Reset(t.After)
	resp.Body = &watch{resp.Body, moved, end}
	return resp, nil
}

// watch tells what becomes of each read.
type watch struct {
	io.ReadCloser
	moved func(n int, err error) error
	end   func()
}

func (w *watch) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	return n, w.moved(n, err)
}

func (w *watch) Close() error {
	w.end()
	return w.ReadCloser.Close()
}
