// Package setting is the table of variables that the image understands, and
// the one place where they become values.
//
// The table maps variable, derper flag, type, default and help. The flags that
// derper gets, --help, docs/variables.md and the tests all follow from it. It has
// two sources: what a person wrote here of the flags that are known, and which
// flags the derper in the image has, which the build reads from its source and
// puts beside it, see [Release]. The defaults are here and nowhere else: those in
// an image's environment would outlive the image, in a container that is made
// anew with the settings of the old one.
//
// Read turns an environment and arguments into a Set and reports everything
// that is wrong with single values. What only several values together can get
// wrong, or what needs the file system, is not its business: see package check.
package setting

// A Type says which texts a variable takes.
type Type int

const (
	Text      Type = iota // anything
	Bool                  // what strconv.ParseBool takes, as derper does
	Port                  // 1 to 65535
	HTTPPort              // 1 to 65535, or -1 for none
	Count                 // a whole number, 0 or more, that fits derper's int
	Rate                  // a number, 0 or more, or +Inf
	Span                  // a duration, 0 or more
	Address               // :port, ip:port or [ip]:port
	Host                  // a DNS name or an IP address
	HostList              // DNS names, comma-separated
	MeshList              // host or host/dial-host, comma-separated
	URL                   // http:// or https://
	HomePage              // empty, blank, or a URL
	CertMode              // manual, letsencrypt or gcp
	Path                  // a path
	Hex64                 // 64 hexadecimal digits
	Base64                // base64, as derper reads an EAB key
	Endpoints             // ip:port or [ip]:port, comma-separated
	NameList              // names of any kind, comma-separated

	// What package flag takes, for flags that nobody wrote a row for.

	Whole    // a whole number that fits derper's int or int64
	Unsigned // a whole number, 0 or more
	Float    // a number
	Length   // a duration
	Any      // anything, a path too
)

// A Variable is one row of the table.
type Variable struct {
	Name    string // of the environment variable
	Alias   string // a second name, which wins
	Flag    string // of derper, without dash; empty when the variable is the entrypoint's own
	Type    Type
	Default string // of the image; that of derper's flag in the release, unless Ours is set
	Ours    bool   // the default is this project's choice, whatever derper's is
	Seed    bool   // the seed image camllia/derper has it, with this default
	Secret  bool   // never printed; NAME_FILE names a file to read it from
	Help    string
	kind    Kind // of the flag, in the release
	rule    bool // nobody wrote a row for the flag: it has a name and a type by rule
	other   bool // the flag is of another kind than the row, and the type by rule
}

// derper's names for its own ports. They are also the ones of a DERP map that
// need not be written down there.
const (
	DefaultDERPPort = 443
	DefaultSTUNPort = 3478
)

// unlimited is math.MaxInt64: derper's default burst where int has 64 bits,
// and the seed's everywhere.
const unlimited = "9223372036854775807"

// rows are what a person wrote, in the order in which they are documented.
var rows = []Variable{
	{Name: "HOSTNAME", Alias: "DERP_HOSTNAME", Flag: "hostname", Type: Host, Default: "127.0.0.1", Ours: true, Seed: true,
		Help: "DNS name or IP address under which clients reach this relay; the certificate is for it. The container's own name, to which runtimes set it, counts as unset"},
	{Name: "ADDR", Flag: "a", Type: Address, Default: ":443", Ours: true, Seed: true,
		Help: "address for HTTPS, as `:port`, `ip:port` or `[ip]:port`; STUN and HTTP bind to the same IP"},
	{Name: "HTTP_PORT", Flag: "http-port", Type: HTTPPort, Default: "80", Ours: true, Seed: true,
		Help: "port for HTTP, used for captive portal checks and ACME; -1 switches it off, and clients ask Tailscale's servers instead"},
	{Name: "STUN_PORT", Flag: "stun-port", Type: Port, Default: "3478", Ours: true, Seed: true,
		Help: "UDP port for STUN"},
	{Name: "RUN_STUN", Flag: "stun", Type: Bool, Default: "true", Seed: true,
		Help: "run the STUN server"},
	{Name: "RUN_DERP", Flag: "derp", Type: Bool, Default: "true", Seed: true,
		Help: "run the DERP server; false only for a relay that is being retired"},
	{Name: "CERT_MODE", Flag: "certmode", Type: CertMode, Default: "manual", Ours: true, Seed: true,
		Help: "where the certificate comes from: `manual`, `letsencrypt` or `gcp`"},
	{Name: "CERT_DIR", Flag: "certdir", Type: Path, Default: "derper-certs", Ours: true, Seed: true,
		Help: "directory for certificates, and for the node key and tailscaled's state; keep it in a volume"},
	{Name: "ACME_EMAIL", Flag: "acme-email", Type: Text,
		Help: "contact address for the ACME account; gcp requires it"},
	{Name: "ACME_EAB_KID", Flag: "acme-eab-kid", Type: Text,
		Help: "ACME external account binding: key ID; gcp requires it"},
	{Name: "ACME_EAB_KEY", Flag: "acme-eab-key", Type: Base64, Secret: true,
		Help: "ACME external account binding: HMAC key in base64; gcp requires it. derper takes it as an argument only, so the process list shows it"},
	{Name: "ACME_IP_CERTS", Flag: "acme-ip-certs", Type: Bool, Default: "false",
		Help: "get Let's Encrypt certificates for the relay's IP addresses; needs CERT_MODE=letsencrypt and port 80"},
	{Name: "VERIFY_CLIENTS", Flag: "verify-clients", Type: Bool, Default: "true", Ours: true, Seed: true,
		Help: "let in only nodes that a tailscaled knows: the host's, or the one in this image (TS_AUTHKEY)"},
	{Name: "VERIFY_NODES", Type: Path,
		Help: "file with the node keys to let in, one `nodekey:…` a line, read again when it changes; takes the place of VERIFY_CLIENTS unless that is set"},
	{Name: "SOCKET", Flag: "socket", Type: Path, Seed: true,
		Help: "socket of the tailscaled that verifies clients; empty means /var/run/tailscale/tailscaled.sock"},
	{Name: "TS_AUTHKEY", Type: Text, Secret: true,
		Help: "auth key with which the tailscaled in this image joins the tailnet; setting it starts that tailscaled"},
	{Name: "TAILSCALED", Type: Bool, Default: "false",
		Help: "start the tailscaled in this image without an auth key, to go on with the state in CERT_DIR or to log in at the URL in the log"},
	{Name: "TS_LOGIN_SERVER", Type: URL,
		Help: "control server for the tailscaled in this image; empty means Tailscale's"},
	{Name: "TS_HOSTNAME", Type: Host,
		Help: "node name for the tailscaled in this image; empty means the container's host name"},
	{Name: "PEER_RELAY_PORT", Type: Port,
		Help: "UDP port on which the tailscaled in this image is a peer relay, which clients prefer to DERP; publish it under the same number"},
	{Name: "PEER_RELAY_ENDPOINTS", Type: Endpoints,
		Help: "addresses under which clients reach the peer relay from outside, as `ip:port`, comma-separated"},
	{Name: "METRICS_ADDR", Type: Address,
		Help: "address for `/metrics` (Prometheus), `/livez` and `/readyz`, as `:port`, `ip:port` or `[ip]:port`; empty means none"},
	{Name: "VERIFY_CLIENT_URL", Flag: "verify-client-url", Type: URL, Seed: true,
		Help: "admission controller that is asked about each client, besides a tailscaled unless VERIFY_CLIENTS=false"},
	{Name: "VERIFY_FAIL_OPEN", Flag: "verify-client-url-fail-open", Type: Bool, Default: "true", Seed: true,
		Help: "let clients in while VERIFY_CLIENT_URL cannot be reached; an answer that is an error, like 502, keeps them out all the same"},
	{Name: "DISALLOW_APP_NAMES", Flag: "disallow-app-names", Type: NameList,
		Help: "names of programs to keep out, comma-separated, as clients give them; relays of the mesh are let in all the same"},
	{Name: "CONFIG_PATH", Flag: "c", Type: Path, Seed: true,
		Help: "file with the relay's node key; empty means /var/lib/derper/derper.key if that exists, else derper_node.json in CERT_DIR"},
	{Name: "MESH_PSK", Type: Hex64, Secret: true,
		Help: "mesh key, 64 hexadecimal digits; derper gets it through a pipe"},
	{Name: "MESH_PSKFILE", Flag: "mesh-psk-file", Type: Path, Seed: true,
		Help: "file with the mesh key; MESH_PSK_FILE means the same"},
	{Name: "MESH_WITH", Flag: "mesh-with", Type: MeshList, Seed: true,
		Help: "relays to mesh with, comma-separated; `host/dial-host` dials another name"},
	{Name: "SECRETS_URL", Flag: "secrets-url", Type: URL, Seed: true,
		Help: "setec server to get the mesh key from"},
	{Name: "SECRETS_PREFIX", Flag: "secrets-path-prefix", Type: Text, Default: "prod/derp", Seed: true,
		Help: "prefix of the mesh key's name in setec"},
	{Name: "SECRETS_CACHEDIR", Flag: "secrets-cache-dir", Type: Path, Default: "derper-secrets", Ours: true, Seed: true,
		Help: "file to cache setec secrets in, whatever the flag is called"},
	{Name: "BOOTSTRAP_DNS", Flag: "bootstrap-dns-names", Type: HostList, Seed: true,
		Help: "names to serve at /bootstrap-dns, comma-separated"},
	{Name: "UNPUBLISHED_DNS", Flag: "unpublished-bootstrap-dns-names", Type: MeshList, Seed: true,
		Help: "names to serve at /bootstrap-dns and not list, comma-separated; `name/txt-record` rolls out by percentage"},
	{Name: "FLAGHOME", Flag: "home", Type: HomePage, Seed: true,
		Help: "root page: empty for derper's own, `blank`, or a URL to redirect to"},
	{Name: "RATE_CONFIG", Flag: "rate-config", Type: Path,
		Help: "JSON file with rate limits per client; derper reads it again on SIGHUP"},
	{Name: "ACCEPT_CONNECTION_LIMIT", Flag: "accept-connection-limit", Type: Rate, Default: "+Inf", Seed: true,
		Help: "new connections accepted per second. The first one above it ends derper, and all connections with it: the entrypoint starts it again"},
	{Name: "ACCEPT_CONNECTION_BURST", Flag: "accept-connection-burst", Type: Count, Default: unlimited, Ours: true, Seed: true,
		Help: "new connections accepted at once before the limit counts; with this default it never does"},
	{Name: "TCP_KEEPALIVE_TIME", Flag: "tcp-keepalive-time", Type: Span, Default: "10m0s", Seed: true,
		Help: "TCP keep-alive interval"},
	{Name: "TCP_USER_TIMEOUT", Flag: "tcp-user-timeout", Type: Span, Default: "15s", Seed: true,
		Help: "TCP user timeout"},
	{Name: "TCP_WRITE_TIMEOUT", Flag: "tcp-write-timeout", Type: Span, Default: "2s", Seed: true,
		Help: "timeout for a write to a client; 0 means none"},
	{Name: "ACE", Flag: "ace", Type: Bool, Default: "false",
		Help: "run the embedded ACE server (experimental upstream)"},
	{Name: "DEV", Flag: "dev", Type: Bool, Default: "false", Seed: true,
		Help: "development mode: port 3340 whatever ADDR says, and a new node key at each start"},
	{Name: "VERSION_FLAG", Flag: "version", Type: Bool, Default: "false", Seed: true,
		Help: "print derper's version and end"},
}

// names are all variables that set this one, the one that wins first.
func (v Variable) names() []string {
	if v.Alias != "" {
		return []string{v.Alias, v.Name}
	}
	return []string{v.Name}
}

// FileName is the variable that names a file to read a secret from, in the
// style of Docker and Kubernetes secrets.
func (v Variable) FileName() string { return v.Name + "_FILE" }
