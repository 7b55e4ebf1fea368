// Package relay says what the settings make of derper: where it listens, what
// it serves, which files it uses. The checks, the start and the health check
// all ask here, so that they cannot disagree.
package relay

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/xavieralpha/derper/entrypoint/certificate"
	"github.com/xavieralpha/derper/entrypoint/derpmap"
	"github.com/xavieralpha/derper/entrypoint/setting"
)

// A Relay is derper as a Set starts it.
type Relay struct{ setting.Set }

// New returns the relay of a set. A list of nodes takes the place of a
// tailscaled, unless both are asked for; while it cannot be asked, derper lets
// nobody in.
func New(set setting.Set) Relay {
	if set.Get("VERIFY_NODES") != "" {
		if set.Value("VERIFY_CLIENTS").Origin == setting.FromDefault {
			set = set.With("VERIFY_CLIENTS", "false", "because of VERIFY_NODES")
		}
		set = set.With("VERIFY_FAIL_OPEN", "false", "because of VERIFY_NODES")
	}
	return Relay{Set: set}
}

// devAddress is where derper listens in development mode, whatever -a says.
const devAddress = ":3340"

// Address returns the IP, which may be empty, and the port of HTTPS.
func (r Relay) Address() (host string, port int) {
	addr := r.Get("ADDR")
	if r.Bool("DEV") {
		addr = devAddress
	}
	host, text, _ := net.SplitHostPort(addr)
	port, _ = strconv.Atoi(text)
	return host, port
}

// Manual reports whether derper serves a pair of files.
func (r Relay) Manual() bool { return r.Get("CERT_MODE") == "manual" }

// TLS reports whether derper serves HTTPS. On any port but 443 it does so only
// in manual mode; otherwise it serves plain HTTP there.
func (r Relay) TLS() bool {
	_, port := r.Address()
	return r.Manual() || port == setting.DefaultDERPPort
}

// Pair returns the files of manual mode.
func (r Relay) Pair() certificate.Pair {
	return certificate.At(r.Get("CERT_DIR"), r.Get("HOSTNAME"))
}

// IsIP reports whether the relay is known by an IP address.
func (r Relay) IsIP() bool { return net.ParseIP(r.Get("HOSTNAME")) != nil }

// Verifies reports whether a tailscaled verifies clients.
func (r Relay) Verifies() bool { return r.Bool("VERIFY_CLIENTS") }

// WantsTailscaled reports whether the user asked for the tailscaled in the
// image.
func (r Relay) WantsTailscaled() bool {
	return r.Get("TS_AUTHKEY") != "" || r.Bool("TAILSCALED")
}

// PeerRelay reports whether the tailscaled in the image is to be a peer relay.
func (r Relay) PeerRelay() bool { return r.Get("PEER_RELAY_PORT") != "" }

// Sidecar reports whether the tailscaled in the image runs beside derper.
func (r Relay) Sidecar() bool { return r.WantsTailscaled() && (r.Verifies() || r.PeerRelay()) }

// PeerRelayEndpoints are the addresses under which clients reach the peer relay.
func (r Relay) PeerRelayEndpoints() (all []netip.AddrPort) {
	for _, text := range strings.Split(r.Get("PEER_RELAY_ENDPOINTS"), ",") {
		if a, err := netip.ParseAddrPort(text); err == nil {
			all = append(all, a)
		}
	}
	return all
}

// Places where the host's tailscaled socket is mounted. The first one is
// derper's default.
var hostSockets = []string{"/var/run/tailscale/tailscaled.sock", "/run/tailscale/tailscaled.sock"}

// HostSocket is the socket of a tailscaled outside of this container.
func (r Relay) HostSocket() string {
	if s := r.Get("SOCKET"); s != "" {
		return s
	}
	for _, s := range hostSockets {
		if IsSocket(s) {
			return s
		}
	}
	return hostSockets[0]
}

// IsSocket reports whether path is a socket.
func IsSocket(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().Type() == os.ModeSocket
}

// legacyKey is derper's own default for root. The seed image has it outside of
// any volume, but whoever mounted one there keeps his key.
var legacyKey = "/var/lib/derper/derper.key"

// KeyPath is the file with the node key. The name of the default one has an
// underscore, so that it can never be that of a certificate: derper drops
// underscores from those.
func (r Relay) KeyPath() string {
	if p := r.Get("CONFIG_PATH"); p != "" {
		return p
	}
	if _, err := os.Stat(legacyKey); err == nil {
		return legacyKey
	}
	return filepath.Join(r.Get("CERT_DIR"), "derper_node.json")
}

// NewKey makes a node key in the form of derper's config file.
func NewKey() []byte {
	var k [32]byte
	rand.Read(k[:])
	// Curve25519 clamping, as key.NewNode does it.
	k[0] &= 248
	k[31] = k[31]&127 | 64
	return fmt.Appendf(nil, "{\"PrivateKey\":\"privkey:%s\"}\n", hex.EncodeToString(k[:]))
}

// Node is the relay's entry in a DERP map. The certificate is that of manual
// mode; nil if there is none.
func (r Relay) Node(cert *certificate.Certificate) derpmap.Node {
	n := derpmap.New(r.Get("HOSTNAME"))
	n.STUNOnly = !r.Bool("RUN_DERP")
	if _, port := r.Address(); port != setting.DefaultDERPPort {
		n.DERPPort = port
	}
	if port := r.Number("STUN_PORT"); port != setting.DefaultSTUNPort {
		n.STUNPort = port
	}
	if !r.Bool("RUN_STUN") {
		n.STUNPort = -1
	}
	n.CanPort80 = r.Number("HTTP_PORT") == 80 && r.TLS()
	if cert != nil && cert.SelfSigned {
		n.CertName = cert.Pin()
	}
	return n
}

// Ports says, for the user, what the node does not: which ports have to be
// reachable.
func (r Relay) Ports() []string {
	var lines []string
	if _, port := r.Address(); port != setting.DefaultDERPPort || r.Number("STUN_PORT") != setting.DefaultSTUNPort {
		lines = append(lines, "its ports are those of this container; where they are published as others, write those")
	}
	switch {
	case r.Bool("ACME_IP_CERTS"):
		lines = append(lines, "port 80 must be reachable: Let's Encrypt checks IP addresses there")
	case r.Number("HTTP_PORT") == -1:
		lines = append(lines, "HTTP is off: clients that have no other node with port 80 keep asking Tailscale's own servers for captive portals")
	case r.Number("HTTP_PORT") != 80:
		lines = append(lines, "port 80 may be left out: it only serves captive portal checks; to have them, publish the HTTP port as 80 and add \"CanPort80\": true")
	case !r.IsIP():
		lines = append(lines, `port 80 may be left out: it only serves captive portal checks, for which clients need the relay's "IPv4" in the node, too; if it is closed, drop "CanPort80"`)
	default:
		lines = append(lines, `port 80 may be left out: it only serves captive portal checks; if it is closed, drop "CanPort80"`)
	}
	return lines
}
