// Package tailscaled runs and asks the tailscaled that verifies clients.
package tailscaled

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/xavieralpha/derper/entrypoint/certificate"
)

// Options are what the user has a say in. What is empty is left to tailscaled.
type Options struct {
	AuthKey     string
	LoginServer string // URL
	Hostname    string // of the node in the tailnet

	PeerRelayPort      int // UDP; 0 for no peer relay
	PeerRelayEndpoints []netip.AddrPort

	ShieldsUp bool // nodes of the tailnet can connect to nothing here
}

// Config is the file for tailscaled --config. With it, tailscaled logs in by
// itself, so the image needs no tailscale program. It takes nothing else from
// the tailnet: no DNS, no routes.
func Config(o Options) []byte {
	// tailscaled ends on a member that it does not know, see [Supports].
	file := struct {
		Version      string `json:"version"`
		Enabled      bool   `json:"enabled"`
		AcceptDNS    bool   `json:"acceptDNS"`
		AcceptRoutes bool   `json:"acceptRoutes"`
		ShieldsUp    bool   `json:"shieldsUp"` // written always: without it, what the state has counts

		AuthKey   string `json:"authKey,omitempty"`
		ServerURL string `json:"serverURL,omitempty"`
		Hostname  string `json:"hostname,omitempty"`

		RelayServerPort            int              `json:"relayServerPort,omitempty"`
		RelayServerStaticEndpoints []netip.AddrPort `json:"relayServerStaticEndpoints,omitempty"`
	}{
		Version: "alpha0", Enabled: true, ShieldsUp: o.ShieldsUp,
		AuthKey: o.AuthKey, ServerURL: o.LoginServer, Hostname: o.Hostname,
	}
	if o.PeerRelayPort != 0 {
		file.RelayServerPort, file.RelayServerStaticEndpoints = o.PeerRelayPort, o.PeerRelayEndpoints
	}
	b, err := json.Marshal(file)
	if err != nil { // strings, numbers and addresses always have a form in JSON
		panic(err)
	}
	return b
}

// A Place is where a tailscaled keeps its things.
type Place struct {
	State  string // directory; empty to remember nothing
	Socket string
}

// Choose finds a place. The state goes beside the certificates, which are in a
// volume. The socket goes to a directory of its own under /tmp, because not
// every volume takes sockets, or else, when the root is read-only, beside the
// state. The directory has a fixed name, because an image that has upstream's
// client links the client's default socket to it, unless another process has
// it: that is a program's as long as it runs.
func Choose(certDir string) (Place, error) {
	var p Place
	state := filepath.Join(certDir, "tailscaled")
	stateErr := certificate.Writable(state)
	if stateErr == nil {
		p.State = state
	}
	dir := folder()
	tempErr := take(dir)
	if errors.Is(tempErr, errTaken) {
		dir, tempErr = os.MkdirTemp("", "tailscaled")
	}
	if tempErr != nil {
		if stateErr != nil {
			return p, fmt.Errorf("no place for tailscaled: %w; mount a volume on CERT_DIR that uid %d can write", errors.Join(stateErr, tempErr), os.Getuid())
		}
		dir = state
	}
	p.Socket = filepath.Join(dir, socketName)
	if len(p.Socket) > maxSocket {
		return p, fmt.Errorf("socket path %s is too long; use a shorter CERT_DIR", p.Socket)
	}
	return p, nil
}

const socketName = "tailscaled.sock"

// folder is where the socket is, unless it cannot be there.
func folder() string { return filepath.Join(os.TempDir(), "tailscaled") }

var errTaken = errors.New("somebody else has it")

// take makes a directory this process's until it ends, also one that a process of the same
// user left behind. It is errTaken if it cannot be had.
func take(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	fd, err := syscall.Open(dir, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
	if err != nil {
		return errTaken
	}
	var is syscall.Stat_t
	if err := syscall.Fstat(fd, &is); err != nil || int(is.Uid) != os.Geteuid() || is.Mode&0o777 != 0o700 ||
		syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		syscall.Close(fd) //nolint:errcheck // nothing was written
		return errTaken
	}
	return nil // the lock is held as long as fd is open
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

// SameRevision reports whether a tailscaled and a derper are built from the
// same source. tailscaled may append the commit of the repository that it was
// packaged in.
func SameRevision(tailscaled, derper string) bool {
	return tailscaled == derper || strings.HasPrefix(tailscaled, derper+"-")
}
