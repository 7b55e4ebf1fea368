// Package tailscaled runs and asks the tailscaled that verifies clients.
package tailscaled

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/xavieralpha/derper/entrypoint/certificate"
	"github.com/xavieralpha/derper/entrypoint/document"
	"github.com/xavieralpha/derper/entrypoint/http1"
	"github.com/xavieralpha/derper/entrypoint/setting"
)

// Config is the file for tailscaled --config. With it, tailscaled logs in by
// itself, so the image needs no tailscale program. It takes nothing else from
// the tailnet: no DNS, no routes.
func Config(set setting.Set) []byte {
	members := []string{`"version":"alpha0"`, `"enabled":true`, `"acceptDNS":false`, `"acceptRoutes":false`}
	for _, m := range [][2]string{{"authKey", "TS_AUTHKEY"}, {"serverURL", "TS_LOGIN_SERVER"}, {"hostname", "TS_HOSTNAME"}} {
		if text := set.Get(m[1]); text != "" {
			members = append(members, document.Quote(m[0])+":"+document.Quote(text))
		}
	}
	if port := set.Get("PEER_RELAY_PORT"); port != "" {
		members = append(members, `"relayServerPort":`+port)
		if list := set.Get("PEER_RELAY_ENDPOINTS"); list != "" {
			members = append(members, `"relayServerStaticEndpoints":["`+strings.ReplaceAll(list, ",", `","`)+`"]`)
		}
	}
	members = append(members, fmt.Sprintf(`"shieldsUp":%t`, set.Get("PEER_RELAY_PORT") == ""))
	return []byte("{" + strings.Join(members, ",") + "}")
}

// A Place is where a tailscaled keeps its things.
type Place struct {
	State  string // directory; empty to remember nothing
	Socket string
}

// Choose finds a place. The state goes beside the certificates, which are in a
// volume. The socket goes to a directory of its own under /tmp, because not
// every volume takes sockets, or else, when the root is read-only, beside the
// state.
func Choose(certDir string) (Place, error) {
	var p Place
	state := filepath.Join(certDir, "tailscaled")
	stateErr := certificate.Writable(state)
	if stateErr == nil {
		p.State = state
	}
	dir, tempErr := os.MkdirTemp("", "tailscaled")
	if tempErr != nil {
		if stateErr != nil {
			return p, fmt.Errorf("no place for tailscaled: %w; mount a volume on CERT_DIR that uid %d can write", errors.Join(stateErr, tempErr), os.Getuid())
		}
		dir = state
	}
	p.Socket = filepath.Join(dir, "tailscaled.sock")
	if len(p.Socket) > maxSocket {
		return p, fmt.Errorf("socket path %s is too long; use a shorter CERT_DIR", p.Socket)
	}
	return p, nil
}

// maxSocket is the longest path of a unix socket on Linux.
const maxSocket = 107

// Args are tailscaled's arguments. It needs no device and no capability:
// it only has to know who is in the tailnet.
func (p Place) Args(config string) []string {
	args := []string{"--tun=userspace-networking", "--socket=" + p.Socket, "--config=" + config, "--port=0"}
	if p.State == "" {
		return append(args, "--state=mem:")
	}
	return append(args, "--statedir="+p.State)
}

// Environ adds what keeps tailscaled from writing elsewhere.
func (p Place) Environ(environ []string) []string {
	environ = append([]string(nil), environ...)
	dir := p.State
	if dir == "" {
		dir = filepath.Dir(p.Socket)
	}
	if os.Getenv("TS_LOGS_DIR") == "" {
		environ = append(environ, "TS_LOGS_DIR="+dir)
	}
	return environ
}

// A Status is what a tailscaled says about itself.
type Status struct {
	Version      string
	BackendState string // of Tailscale's state machine
	AuthURL      string // where to log in, if that is what it waits for
	Health       string // what it complains about
}

// Ready reports whether it can verify clients. That takes the list of nodes,
// which it has when it is Starting. It is Running only once it has reached a
// relay: when this one is the only one of the tailnet, the two would wait for
// each other.
func (s Status) Ready() bool { return s.BackendState == "Running" || s.BackendState == "Starting" }

// Ask gets the status over the socket.
func Ask(socket string, timeout time.Duration) (Status, error) {
	var s Status
	r, err := request(socket, timeout, "GET", "/localapi/v0/status?peers=false")
	if err != nil {
		return s, err
	}
	object, err := document.Object(r)
	if err != nil {
		return s, fmt.Errorf("tailscaled's status: %w", err)
	}
	var complaints []string
	list, _ := object["Health"].([]any)
	for _, item := range list {
		if text, ok := item.(string); ok {
			complaints = append(complaints, text)
		}
	}
	return Status{
		Health:       strings.Join(complaints, "; "),
		Version:      document.Text(object, "Version"),
		BackendState: document.Text(object, "BackendState"),
		AuthURL:      document.Text(object, "AuthURL"),
	}, nil
}

// Login makes tailscaled fetch the URL at which the user can log in.
func Login(socket string, timeout time.Duration) error {
	_, err := request(socket, timeout, "POST", "/localapi/v0/login-interactive")
	return err
}

func request(socket string, timeout time.Duration, method, path string) ([]byte, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return nil, err
	}
	r, err := http1.New(conn, "local-tailscaled.sock").Do(method, path)
	if err != nil {
		return nil, fmt.Errorf("ask tailscaled: %w", err)
	}
	if r.Status/100 != 2 {
		return nil, fmt.Errorf("tailscaled answered %d: %s", r.Status, strings.TrimSpace(string(r.Body)))
	}
	return r.Body, nil
}

// SameRevision reports whether a tailscaled and a derper are built from the
// same source. tailscaled may append the commit of the repository that it was
// packaged in.
func SameRevision(tailscaled, derper string) bool {
	return tailscaled == derper || strings.HasPrefix(tailscaled, derper+"-")
}
