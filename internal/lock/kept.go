package lock

// A Feature is one of upstream's features.
type Feature struct {
	Name string
	// Why is the reason to keep it, for docs/image.md.
	Why string
}

// Kept are the features that the tailscaled beside derper has. What they require is
// upstream's to say, and not listed here.
var Kept = []Feature{
	{"bakedroots", "the certificates of control and relay servers are verified even where a volume hides the image's own CA roots"},
	{"health", "tailscaled reports what keeps it from the tailnet; the entrypoint's log and its health check say so"},
	{"nattraversal", "from 1.104 on, where it can be left out: a peer relay finds its public address by STUN"},
	{"netstack", "networking in userspace: tailscaled starts without a device, a capability or root"},
	{"relayserver", "the peer relay of `PEER_RELAY_PORT`"},
	{"tailnetlock", "nodes of a locked tailnet are verified, and this one can be signed"},
	{"unixsocketidentity", "the local API tells users apart by their uid; without it, upstream's code denies its status even to root"},
	{"useproxy", "`HTTPS_PROXY` and its like count for the connection to the control server"},
}

func names(features []Feature) (list []string) {
	for _, f := range features {
		list = append(list, f.Name)
	}
	return list
}
