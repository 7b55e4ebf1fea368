package registry

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xavieralpha/derper/internal/redact"
	"github.com/xavieralpha/derper/internal/stall"
)

// answer is an answer with some headers, name and value in turn.
func answer(status int, headers ...string) *http.Response {
	h := http.Header{}
	for i := 0; i < len(headers); i += 2 {
		h.Set(headers[i], headers[i+1])
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(""))}
}

// script gives one answer after the other and remembers when it was asked, and for
// what; an error where the answer is nil.
type script struct {
	answers []*http.Response
	times   []time.Time
	bodies  []string
}

func (s *script) RoundTrip(req *http.Request) (*http.Response, error) {
	s.times = append(s.times, time.Now())
	if req.Body != nil {
		data, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		s.bodies = append(s.bodies, string(data))
	}
	a := s.answers[0]
	if len(s.answers) > 1 {
		s.answers = s.answers[1:]
	}
	if a == nil {
		return nil, syscall.ECONNRESET
	}
	return a, nil
}

func request(t testing.TB, method, url string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// TestRetry guards what is tried again, and with which body.
func TestRetry(t *testing.T) {
	const manifest, blob = "https://r.example/v2/a/manifests/x", "https://r.example/v2/a/blobs/uploads/x"
	for _, test := range []struct {
		name, method, url string
		answers           []*http.Response
		status, tries     int // status 0 for an error
	}{
		{"it works", "GET", manifest, []*http.Response{answer(200)}, 200, 1},
		{"502, then reset, then it works", "GET", manifest, []*http.Response{answer(502), nil, answer(200)}, 200, 3},
		{"a manifest is put again", "PUT", manifest, []*http.Response{answer(500), answer(201)}, 201, 2},
		{"408", "HEAD", manifest, []*http.Response{answer(408), answer(200)}, 200, 2},
		{"429", "POST", blob, []*http.Response{answer(429), answer(202)}, 202, 2},
		{"part of a blob is not sent again", "PATCH", blob, []*http.Response{answer(500), answer(202)}, 500, 1},
		{"an upload is not ended again", "PUT", blob, []*http.Response{nil, answer(201)}, 0, 1},
		{"404 is an answer", "GET", manifest, []*http.Response{answer(404), answer(200)}, 404, 1},
		{"401 is an answer", "GET", manifest, []*http.Response{answer(401), answer(200)}, 401, 1},
		{"501 stays", "GET", manifest, []*http.Response{answer(501), answer(200)}, 501, 1},
		{"patience ends", "GET", manifest, []*http.Response{answer(503)}, 503, 6},
		{"patience ends with an error", "GET", manifest, []*http.Response{nil}, 0, 6},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{answers: test.answers}
				resp, err := (&retrying{inner: s, patience: DefaultPatience}).RoundTrip(request(t, test.method, test.url, strings.NewReader("body")))
				status := 0
				if err == nil {
					status = resp.StatusCode
				}
				if status != test.status || len(s.times) != test.tries {
					t.Errorf("status %d after %d tries, want %d after %d (%v)", status, len(s.times), test.status, test.tries, err)
				}
				for _, body := range s.bodies {
					if body != "body" {
						t.Errorf("a try had body %q", body)
					}
				}
				// Each wait is twice the one before, give or take a half.
				for i := 1; i < len(s.times); i++ {
					d, full := s.times[i].Sub(s.times[i-1]), DefaultPatience.Backoff<<(i-1)
					if d < full/2 || d > full*3/2 {
						t.Errorf("wait %d took %s, want %s give or take a half", i, d, full)
					}
				}
			})
		})
	}
}

// TestRetryAfter guards that a registry which asks for time gets it, from every
// request, and that nobody waits for an hour.
func TestRetryAfter(t *testing.T) {
	for name, value := range map[string]func() string{
		"seconds": func() string { return "20" },
		"date":    func() string { return time.Now().Add(20 * time.Second).UTC().Format(http.TimeFormat) },
	} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			s := &script{answers: []*http.Response{answer(429, "Retry-After", value()), answer(200)}}
			resp, err := (&retrying{inner: s, patience: DefaultPatience}).RoundTrip(request(t, "GET", "https://r.example/v2/", nil))
			if err != nil || resp.StatusCode != 200 {
				t.Fatal(resp, err)
			}
			// A date has no fractions of a second.
			if got := time.Since(began); got < 19*time.Second || got > 21*time.Second {
				t.Errorf("Retry-After in %s: waited %s, want 20s", name, got)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		// An upload that was told to wait is not sent again here, but whatever comes
		// next waits.
		s := &script{answers: []*http.Response{answer(503, "Retry-After", "30"), answer(200)}}
		rt := &retrying{inner: s, patience: DefaultPatience}
		if resp, err := rt.RoundTrip(request(t, "PATCH", "https://r.example/v2/a/blobs/uploads/x", nil)); err != nil || resp.StatusCode != 503 {
			t.Fatal(resp, err)
		}
		began := time.Now()
		if _, err := rt.RoundTrip(request(t, "HEAD", "https://r.example/v2/a/blobs/sha256:0", nil)); err != nil {
			t.Fatal(err)
		}
		if got := time.Since(began); got != 30*time.Second {
			t.Errorf("the next request waited %s, want 30s", got)
		}
		// Another registry is not meant.
		began = time.Now()
		if _, err := rt.RoundTrip(request(t, "HEAD", "https://other.example/v2/", nil)); err != nil || time.Since(began) != 0 {
			t.Errorf("another registry waited %s: %v", time.Since(began), err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		s := &script{answers: []*http.Response{answer(429, "Retry-After", "3600")}}
		_, err := (&retrying{inner: s, patience: DefaultPatience}).RoundTrip(request(t, "GET", "https://r.example/v2/", nil))
		if !errors.Is(err, errTooLong) || !strings.Contains(err.Error(), "r.example: too many requests: it asks to wait 1h0m0s") || time.Since(began) > 0 {
			t.Errorf("an hour: %v after %s", err, time.Since(began))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		began := time.Now()
		s := &script{answers: []*http.Response{answer(429, "Retry-After", "100")}}
		_, err := (&retrying{inner: s, patience: DefaultPatience}).RoundTrip(request(t, "GET", "https://r.example/v2/", nil).WithContext(ctx))
		if !errors.Is(err, context.Canceled) || time.Since(began) != time.Second {
			t.Errorf("cancelled after 1s: %v after %s", err, time.Since(began))
		}
	})
}

// slow is a body that gives a byte from time to time.
type slow struct {
	left  int
	every time.Duration
}

func (s *slow) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	time.Sleep(s.every)
	s.left--
	p[0] = 'x'
	return 1, nil
}

func (s *slow) Close() error { return nil }

// TestStall guards that a connection which moves nothing is given up, and a slow one
// is not, however long it takes.
func TestStall(t *testing.T) {
	const after = 10 * time.Second
	synctest.Test(t, func(t *testing.T) {
		hang := roundTripper(func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		})
		began := time.Now()
		_, err := (&stall.Transport{Inner: hang, After: after}).RoundTrip(request(t, "GET", "https://r.example/v2/", nil))
		if !errors.Is(err, stall.Err) || !strings.Contains(err.Error(), "r.example: stalled: nothing moved for 10s") || time.Since(began) != after {
			t.Errorf("no answer: %v after %s", err, time.Since(began))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		both := roundTripper(func(req *http.Request) (*http.Response, error) {
			if n, err := io.Copy(io.Discard, req.Body); n != 50 || err != nil {
				t.Errorf("slow upload: %d bytes, %v", n, err)
			}
			a := answer(200)
			a.Body = &slow{50, 9 * time.Second}
			return a, nil
		})
		resp, err := (&stall.Transport{Inner: both, After: after}).RoundTrip(request(t, "PATCH", "https://r.example/v2/", &slow{50, 9 * time.Second}))
		if err != nil {
			t.Fatal(err)
		}
		if data, err := io.ReadAll(resp.Body); err != nil || len(data) != 50 {
			t.Errorf("slow answer: %d bytes, %v", len(data), err)
		}
		resp.Body.Close()
	})
	// An answer that stops half way, which takes the real transport.
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer there.Close()
		go func() {
			if _, err := http.ReadRequest(bufio.NewReader(there)); err != nil {
				t.Error(err)
			}
			io.WriteString(there, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
		}()
		inner := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return here, nil }}
		resp, err := (&stall.Transport{Inner: inner, After: after}).RoundTrip(request(t, "GET", "http://r.example/v2/", nil))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		began := time.Now()
		if data, err := io.ReadAll(resp.Body); !errors.Is(err, stall.Err) || string(data) != "half" || time.Since(began) != after {
			t.Errorf("answer that stops: %q, %v after %s", data, err, time.Since(began))
		}
	})
}

// TestSecretsAreHeard guards against a token in an error that was got out of our sight.
func TestSecretsAreHeard(t *testing.T) {
	var s redact.Secrets
	rt := &encrypted{inner: &script{answers: []*http.Response{answer(200)}}, secrets: &s}
	req := request(t, "GET", "https://r.example/v2/", nil)
	req.Header.Set("Authorization", "Bearer tok/en+1")
	if _, err := rt.RoundTrip(req); err != nil {
		t.Fatal(err)
	}
	if err := s.Error(errors.New("a tok/en+1 b")); err.Error() != "a [secret] b" {
		t.Error(err)
	}
}

// TestReferring guards the answers that mean that a registry has no referrers API:
// ghcr.io sends to a web page, others answer with one.
func TestReferring(t *testing.T) {
	const index = "application/vnd.oci.image.index.v1+json"
	path := "https://r.example/v2/a/b/referrers/sha256:" + strings.Repeat("0", 64)
	for _, test := range []struct {
		url    string
		answer *http.Response
		want   int
	}{
		{path, answer(200, "Content-Type", index), 200},
		{path, answer(200, "Content-Type", index+"; charset=utf-8"), 200},
		{path, answer(200, "Content-Type", "text/html"), 404},
		{path, answer(303, "Location", "https://elsewhere.example"), 404},
		{path, answer(404), 404},
		{path, answer(405), 404},
		{path, answer(401), 401},
		{path, answer(500), 500},
		{"https://r.example/v2/a/referrers/manifests/latest", answer(303), 303},
	} {
		resp, err := (&judging{&script{answers: []*http.Response{test.answer}}}).RoundTrip(request(t, "GET", test.url, nil))
		if err != nil || resp.StatusCode != test.want {
			t.Errorf("%d %v: got %v, want %d", test.answer.StatusCode, test.answer.Header, resp.StatusCode, test.want)
		}
	}
}
