package stall_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xavieralpha/derper/internal/stall"
)

// after is how long a server may be silent here.
const after = 10 * time.Second

// A server is a transport to one.
type server func(req *http.Request) (*http.Response, error)

func (s server) RoundTrip(req *http.Request) (*http.Response, error) { return s(req) }

// get asks a server.
func get(ctx context.Context, t *testing.T, s server, body io.Reader) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, "POST", "https://proxy.example.com/a", body)
	if err != nil {
		t.Fatal(err)
	}
	return (&stall.Transport{Inner: s, After: after}).RoundTrip(req)
}

// moving gives so many bytes, one every so often, and ends or waits for the request's end.
type moving struct {
	ctx   context.Context
	bytes int
	every time.Duration
	hang  bool
}

func (m *moving) Read(p []byte) (int, error) {
	if m.bytes == 0 && !m.hang {
		return 0, io.EOF
	}
	wait := time.After(m.every)
	if m.bytes == 0 {
		wait = nil
	}
	select {
	case <-m.ctx.Done():
		return 0, errors.New("use of a closed connection") // whatever it is called
	case <-wait:
		m.bytes--
		p[0] = 'x'
		return 1, nil
	}
}

// answers is a server that reads what it is sent and answers with a body.
func answers(of func(ctx context.Context) io.Reader) server {
	return func(req *http.Request) (*http.Response, error) {
		if req.Body != nil {
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return nil, err
			}
		}
		return &http.Response{StatusCode: 200, Body: io.NopCloser(of(req.Context()))}, nil
	}
}

// TestSlow guards against a transfer that is given up although it goes on: only silence
// counts, not how long all of it takes.
func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		resp, err := get(t.Context(), t, answers(func(ctx context.Context) io.Reader {
			return &moving{ctx: ctx, bytes: 100, every: after - time.Second}
		}), &moving{ctx: t.Context(), bytes: 100, every: after - time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if data, err := io.ReadAll(resp.Body); err != nil || len(data) != 100 {
			t.Errorf("%d bytes, %v", len(data), err)
		}
		if took := time.Since(began); took != 200*(after-time.Second) {
			t.Errorf("it took %v", took)
		}
	})
}

// TestSilent guards against a build that waits for ever for a server that has gone silent,
// wherever it does, and against an error that blames somebody else.
func TestSilent(t *testing.T) {
	for _, test := range []struct {
		name  string
		serve server
		body  *moving
		moved time.Duration // until it goes silent
	}{
		{name: "no answer", serve: func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, errors.New("http: request canceled")
		}},
		{name: "takes a part of what it is sent", body: &moving{bytes: 3, every: time.Second, hang: true}, serve: answers(nil), moved: 3 * time.Second},
		{name: "a part of the answer", serve: answers(func(ctx context.Context) io.Reader {
			return &moving{ctx: ctx, bytes: 5, every: time.Second, hang: true}
		}), moved: 5 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				began := time.Now()
				var body io.Reader
				ended, end := context.WithCancel(t.Context())
				defer end()
				if test.body != nil {
					test.body.ctx = ended
					body = test.body
				}
				resp, err := get(ctx, t, func(req *http.Request) (*http.Response, error) {
					context.AfterFunc(req.Context(), end) // a transport closes what it sends then
					return test.serve(req)
				}, body)
				if err == nil {
					_, err = io.ReadAll(resp.Body)
					resp.Body.Close()
				}
				if !errors.Is(err, stall.Err) || err.Error() != "proxy.example.com: stalled: nothing moved for 10s" {
					t.Errorf("%v", err)
				}
				if took := time.Since(began); took != test.moved+after {
					t.Errorf("given up after %v, want %v", took, test.moved+after)
				}
				cancel()
			})
		})
	}
}

// TestDrip guards against a server that gives a byte now and then, for ever, and against one
// that is blamed for what this side takes its time with.
func TestDrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		read := func(every, pause time.Duration) (int, time.Duration, error) {
			s := answers(func(ctx context.Context) io.Reader { return &moving{ctx: ctx, bytes: 100, every: every} })
			req, err := http.NewRequestWithContext(t.Context(), "GET", "https://proxy.example.com/a", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := (&stall.Transport{Inner: s, After: after, Rate: 2}).RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			began := time.Now()
			for n := 0; ; n++ {
				if _, err := resp.Body.Read(make([]byte, 1)); err != nil {
					return n, time.Since(began), err
				}
				time.Sleep(pause)
			}
		}
		// Of the 21 seconds the first ten are free.
		n, took, err := read(time.Second, 0)
		if !errors.Is(err, stall.Err) || err.Error() != "proxy.example.com: stalled: 21 bytes in 21s, fewer than 2 a second" {
			t.Errorf("%v after %v and %d bytes", err, took, n)
		}
		if n, took, err := read(time.Second/2, 0); n != 100 || err != io.EOF {
			t.Errorf("%v after %v and %d bytes", err, took, n)
		}
		if n, took, err := read(time.Second/2, time.Second); n != 100 || err != io.EOF {
			t.Errorf("somebody reads slowly: %v after %v and %d bytes", err, took, n)
		}
	})
}

// TestCancelled guards against a user's own interruption that is said to be the server's
// silence, and is tried again.
func TestCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(after/2, cancel)
		_, err := get(ctx, t, func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		}, nil)
		if err != context.Canceled {
			t.Errorf("%v", err)
		}
	})
}

// TestFailure guards against an error of the server's that is hidden.
func TestFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := errors.New("connection refused")
		if _, err := get(t.Context(), t, func(*http.Request) (*http.Response, error) { return nil, refused }, strings.NewReader("x")); err != refused {
			t.Errorf("%v", err)
		}
		resp, err := get(t.Context(), t, answers(func(context.Context) io.Reader {
			return io.MultiReader(strings.NewReader("ab"), &failing{refused})
		}), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if data, err := io.ReadAll(resp.Body); string(data) != "ab" || err != refused {
			t.Errorf("%q, %v", data, err)
		}
	})
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

// TestClosed guards against a request that is kept alive after its answer was closed.
func TestClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var inner context.Context
		resp, err := get(t.Context(), t, func(req *http.Request) (*http.Response, error) {
			inner = req.Context()
			return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(after - time.Second) // nobody reads, which is not the server's fault yet
		if inner.Err() != nil {
			t.Error("ended before it was closed")
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		if inner.Err() == nil {
			t.Error("goes on after it was closed")
		}
	})
}
