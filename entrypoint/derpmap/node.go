// Package derpmap writes the DERP map that makes a tailnet use the relay.
package derpmap

import (
	"net"
	"strconv"
	"strings"

	"github.com/xavieralpha/derper/entrypoint/document"
)

// A Node is what a DERP map has to say about the relay. Zero ports mean the
// default ones.
type Node struct {
	HostName  string
	CertName  string // pin of a certificate that no CA has signed
	DERPPort  int    // 0 for 443
	STUNPort  int    // 0 for 3478, -1 for none
	CanPort80 bool   // answers captive portal checks
	STUNOnly  bool   // relays nothing
}

// fields are the members of the JSON object, in order.
func (n Node) fields() [][2]string {
	fields := [][2]string{{"Name", `"900a"`}, {"RegionID", "900"}, {"HostName", document.Quote(n.HostName)}}
	add := func(name, value string) { fields = append(fields, [2]string{name, value}) }
	if ip := net.ParseIP(n.HostName); ip != nil {
		// "none" keeps clients from looking the address up as a name.
		if ip.To4() != nil {
			add("IPv4", document.Quote(n.HostName))
			add("IPv6", `"none"`)
		} else {
			add("IPv4", `"none"`)
			add("IPv6", document.Quote(n.HostName))
		}
	}
	if n.CertName != "" {
		add("CertName", document.Quote(n.CertName))
	}
	if n.DERPPort != 0 {
		add("DERPPort", strconv.Itoa(n.DERPPort))
	}
	if n.STUNPort != 0 {
		add("STUNPort", strconv.Itoa(n.STUNPort))
	}
	if n.STUNOnly {
		add("STUNOnly", "true")
	}
	if n.CanPort80 {
		add("CanPort80", "true")
	}
	return fields
}

// JSON is the node in one line.
func (n Node) JSON() string { return "{" + n.join("", ":", ",") + "}" }

func (n Node) join(indent, colon, comma string) string {
	var members []string
	for _, f := range n.fields() {
		members = append(members, indent+document.Quote(f[0])+colon+f[1])
	}
	return strings.Join(members, comma)
}

// Policy is the node with a region around it, as the tailnet policy file takes
// it. Region IDs from 900 are free for use by everybody.
func (n Node) Policy() string {
	return `"derpMap": {
  "Regions": {
    "900": {
      "RegionID": 900,
      "RegionCode": "custom",
      "RegionName": "Custom",
      "Nodes": [
        {
` + n.join("          ", ": ", ",\n") + `
        }
      ]
    }
  }
}
`
}
