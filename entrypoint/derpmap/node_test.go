package derpmap

import (
	"encoding/json"
	"reflect"
	"testing"

	"tailscale.com/tailcfg"
)

func with(host string, change func(*Node)) Node {
	n := New(host)
	change(&n)
	return n
}

// The mistake it guards: a node that a tailnet policy does not take, or takes
// for something else.
func TestNodeAgainstUpstream(t *testing.T) {
	for _, test := range []struct {
		node Node
		want tailcfg.DERPNode
	}{
		{with("derp.example.com", func(n *Node) { n.CanPort80 = true }), tailcfg.DERPNode{HostName: "derp.example.com", CanPort80: true}},
		{
			with("::1", func(n *Node) { n.CertName, n.DERPPort, n.STUNPort = "sha256-raw:00ff", 8443, -1 }),
			tailcfg.DERPNode{HostName: "::1", IPv4: "none", IPv6: "::1", CertName: "sha256-raw:00ff", DERPPort: 8443, STUNPort: -1},
		},
		{
			with("10.0.0.1", func(n *Node) { n.STUNPort, n.STUNOnly = 5, true }),
			tailcfg.DERPNode{HostName: "10.0.0.1", IPv4: "10.0.0.1", IPv6: "none", STUNPort: 5, STUNOnly: true},
		},
	} {
		test.want.Name, test.want.RegionID = "900a", 900
		var node tailcfg.DERPNode
		if err := json.Unmarshal([]byte(test.node.JSON()), &node); err != nil || node != test.want {
			t.Errorf("%s: %v\ngot  %+v\nwant %+v", test.node.JSON(), err, node, test.want)
		}
		var policy struct{ DERPMap tailcfg.DERPMap }
		if err := json.Unmarshal([]byte("{"+test.node.Policy()+"}"), &policy); err != nil {
			t.Fatalf("%v\n%s", err, test.node.Policy())
		}
		region := policy.DERPMap.Regions[900]
		if region == nil || region.RegionID != 900 || !reflect.DeepEqual(region.Nodes, []*tailcfg.DERPNode{&test.want}) {
			t.Errorf("region %+v", region)
		}
	}
}

// The mistake it guards: a grant that the tailnet policy does not take, or that grants
// something else.
func TestRelayGrant(t *testing.T) {
	var policy struct {
		Grants []struct {
			Src, Dst []string
			App      map[tailcfg.PeerCapability][]any
		}
	}
	if err := json.Unmarshal([]byte("{"+RelayGrant("tag:derp")+"}"), &policy); err != nil {
		t.Fatal(err)
	}
	if len(policy.Grants) != 1 || !reflect.DeepEqual(policy.Grants[0].Dst, []string{"tag:derp"}) {
		t.Fatalf("%+v", policy)
	}
	if _, ok := policy.Grants[0].App[tailcfg.PeerCapabilityRelay]; !ok || len(policy.Grants[0].App) != 1 {
		t.Errorf("it grants %+v", policy.Grants[0].App)
	}
}
