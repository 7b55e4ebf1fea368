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

// Rate is the fewest bytes a second that are worth waiting for: 128 kbit/s. A layer of
// 20 MB takes 20 minutes then.
const Rate = 16 << 10

// A Transport gives a request up when it moves no byte for some time: none of its
// body, none of the answer. A large transfer over a slow line takes as long as it
// takes, but an answer of which a byte comes now and then does not take for ever.
type Transport struct {
	Inner http.RoundTripper
	After time.Duration
	// Rate is how many bytes of an answer must come in a second, on average and after
	// the time After; 0 for none. Only the time in which they are waited for counts. So
	// an answer of n bytes takes no longer than After and n/Rate seconds.
	Rate int64
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
		watched.Body = &watch{ReadCloser: req.Body, moved: moved, end: func() {}}
	}
	resp, err := t.Inner.RoundTrip(watched)
	if err != nil {
		err = moved(0, err)
		end()
		return nil, err
	}
	timer.Reset(t.After)
	body := &watch{ReadCloser: resp.Body, moved: moved, end: end}
	if t.Rate > 0 {
		body.slow = func(n int64, waited time.Duration) error {
			if waited <= t.After || float64(n) >= (waited-t.After).Seconds()*float64(t.Rate) {
				return nil
			}
			return fmt.Errorf("%s: %w: %d bytes in %s, fewer than %d a second", req.URL.Host, Err, n, waited.Round(time.Second), t.Rate)
		}
	}
	resp.Body = body
	return resp, nil
}

// watch tells what becomes of each read.
type watch struct {
	io.ReadCloser
	moved func(n int, err error) error
	end   func()

	slow   func(n int64, waited time.Duration) error // nil for never
	n      int64
	waited time.Duration
}

func (w *watch) Read(p []byte) (int, error) {
	began := time.Now()
	n, err := w.ReadCloser.Read(p)
	w.n, w.waited = w.n+int64(n), w.waited+time.Since(began)
	if err = w.moved(n, err); err == nil && w.slow != nil {
		err = w.slow(w.n, w.waited)
	}
	return n, err
}

func (w *watch) Close() error {
	w.end()
	return w.ReadCloser.Close()
}
