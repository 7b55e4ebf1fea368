package tailscaled

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// A Status is what a tailscaled says about itself.
type Status struct {
	Version      string
	BackendState string // of Tailscale's state machine
	AuthURL      string // where to log in, if that is what it waits for
	Health       string // what it complains about
	LoginError   string // why the last login failed; a part of Health
	Self         Node
	HasPeers     bool // the tailnet shows it another node
}

// A Node is what a tailscaled knows of its own node. It is empty before the
// first login.
type Node struct {
	Key       string    // "nodekey:" and hexadecimal digits
	KeyExpiry time.Time // zero if the key does not expire
	Expired   bool
	IPs       []string // in the tailnet
	DNSName   string   // without the dot at the end
	Tags      []string // "tag:derp"
}

// Ready reports whether it can verify clients. That takes the list of nodes,
// which it has when it is Starting. It is Running only once it has reached a
// relay: when this one is the only one of the tailnet, the two would wait for
// each other.
func (s Status) Ready() bool { return s.BackendState == "Running" || s.BackendState == "Starting" }

// NeedsURL reports whether it waits for a login and has no URL for it yet:
// [Login] makes it fetch one.
func (s Status) NeedsURL() bool {
	return s.BackendState == "NeedsLogin" && s.AuthURL == "" && s.LoginError == ""
}

// maxStatus bounds what is read of a status. Of the members before the peers,
// only those of the node's own are long: some KiB.
const maxStatus = 4 << 20

// Ask gets the status over the socket. An error is one of connecting, or says
// that the answer was none of tailscaled's.
//
// The answer has every peer in it, which is megabytes in a large tailnet. It is
// read up to the first.
func Ask(ctx context.Context, socket string) (Status, error) {
	body, err := request(ctx, socket, http.MethodGet, "/localapi/v0/status?peers=true")
	if err != nil {
		return Status{}, err
	}
	defer body.Close()
	s, err := decode(json.NewDecoder(io.LimitReader(body, maxStatus)))
	if err == nil && s.BackendState == "" {
		err = errors.New("it has no BackendState")
	}
	if err != nil && ctx.Err() != nil {
		return Status{}, ctx.Err() // the answer stopped in its middle
	}
	if err != nil {
		return Status{}, &answerError{Text: fmt.Sprintf("tailscaled's status: %v", err)}
	}
	return s, nil
}

func decode(d *json.Decoder) (s Status, err error) {
	t, err := d.Token()
	if err == nil && t != json.Delim('{') {
		err = errors.New("no JSON object")
	}
	if err != nil {
		return s, err
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return s, err
		}
		switch name {
		case "Version":
			err = d.Decode(&s.Version)
		case "BackendState":
			err = d.Decode(&s.BackendState)
		case "AuthURL":
			err = d.Decode(&s.AuthURL)
		case "Health":
			var complaints []string
			err = d.Decode(&complaints)
			s.Health = strings.Join(complaints, "; ")
			for _, c := range complaints {
				if _, text, ok := strings.Cut(c, "The last login error was: "); ok {
					s.LoginError = text
				}
			}
		case "Self":
			s.Self, err = decodeSelf(d)
		case "Peer":
			// tailscaled writes it after all of the above.
			var t json.Token
			t, err = d.Token()
			if t == json.Delim('{') && d.More() {
				s.HasPeers = true
				return s, nil
			}
			if t == json.Delim('{') {
				_, err = d.Token()
			}
		default:
			err = skip(d)
		}
		if err != nil {
			return s, fmt.Errorf("%v: %w", name, err)
		}
	}
	_, err = d.Token()
	return s, err
}

func decodeSelf(d *json.Decoder) (Node, error) {
	var self struct {
		PublicKey    string
		KeyExpiry    time.Time
		Expired      bool
		TailscaleIPs []string
		DNSName      string
		Tags         []string
	}
	err := d.Decode(&self)
	return Node{
		Key: self.PublicKey, KeyExpiry: self.KeyExpiry, Expired: self.Expired,
		IPs: self.TailscaleIPs, DNSName: strings.TrimSuffix(self.DNSName, "."), Tags: self.Tags,
	}, err
}

// skip reads a value, however long it is, and keeps nothing of it.
func skip(d *json.Decoder) error {
	for depth := 0; ; {
		t, err := d.Token()
		if err != nil {
			return err
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
	}
}

// Login makes tailscaled fetch the URL at which the user can log in.
func Login(ctx context.Context, socket string) error {
	body, err := request(ctx, socket, http.MethodPost, "/localapi/v0/login-interactive")
	if err == nil {
		body.Close()
	}
	return err
}

// whoIs asks for a node as derper does.
func whoIs(ctx context.Context, socket, key string) error {
	body, err := request(ctx, socket, http.MethodGet, "/localapi/v0/whois?addr="+url.QueryEscape(key))
	if err == nil {
		body.Close()
	}
	return err
}

// An answerError is an answer that is not the one that was asked for.
type answerError struct {
	Code int // of HTTP; 0 if that was right
	Text string
}

func (e *answerError) Error() string { return e.Text }

// request makes a connection for one question: the next may be for another
// tailscaled, which listens there after an upgrade.
func request(ctx context.Context, socket, method, path string) (io.ReadCloser, error) {
	// tailscaled answers to this name only.
	req, err := http.NewRequestWithContext(ctx, method, "http://local-tailscaled.sock"+path, nil)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 16 << 10,
	}
	// Not a Client: nothing here redirects.
	r, err := transport.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("ask tailscaled: %w", err)
	}
	if r.StatusCode/100 == 2 {
		return r.Body, nil
	}
	defer r.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(r.Body, 512))
	return nil, &answerError{r.StatusCode, fmt.Sprintf("tailscaled answered %d: %s", r.StatusCode, strings.TrimSpace(string(text)))}
}
