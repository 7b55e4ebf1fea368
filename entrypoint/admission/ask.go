package admission

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// What derper does (verifyClient in derp/derpserver): one POST, by the rules of
// http.DefaultClient, and of the answer so many bytes.
const (
	patience  = 5 * time.Second
	maxAnswer = 4 << 10
)

// Probe is the node key that Ask asks about. It is the same each time, so that
// a controller that remembers keys has one of them, and reads "a question of
// derper, of no node" in hexadecimal. Nobody has the private key.
var Probe = "nodekey:" + hex.EncodeToString([]byte("a question of derper, of no node"))

// probeSource is an address that nobody has (RFC 5737), in case a controller
// bans addresses.
const probeSource = "192.0.2.1"

// A request is tailcfg.DERPAdmitClientRequest.
type request struct {
	NodePublic string // "nodekey:" and hexadecimal digits
	Source     string // IP address, may be empty
}

// An answer is tailcfg.DERPAdmitClientResponse.
type answer struct {
	Allow *bool
}

// A Problem is why an admission controller is of no use to derper.
type Problem struct {
	What string
	Hint string
	Open bool // derper lets clients in because of it, instead of nobody
}

// A Rule is what derper does with a client.
type Rule struct {
	FailOpen   bool // no answer counts as yes
	Tailscaled bool // a tailscaled must know the client, too
}

// lets says whom derper lets in while there is no answer.
func (r Rule) lets() string {
	switch {
	case r.FailOpen && r.Tailscaled:
		return "lets those in whom the tailscaled knows"
	case r.FailOpen:
		return "lets everybody in"
	}
	return "lets no client in"
}

func (p *Problem) Error() string { return p.What + "; " + p.Hint }

// Ask asks an admission controller once, as derper does for each client, and
// about [Probe]. It does not matter whether that is let in. An error is a
// [*Problem], which never has a password of the URL in it; rule says what derper
// does when there is no answer.
func Ask(ctx context.Context, controller string, rule Rule) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	deadline, _ := ctx.Deadline()
	waits := time.Until(deadline).Round(time.Second)
	body, err := json.Marshal(request{Probe, probeSource})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, controller, bytes.NewReader(body))
	if err != nil { // it may have the password in it
		return &Problem{What: "VERIFY_CLIENT_URL is no URL", Hint: "set it to one that begins with https:// or http://"}
	}
	shown := req.URL.Redacted()
	rejects := func(hint, format string, args ...any) error {
		return &Problem{
			What: shown + " " + fmt.Sprintf(format, args...) + ": derper lets no client in, whatever VERIFY_FAIL_OPEN is",
			Hint: hint,
		}
	}
	client := &http.Client{CheckRedirect: follow}
	res, err := client.Do(req)
	var redirect *redirectError
	switch {
	case errors.As(err, &redirect):
		return rejects("set VERIFY_CLIENT_URL to that", "redirects to %s in a way that turns a POST into a GET (use 307 or 308)", redirect.target)
	case errors.Is(err, context.DeadlineExceeded) && waits < patience:
		return &Problem{
			What: fmt.Sprintf("%s does not answer within %v; derper waits for %v, and %s then", shown, waits, patience, rule.lets()),
			Hint: "look at what makes it slow", Open: rule.FailOpen,
		}
	case err != nil && rule.FailOpen:
		return &Problem{
			What: fmt.Sprintf("%s cannot be reached: %v: derper %s", shown, plain(err), rule.lets()),
			Hint: "start it, or let nobody in meanwhile: VERIFY_FAIL_OPEN=false", Open: true,
		}
	case err != nil:
		return &Problem{
			What: fmt.Sprintf("%s cannot be reached: %v: derper %s", shown, plain(err), rule.lets()),
			Hint: "start it, or let everybody in meanwhile: VERIFY_FAIL_OPEN=true",
		}
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		hint := "it must answer a POST with status 200"
		switch {
		case res.StatusCode == http.StatusNotFound:
			hint = "check the path of the URL"
		case res.StatusCode == http.StatusUnauthorized, res.StatusCode == http.StatusForbidden:
			hint = "check the user and password of the URL"
		case res.StatusCode >= 500:
			hint = "look at the log of what is behind it"
		}
		return rejects(hint, "answers %s", res.Status)
	}
	var a answer
	err = json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(&a)
	switch {
	case err != nil:
		return rejects(`it must answer {"Allow": true} or {"Allow": false}`, "gives no answer that derper can read (%s): %v", contentType(res), err)
	case a.Allow == nil:
		return rejects(`it must answer {"Allow": true} or {"Allow": false}`, `answers without a member "Allow"`)
	}
	return nil
}

// A redirectError is a redirect after which nothing is asked any more.
type redirectError struct{ target string }

func (e *redirectError) Error() string { return "redirected to " + e.target }

// follow is the rule of http.DefaultClient, except that it stops when the POST
// is lost.
func follow(req *http.Request, via []*http.Request) error {
	if req.Method != http.MethodPost {
		return &redirectError{req.URL.Redacted()}
	}
	if len(via) >= 10 {
		return errors.New("stopped after 10 redirects")
	}
	return nil
}

// plain drops what net/http puts around an error: method and URL.
func plain(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("nothing within %v", patience)
	}
	return err
}

func contentType(res *http.Response) string {
	kind, _, _ := strings.Cut(res.Header.Get("Content-Type"), ";")
	if kind == "" {
		return "of no content type"
	}
	return kind
}
