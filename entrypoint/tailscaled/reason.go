package tailscaled

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// A Verifier is the tailscaled that derper asks about its clients.
type Verifier struct {
	Socket        string
	Own           bool   // it is the one in this image, not the host's
	HasAuthKey    bool   // that Own logs in with
	HasURL        bool   // VERIFY_CLIENT_URL is set, too
	PeerRelay     bool   // that Own is
	DerperVersion string // long; empty if unknown
}

// A Reason is something that is wrong, and what to do about it.
type Reason struct {
	What string
	Hint string // may be empty
}

// A Diagnosis is what Diagnose has found.
type Diagnosis struct {
	Status   Status   // empty if there was no answer
	Reason   *Reason  // why clients cannot be verified; nil if they can
	Alone    *Reason  // why none is let in although they can; nil if some may be
	Warnings []Reason // what is wrong although they can
}

// Patience is how long Diagnose waits for answers.
const Patience = 2 * time.Second

// expirySoon is how long before it happens an expiry is warned of.
const expirySoon = 30 * 24 * time.Hour

// Diagnose finds out whether clients can be verified, and why not. It changes
// nothing: where the status [Status.NeedsURL], the caller is to call [Login].
func Diagnose(ctx context.Context, v Verifier) Diagnosis {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	s, err := Ask(ctx, v.Socket)
	if err != nil {
		r := v.silent(err)
		return Diagnosis{Reason: &r}
	}
	d := Diagnosis{Status: s, Reason: v.state(s), Alone: v.alone(s), Warnings: v.warnings(s, time.Now())}
	if d.Reason == nil && v.isOther(s) && s.Self.Key != "" {
		if answer, ok := whoIs(ctx, v.Socket, s.Self.Key).(*answerError); ok && strings.Contains(answer.Text, "invalid 'addr' parameter") {
			d.Reason = &Reason{
				fmt.Sprintf("%s is %s, which is too old for derper %s: it cannot look up nodes by their key", v.name(), s.Version, v.DerperVersion),
				"bring both to one version" + v.orOwn(),
			}
		}
	}
	return d
}

func (v Verifier) name() string {
	if v.Own {
		return "tailscaled"
	}
	return "the host's tailscaled"
}

func (v Verifier) orOwn() string {
	if v.Own {
		return ""
	}
	return ", or set TS_AUTHKEY to use the tailscaled in this image"
}

func (v Verifier) isOther(s Status) bool {
	return v.DerperVersion != "" && s.Version != "" && !SameRevision(s.Version, v.DerperVersion)
}

// state is why a tailscaled that answers cannot verify.
func (v Verifier) state(s Status) *Reason {
	if s.Ready() {
		return nil
	}
	because := func(hint, format string, args ...any) *Reason {
		return &Reason{fmt.Sprintf("%s is in state %s: ", v.name(), s.BackendState) + fmt.Sprintf(format, args...), hint}
	}
	login := "run tailscale up on the host"
	switch {
	case !v.Own:
	case s.AuthURL != "":
		login = "log in at " + s.AuthURL
	case v.HasAuthKey:
		login = "set TS_AUTHKEY to a valid key"
	default:
		login = "the URL to log in at was asked for and comes in the log; or set TS_AUTHKEY_FILE"
	}
	switch {
	case s.Self.expired(time.Now()):
		if !v.Own {
			login = "run tailscale up --force-reauth on the host"
		} else if s.AuthURL == "" {
			login = "set TS_AUTHKEY to a valid key and restart the container"
		}
		return because(login+"; "+s.Self.keepFromExpiring(), "the key of its node expired%s", s.Self.expiryDate(" on "))
	case s.LoginError != "" && !refused(s.LoginError):
		if v.Own {
			return because("check TS_LOGIN_SERVER, and that the container can connect to it", "the control server does not let it log in: %s", s.LoginError)
		}
		return because("check the network of the host", "the control server does not let it log in: %s", s.LoginError)
	case s.LoginError != "" && v.Own && v.HasAuthKey:
		return because("set TS_AUTHKEY to a valid key: reusable, with a tag, made at https://login.tailscale.com/admin/settings/keys or by the control server of TS_LOGIN_SERVER", "TS_AUTHKEY is refused: %s", s.LoginError)
	case s.LoginError != "":
		return because(login, "the login is refused: %s", s.LoginError)
	case s.BackendState == "NeedsLogin":
		return because(login, "it waits for a login")
	case s.BackendState == "NeedsMachineAuth":
		return because("approve it on the control server (Machines in Tailscale's admin console), or use an auth key that is pre-approved", "the node %swaits for an admin", s.Self.named())
	case s.BackendState == "Stopped" && v.Own:
		return because("restart the container", "it was switched off")
	case s.BackendState == "Stopped":
		return because("run tailscale up on the host", "it is switched off")
	case v.Own:
		return because("wait a moment, then check TS_AUTHKEY and TS_LOGIN_SERVER", "%s", or(s.Health, "it has not heard from the control server yet"))
	}
	return because("look at tailscale status on the host", "%s", or(s.Health, "it has not heard from the control server yet"))
}

func or(text, otherwise string) string {
	if text != "" {
		return text
	}
	return otherwise
}

// refused reports whether the control server has answered to a login: no. All
// other errors are tailscaled's own (control/controlclient/direct.go), and an
// answer of the server comes without anything before it. Older servers of
// Headscale answer with a status of HTTP.
func refused(loginError string) bool {
	if strings.HasPrefix(loginError, "register request: http 4") {
		return true
	}
	for _, own := range []string{
		"register request: ", "getNoiseClient: ", "getMachinePrivKey: ", "fetch control key", "create control key", "weird: ",
		"rate limited", "node registration rate limited", "context ", "Get \"", "Post \"", "dial tcp", "HTTP error from control plane",
	} {
		if strings.HasPrefix(loginError, own) {
			return false
		}
	}
	return true
}

// warnings are what may keep clients out although the tailscaled is ready, or
// will.
func (v Verifier) warnings(s Status, now time.Time) []Reason {
	var w []Reason
	if v.isOther(s) {
		w = append(w, Reason{
			fmt.Sprintf("%s is %s, derper is %s: verification may fail", v.name(), s.Version, v.DerperVersion),
			"bring both to one version" + v.orOwn(),
		})
	}
	if !s.Ready() {
		return w
	}
	switch expiry := s.Self.KeyExpiry; {
	case s.Self.expired(now):
		w = append(w, Reason{fmt.Sprintf("the key of %s's node expired%s", v.name(), s.Self.expiryDate(" on ")), s.Self.keepFromExpiring()})
	case !expiry.IsZero() && expiry.Sub(now) < expirySoon:
		w = append(w, Reason{fmt.Sprintf("the key of %s's node expires%s; from then on no client is let in", v.name(), s.Self.expiryDate(" on ")), s.Self.keepFromExpiring()})
	}
	return w
}

// alone is why a tailscaled that runs knows no client.
func (v Verifier) alone(s Status) *Reason {
	if s.BackendState != "Running" || s.HasPeers {
		return nil
	}
	to := "tag:derp"
	switch {
	case len(s.Self.Tags) > 0:
		to = s.Self.Tags[0]
	case len(s.Self.IPs) > 0:
		to = s.Self.IPs[0]
	}
	what := `"ip": ["tcp:443"]`
	if v.PeerRelay { // with its shields down, that would open derper's debug pages
		what = `"app": {"tailscale.com/cap/relay": []}`
	}
	return &Reason{
		fmt.Sprintf("the tailnet shows %s no other node", v.name()),
		fmt.Sprintf(`only nodes that a rule of the tailnet policy lets reach this one are let in; add to "grants", with the tags of servers in src, too: {"src": ["autogroup:member"], "dst": [%q], %s}`, to, what),
	}
}

func (n Node) expired(now time.Time) bool {
	return n.Expired || !n.KeyExpiry.IsZero() && n.KeyExpiry.Before(now)
}

func (n Node) expiryDate(before string) string {
	if n.KeyExpiry.IsZero() {
		return ""
	}
	return before + n.KeyExpiry.UTC().Format("2006-01-02")
}

func (n Node) keepFromExpiring() string {
	return "to keep the node " + n.named() + "from expiring, disable key expiry for it on the control server, or log in with a key that gives it a tag"
}

// named is the name and a space, or nothing.
func (n Node) named() string {
	if n.DNSName == "" {
		return ""
	}
	return n.DNSName + " "
}
