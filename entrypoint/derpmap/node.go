// Package derpmap writes what the tailnet policy needs to use the relay.
package derpmap

import (
	"encoding/json"
	"fmt"
	"net"
)

// A Node is what a DERP map has to say about the relay. Zero ports mean the
// default ones.
// Source: tailcfg/derpmap.go, DERPNode.
type Node struct {
	Name      string
	RegionID  int
	HostName  string
	IPv4      string `json:",omitempty"`
	IPv6      string `json:",omitempty"`
	CertName  string `json:",omitempty"` // pin of a certificate that no CA has signed
	DERPPort  int    `json:",omitempty"` // 0 for 443
	STUNPort  int    `json:",omitempty"` // 0 for 3478, -1 for none
	STUNOnly  bool   `json:",omitempty"` // relays nothing
	CanPort80 bool   `json:",omitempty"` // answers captive portal checks
}

// region is free for use by everybody, as all from 900 on.
const region = 900

// New returns the node of a host, with the default ports.
func New(host string) Node {
	n := Node{Name: "900a", RegionID: region, HostName: host}
	if ip := net.ParseIP(host); ip != nil {
		// "none" keeps clients from looking the address up as a name.
		n.IPv4, n.IPv6 = host, "none"
		if ip.To4() == nil {
			n.IPv4, n.IPv6 = "none", host
		}
	}
	return n
}

// JSON is the node in one line.
func (n Node) JSON() string { return text(json.Marshal(n)) }

// Policy is the node with a region around it, as the tailnet policy file takes
// it.
func (n Node) Policy() string {
	type nodes struct {
		RegionID               int
		RegionCode, RegionName string
		Nodes                  []Node
	}
	regions := map[string]map[int]nodes{"Regions": {region: {region, "custom", "Custom", []Node{n}}}}
	return `"derpMap": ` + text(json.MarshalIndent(regions, "", "  ")) + "\n"
}

// RelayGrant is what the tailnet policy needs for a peer relay: it lets devices
// use the node at that address, or with that tag, as one.
// Source: tailcfg.PeerCapabilityRelay, https://tailscale.com/docs/features/peer-relay.
func RelayGrant(dst string) string {
	return fmt.Sprintf(`"grants": [
  {
    "src": ["autogroup:member"],
    "dst": [%q],
    "app": { "tailscale.com/cap/relay": [] }
  }
]
`, dst)
}

func text(b []byte, err error) string {
	if err != nil {
		panic(err) // strings and numbers
	}
	return string(b)
}
