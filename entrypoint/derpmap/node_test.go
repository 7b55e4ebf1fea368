package derpmap

import (
	"encoding/json"
	"reflect"
	"testing"

	"tailscale.com/tailcfg"
)

// The mistake it guards: a node that a tailnet policy does not take, or takes
// for something else.
func TestNodeAgainstUpstream(t *testing.T) {
	for _, test := range []struct {
		node Node
		want tailcfg.DERPNode
	}{
		{Node{HostName: "derp.example.com", CanPort80: true}, tailcfg.DERPNode{HostName: "derp.example.com", CanPort80: true}},
		{
			Node{HostName: "::1", CertName: "sha256-raw:00ff", DERPPort: 8443, STUNPort: -1},
			tailcfg.DERPNode{HostName: "::1", IPv4: "none", IPv6: "::1", CertName: "sha256-raw:00ff", DERPPort: 8443, STUNPort: -1},
		},
		{
			Node{HostName: "10.0.0.1", STUNPort: 5, STUNOnly: true},
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
