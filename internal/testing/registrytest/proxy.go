package registrytest

import (
	"bytes"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// A Fault is what happens to a request on its way.
type Fault string

const (
	Reset        Fault = "connection reset"     // before the registry has the request
	Lost         Fault = "answer lost"          // the registry has carried it out
	Status500    Fault = "500"                  // with the request's credentials in the answer
	Status502    Fault = "502"                  // from a proxy, as a web page
	TooMany      Fault = "429 with Retry-After" // of no seconds
	Unauthorized Fault = "401, token expired"   //
	Truncated    Fault = "truncated"            // half of the body goes through, or of the answer
	Corrupt      Fault = "wrong digest"         // a byte of the body is another, or of the answer
	Hang         Fault = "hang"                 // no answer until the client gives up
)

// Faults are all of them.
var Faults = []Fault{Reset, Lost, Status500, Status502, TooMany, Unauthorized, Truncated, Corrupt, Hang}

// A Proxy stands before a registry and injects faults.
type Proxy struct {
	// Registry is the one behind it, under the proxy's address.
	*Registry

	mu     sync.Mutex
	at     int // which request from now on, from 1; 0 for none
	fault  Fault
	always bool
	match  func(Request) bool
	hook   func(Request)
	count  int
	hit    *Request
	end    chan struct{}

	behind    http.Handler // the registry
	tagging   sync.Mutex
	immutable immutable
}

// NewProxy serves until the test ends.
func NewProxy(t testing.TB, r *Registry) *Proxy {
	t.Helper()
	p := &Proxy{end: make(chan struct{})}
	p.behind = &httputil.ReverseProxy{
		Transport: r.Transport,
		Rewrite: func(q *httputil.ProxyRequest) {
			q.SetURL(r.URL())
			q.Out.Host = q.In.Host // for the addresses that the registry makes
			q.Out.Header.Set("X-Forwarded-Proto", "http")
		},
		ErrorLog:     log.New(io.Discard, "", 0),
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		fault, end := p.next(req)
		if fault == "" {
			p.forward(w, req)
			return
		}
		p.inject(fault, w, req, end)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Start()
	t.Cleanup(func() {
		p.Arm(0, "", false)
		s.CloseClientConnections()
		s.Close()
	})
	o := r.options
	o.TLS = false
	p.Registry = &Registry{Host: strings.TrimPrefix(s.URL, "http://"), Transport: http.DefaultTransport, options: o}
	return p
}

// Arm makes the n-th request from now on meet a fault, and with always all after
// it; n below 1 none.
func (p *Proxy) Arm(n int, f Fault, always bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at, p.fault, p.always, p.match, p.count, p.hit = n, f, always, nil, 0, nil
	close(p.end)
	p.end = make(chan struct{})
}

// Refuse makes all requests that match meet a fault, until the next Arm.
func (p *Proxy) Refuse(f Fault, match func(Request) bool) {
	p.Arm(0, f, false)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.match = match
}

// Hook calls f with every request that comes, before it goes on; its Status is 0.
func (p *Proxy) Hook(f func(Request)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hook = f
}

// Count is how many requests have come since Arm.
func (p *Proxy) Count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count
}

// Hit is the first request that met the fault, nil for none yet.
func (p *Proxy) Hit() *Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hit
}

func (p *Proxy) next(req *http.Request) (Fault, chan struct{}) {
	p.mu.Lock()
	p.count++
	q := Request{Method: req.Method, Path: req.URL.RequestURI()}
	hook, fault, end := p.hook, Fault(""), p.end
	if p.at > 0 && (p.count == p.at || p.always && p.count > p.at) || p.match != nil && p.match(q) {
		fault = p.fault
		if p.hit == nil {
			p.hit = &q
		}
	}
	p.mu.Unlock()
	if hook != nil {
		hook(q)
	}
	return fault, end
}

func (p *Proxy) inject(f Fault, w http.ResponseWriter, req *http.Request, end chan struct{}) {
	switch f {
	case Reset:
		reset(w)
	case Lost:
		p.forward(httptest.NewRecorder(), req)
		reset(w)
	case Status500:
		http.Error(w, "internal error while serving "+req.Header.Get("Authorization"), http.StatusInternalServerError)
	case Status502:
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusBadGateway)
		io.WriteString(w, "<html>\n<body>"+strings.Repeat("bad gateway\n", 1000)+"</body>\n</html>\n")
	case TooMany:
		w.Header().Set("Retry-After", "0")
		http.Error(w, `{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}`, http.StatusTooManyRequests)
	case Unauthorized:
		w.Header().Set("WWW-Authenticate", p.Registry.challenge(req))
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"who is `+req.Header.Get("Authorization")+`"}]}`, http.StatusUnauthorized)
	case Hang:
		select {
		case <-req.Context().Done():
		case <-end:
		}
		panic(http.ErrAbortHandler)
	case Truncated:
		if req.ContentLength > 0 {
			req.Body = io.NopCloser(io.MultiReader(io.LimitReader(req.Body, req.ContentLength/2), failing{}))
			p.forward(w, req)
			return
		}
		answer := httptest.NewRecorder()
		p.forward(answer, req)
		body := answer.Body.Bytes()
		send(w, answer, body[:len(body)/2], req.Method != http.MethodHead)
	case Corrupt:
		if req.ContentLength > 0 {
			data, err := io.ReadAll(req.Body)
			if err != nil {
				panic(http.ErrAbortHandler)
			}
			data[len(data)/2] ^= 1
			req.Body = io.NopCloser(bytes.NewReader(data))
			p.forward(w, req)
			return
		}
		answer := httptest.NewRecorder()
		p.forward(answer, req)
		body := answer.Body.Bytes()
		if len(body) > 0 {
			body[len(body)/2] ^= 1
		}
		if answer.Header().Get("Docker-Content-Digest") != "" {
			answer.Header().Set("Docker-Content-Digest", "sha256:"+strings.Repeat("0", 64))
		}
		send(w, answer, body, false)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("cut off") }

// send sends an answer, of which there may be less than its header says.
func send(w http.ResponseWriter, answer *httptest.ResponseRecorder, body []byte, cut bool) {
	for name, values := range answer.Header() {
		w.Header()[name] = values
	}
	if cut && answer.Header().Get("Content-Length") == "" {
		w.Header().Set("Content-Length", strconv.Itoa(2*len(body)+1))
	}
	w.WriteHeader(answer.Code)
	w.Write(body)
	if cut {
		panic(http.ErrAbortHandler)
	}
}

// reset ends a connection with a TCP reset.
func reset(w http.ResponseWriter) {
	c, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	c.Close()
}
