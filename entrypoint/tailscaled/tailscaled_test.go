package tailscaled_test

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tailscale.com/ipn"

	"github.com/xavieralpha/derper/entrypoint/tailscaled"
)

// TestConfig guards against a file that tailscaled does not read as it was meant, and
// against one with which it takes more from the tailnet than the list of nodes.
func TestConfig(t *testing.T) {
	endpoints := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:40000"), netip.MustParseAddrPort("[2001:db8::1]:40000")}
	port := uint16(40000)
	for _, test := range []struct {
		options tailscaled.Options
		authKey string
		prefs   ipn.Prefs
	}{
		{options: tailscaled.Options{}},
		{options: tailscaled.Options{AuthKey: "tskey-1?a=\"b\\<&"}, authKey: "tskey-1?a=\"b\\<&"},
		{options: tailscaled.Options{LoginServer: "https://login.example.com", Hostname: "derp1", ShieldsUp: true},
			prefs: ipn.Prefs{ControlURL: "https://login.example.com", Hostname: "derp1", ShieldsUp: true}},
		{options: tailscaled.Options{PeerRelayPort: 40000}, prefs: ipn.Prefs{RelayServerPort: &port}},
		{options: tailscaled.Options{PeerRelayPort: 40000, PeerRelayEndpoints: endpoints},
			prefs: ipn.Prefs{RelayServerPort: &port, RelayServerStaticEndpoints: endpoints}},
		{options: tailscaled.Options{PeerRelayEndpoints: endpoints}}, // of no port
	} {
		var config ipn.ConfigVAlpha
		if err := decode(tailscaled.Config(test.options), &config); err != nil {
			t.Errorf("%+v: %v", test.options, err)
			continue
		}
		mask, err := config.ToPrefs()
		if err != nil || config.Version != "alpha0" {
			t.Errorf("%+v: version %s, %v", test.options, config.Version, err)
		}
		test.prefs.WantRunning = true
		if !mask.CorpDNSSet || !mask.RouteAllSet || !mask.Prefs.Equals(&test.prefs) {
			t.Errorf("%+v: %v, want %v", test.options, mask.Prefs.Pretty(), test.prefs.Pretty())
		}
		var key string
		if config.AuthKey != nil {
			key = *config.AuthKey
		}
		if key != test.authKey {
			t.Errorf("auth key %q, want %q", key, test.authKey)
		}
	}
}

// short is a folder with a short name, as that of a socket has to be.
func short(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "ts")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// TestChoose guards against a place that tailscaled cannot use, on an image whose file
// system can be written in some places only, and against state that is lost although
// there is a volume for it.
func TestChoose(t *testing.T) {
	dir := short(t)
	file := filepath.Join(dir, "file") // below it, nobody can write, root neither
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	left, open := filepath.Join(dir, "left"), filepath.Join(dir, "open")
	for d, mode := range map[string]os.FileMode{left: 0o700, open: 0o755} {
		if err := os.MkdirAll(filepath.Join(d, "tailscaled"), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(left, "tailscaled/tailscaled.sock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name          string
		certs, temp   string
		state, socket string // of the place; a socket's folder is new when it ends in *
		err           string
	}{
		{name: "both can be written", certs: filepath.Join(dir, "a"), temp: dir, state: filepath.Join(dir, "a/tailscaled"), socket: filepath.Join(dir, "tailscaled")},
		{name: "another tailscaled", certs: filepath.Join(dir, "a"), temp: dir, state: filepath.Join(dir, "a/tailscaled"), socket: filepath.Join(dir, "tailscaled*")},
		{name: "one that was killed", certs: filepath.Join(dir, "a"), temp: left, state: filepath.Join(dir, "a/tailscaled"), socket: filepath.Join(left, "tailscaled")},
		{name: "a folder of somebody", certs: filepath.Join(dir, "a"), temp: open, state: filepath.Join(dir, "a/tailscaled"), socket: filepath.Join(open, "tailscaled*")},
		{name: "no volume", certs: filepath.Join(file, "a"), temp: dir, socket: filepath.Join(dir, "tailscaled*")},
		{name: "read-only root", certs: filepath.Join(dir, "b"), temp: filepath.Join(file, "tmp"), state: filepath.Join(dir, "b/tailscaled"), socket: filepath.Join(dir, "b/tailscaled")},
		{name: "neither", certs: filepath.Join(file, "a"), temp: filepath.Join(file, "tmp"), err: "no place for tailscaled: "},
		{name: "long path", certs: filepath.Join(dir, strings.Repeat("c", 100)), temp: filepath.Join(file, "tmp"), err: "is too long; use a shorter CERT_DIR"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("TMPDIR", test.temp)
			place, err := tailscaled.Choose(test.certs)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("%v, want %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if place.State != test.state {
				t.Errorf("state in %q, want %q", place.State, test.state)
			}
			folder, name := filepath.Split(place.Socket)
			folder = filepath.Clean(folder)
			if prefix, isNew := strings.CutSuffix(test.socket, "*"); name != "tailscaled.sock" || !strings.HasPrefix(folder, prefix) || isNew == (folder == prefix) {
				t.Errorf("socket %s, want one in %s", place.Socket, test.socket)
			}
			os.Remove(place.Socket) // as tailscaled does
			listener, err := net.Listen("unix", place.Socket)
			if err != nil {
				t.Fatalf("no socket can be there: %v", err)
			}
			listener.Close()
		})
	}
}

// TestPlace guards against a tailscaled that writes where it may not, as to its default
// folders, or needs a device.
func TestPlace(t *testing.T) {
	kept := tailscaled.Place{State: "/certs/tailscaled", Socket: "/tmp/x/tailscaled.sock"}
	lost := tailscaled.Place{Socket: "/tmp/x/tailscaled.sock"}
	for _, test := range []struct {
		place       tailscaled.Place
		state, logs string
	}{
		{kept, "--statedir=/certs/tailscaled", "TS_LOGS_DIR=/certs/tailscaled"},
		{lost, "--state=mem:", "TS_LOGS_DIR=/tmp/x"},
	} {
		want := []string{"--tun=userspace-networking", "--socket=/tmp/x/tailscaled.sock", "--config=/proc/self/fd/3", "--port=0", test.state}
		if got := test.place.Args("/proc/self/fd/3"); !slices.Equal(got, want) {
			t.Errorf("arguments %q, want %q", got, want)
		}
		t.Setenv("TS_LOGS_DIR", "")
		given := make([]string, 1, 10)
		given[0] = "A=b"
		if got := test.place.Environ(given); !slices.Equal(got, []string{"A=b", test.logs}) {
			t.Errorf("environment %q, want %s in it", got, test.logs)
		}
		if more := given[:2]; more[1] != "" {
			t.Error("the caller's environment was written to")
		}
		t.Setenv("TS_LOGS_DIR", "/logs")
		if got := test.place.Environ([]string{"TS_LOGS_DIR=/logs"}); !slices.Equal(got, []string{"TS_LOGS_DIR=/logs"}) {
			t.Errorf("environment %q: the user's folder does not count", got)
		}
	}
}

// TestSameRevision guards against a warning about two programs of one build, and against
// none about those of two.
func TestSameRevision(t *testing.T) {
	for _, test := range []struct {
		tailscaled, derper string
		same               bool
	}{
		{"1.102.3-t53a0d659a", "1.102.3-t53a0d659a", true},
		{"1.102.3-t53a0d659a-gabc", "1.102.3-t53a0d659a", true},
		{"1.102.3-t53a0d659ab", "1.102.3-t53a0d659a", false},
		{"1.102.3", "1.102.3-t53a0d659a", false},
		{"", "1.102.3-t53a0d659a", false},
	} {
		if got := tailscaled.SameRevision(test.tailscaled, test.derper); got != test.same {
			t.Errorf("%s and %s: %v", test.tailscaled, test.derper, got)
		}
	}
}
