package suite

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/xavieralpha/derper/entrypoint/setting"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/testing/imagetest"
	"github.com/xavieralpha/derper/internal/testing/need"
)

// programs of the image, which the saboteur takes the place of.
var programs = []string{"entrypoint", "usr/local/bin/derper", "usr/local/bin/tailscaled"}

var saboteur = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "saboteur-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", filepath.Join(dir, "saboteur"), "./testdata/saboteur")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return out, err
	}
	return os.ReadFile(filepath.Join(dir, "saboteur"))
})

// sabotaged is the image with one thing spoiled: see testdata/saboteur.
func sabotaged(t testing.TB, what string) v1.Image {
	t.Helper()
	program, err := saboteur()
	if err != nil {
		t.Fatalf("%v\n%s", err, program)
	}
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	add := func(h tar.Header, data []byte) {
		h.Size = int64(len(data))
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range programs {
		name := filepath.Base(p)
		// First the real one gets a second name, then it loses the first.
		add(tar.Header{Name: "real/" + name + "/" + name, Typeflag: tar.TypeLink, Linkname: p, Mode: 0o755}, nil)
		add(tar.Header{Name: p, Typeflag: tar.TypeReg, Mode: 0o755}, program)
	}
	add(tar.Header{Name: "sabotage", Typeflag: tar.TypeReg, Mode: 0o644}, []byte(what))
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return withLayer(t, theImage(t), b.Bytes())
}

// withLayer is an image with one more layer, a tar file.
func withLayer(t testing.TB, img v1.Image, data []byte) v1.Image {
	t.Helper()
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
	if err == nil {
		img, err = mutate.AppendLayers(img, layer)
	}
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// withFlags is an image that says other flags of its derper.
func withFlags(t testing.TB, img v1.Image, edit func([]setting.Flag) []setting.Flag) v1.Image {
	t.Helper()
	r := theFlags(t)
	r.Flags = edit(slices.Clone(r.Flags))
	data := r.Bytes()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	err := tw.WriteHeader(&tar.Header{Name: strings.TrimPrefix(setting.File, "/"), Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(data))})
	if err == nil {
		_, err = tw.Write(data)
	}
	if err == nil {
		err = tw.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return withLayer(t, img, b.Bytes())
}

// without is a list of flags but for one, which change may put back otherwise.
func without(name string, change ...func(*setting.Flag)) func([]setting.Flag) []setting.Flag {
	return func(list []setting.Flag) []setting.Flag {
		i := slices.IndexFunc(list, func(f setting.Flag) bool { return f.Name == name })
		if len(change) == 0 {
			return slices.Delete(list, i, i+1)
		}
		change[0](&list[i])
		return list
	}
}

const (
	life    = "^(versions|env/defaults|hardened|sigterm.*|new-container|rate-limit)$"
	health  = "^(health/.*|default|versions)$"
	probes  = "^(default|probe/.*)$"
	verify  = "^(verify/.*|default)$"
	tailnet = "^(variable/T(S_|AILSC).*|versions)$"
	network = "^(mesh|end-to-end|probe/ipv4)$"
	limits  = "^(variable/ACCEPT_.*|versions)$"
	metered = "^(health/metrics|health/restart|variable/METRICS_ADDR|versions)$"
	nodes   = "^(verify/nodes|verify/url-allow|variable/VERIFY_NODES)$"
	relayed = "^(variable/PEER_RELAY_%s|versions)$"
)

// TestEachCaseCanFail feeds images in which one thing is spoiled, and expects the rows that are about it to fail, and
// of all others that look at the same part of the image none.
func TestEachCaseCanFail(t *testing.T) {
	need.Minutes(t, "testing spoiled images")
	native(t)
	for _, tt := range []struct {
		sabotage, run string
		want          []string
	}{
		{"nothing", "^(versions|hardened|probe/ipv4|health/.*|mesh)$", nil},

		{"open-door", probes, []string{"default"}},
		{"home 127.0.0.1", probes, []string{"default", "probe/ipv4", "probe/published"}},
		{"home ::1", probes, []string{"probe/ipv6"}},
		{"home relay.example", probes, []string{"probe/name"}},
		{"set a=127.0.0.1:443", probes, []string{"probe/ipv6", "probe/name"}},

		{"other-derper", life, []string{"versions"}},
		{"other-tailscaled", life, []string{"versions"}},
		{"writes-root", life, []string{"hardened"}},
		{"stubborn", life, []string{"sigterm", "sigterm/tailscaled"}},
		{"stubborn-sidecar", life, []string{"sigterm/tailscaled"}},
		{"late", life, []string{"sigterm", "sigterm/tailscaled"}},
		{"ends-with-1", life, []string{"sigterm", "sigterm/tailscaled"}},
		{"key-in-tmp", life, []string{"new-container"}},
		{"forgets-certificates", life, []string{"new-container"}},
		{"lie rate-config", life, []string{"rate-limit"}},
		{"rate-frozen", life, []string{"rate-limit"}},

		{"always-healthy", health, []string{"default", "health/hung", "health/stun-port-taken"}},
		{"healthy-when-hung", health, []string{"health/hung"}},
		{"healthy-without-stun", health, []string{"health/stun-port-taken"}},
		{"derper-only-once", health, []string{"health/restart", "health/stun-port-taken"}},
		{"derper-only-once", limits, []string{"variable/ACCEPT_CONNECTION_BURST", "variable/ACCEPT_CONNECTION_LIMIT"}},
		{"env METRICS_ADDR", metered, []string{"health/metrics", "health/restart", "variable/METRICS_ADDR"}},

		{"admit allowed", verify, []string{"verify/url-allow"}},
		{"admit denied", verify, []string{"verify/url-deny"}},
		{"admit not-200", verify, []string{"verify/url-not-200"}},
		{"set verify-client-url-fail-open=false", verify, []string{"verify/url-unreachable-fail-open"}},
		{"set verify-client-url-fail-open=true", verify, []string{"verify/url-unreachable-fail-closed"}},
		{"no-verify /tmp/", verify, []string{"verify/tailscaled"}},
		{"no-verify /var/run/tailscale/", verify, []string{"default", "verify/socket"}},

		{"env VERIFY_NODES", nodes, []string{"variable/VERIFY_NODES", "verify/nodes"}},
		{"everybody-is-known", nodes, []string{"variable/VERIFY_NODES", "verify/nodes"}},

		{"drop mesh-with", network, []string{"mesh"}},
		{"dead-tailscaled", network, []string{"end-to-end"}},

		{"env TS_AUTHKEY", tailnet, []string{"variable/TS_AUTHKEY"}},
		{"env TAILSCALED", tailnet, []string{"variable/TAILSCALED"}},
		{"env TS_HOSTNAME", tailnet, []string{"variable/TS_HOSTNAME"}},
		{"env PEER_RELAY_PORT", fmt.Sprintf(relayed, "PORT"), []string{"variable/PEER_RELAY_PORT"}},
		{"env PEER_RELAY_ENDPOINTS", fmt.Sprintf(relayed, "ENDPOINTS"), []string{"variable/PEER_RELAY_ENDPOINTS"}},
		{"env TS_LOGIN_SERVER", tailnet, []string{"variable/TAILSCALED", "variable/TS_AUTHKEY", "variable/TS_HOSTNAME", "variable/TS_LOGIN_SERVER"}},
	} {
		t.Run(tt.sabotage+" "+strings.Join(tt.want, " "), func(t *testing.T) {
			t.Parallel()
			check(t, sabotaged(t, tt.sabotage), tt.run, tt.want...)
		})
	}
	added := func(list []setting.Flag) []setting.Flag {
		return append(list, setting.Flag{Name: "no-such", Type: setting.KindInt, Help: "nobody has it"})
	}
	for name, tt := range map[string]struct {
		img  v1.Image
		want []string
	}{
		"one missing":     {withFlags(t, theImage(t), without("ace")), []string{"flags"}},
		"one too many":    {withFlags(t, theImage(t), added), []string{"flags", "variable/NO_SUCH"}},
		"another default": {withFlags(t, theImage(t), without("stun", func(f *setting.Flag) { f.Default = "false" })), []string{"flags"}},
		"another help":    {withFlags(t, theImage(t), without("stun", func(f *setting.Flag) { f.Help = "something else" })), []string{"flags"}},
		"another type":    {withFlags(t, theImage(t), without("tcp-write-timeout", func(f *setting.Flag) { f.Type = setting.KindString })), []string{"flags"}},
		// An image that does not mind a variable without effect.
		"off and taken": {withFlags(t, sabotaged(t, "env ACE"), without("ace")), []string{"flags", "variable/ACE"}},
	} {
		t.Run("flags: "+name, func(t *testing.T) {
			t.Parallel()
			check(t, tt.img, "^(flags|variable/(NO_SUCH|ACE|DEV|TCP_WRITE_TIMEOUT))$", tt.want...)
		})
	}
	t.Run("another label", func(t *testing.T) {
		t.Parallel()
		const commit = "0123456789012345678901234567890123456789"
		check(t, imagetest.Config(t, theImage(t), func(c *image.ConfigFile) { c.Config.Labels[image.LabelCommit] = commit }), life, "versions")
	})
	t.Run("defaults in the image", func(t *testing.T) {
		t.Parallel()
		check(t, imagetest.Config(t, theImage(t), func(c *image.ConfigFile) { c.Config.Env = append(c.Config.Env, "CERT_MODE=manual") }), life, "env/defaults")
	})
}

// unseen are variables whose effect no client can see, or not without other cases: the command line is all that there is.
var unseen = []string{
	"SOCKET", "VERIFY_CLIENTS", "CERT_MODE", "ACME_EMAIL", "ACME_EAB_KID", "ACME_EAB_KEY", "ACME_IP_CERTS", "VERIFY_FAIL_OPEN",
	"TCP_KEEPALIVE_TIME", "TCP_USER_TIMEOUT", "TCP_WRITE_TIMEOUT",
}

// TestEachVariableCanFail spoils every variable, one by one: those that show get derper's default while its command
// line says otherwise; of the others, the command line loses the flag.
func TestEachVariableCanFail(t *testing.T) {
	need.Minutes(t, "testing spoiled images")
	native(t)
	for _, v := range theFlags(t).Table().Variables() {
		if v.Flag == "" {
			continue // tailscaled's: see above
		}
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			how := "lie "
			if slices.Contains(unseen, v.Name) {
				how = "drop "
			}
			sabotage := how + v.Flag
			if v.Name == "VERSION_FLAG" { // the case versions uses the flag, too
				sabotage = "env VERSION_FLAG"
			}
			want := []string{rowOf(v.Name)}
			if v.Name == "SECRETS_URL" { // without it there are no secrets
				want = append(want, rowOf("SECRETS_PREFIX"), rowOf("SECRETS_CACHEDIR"))
			}
			check(t, sabotaged(t, sabotage), scenarioRows(v.Name), want...)
		})
	}
}
