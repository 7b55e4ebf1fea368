package suite

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tailscale.com/derp"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"

	"github.com/xavieralpha/derper/internal/container"
	"github.com/xavieralpha/derper/internal/probe"
	"github.com/xavieralpha/derper/internal/testing/need"
)

// olderReleases are those whose clients must still get along with the relay.
var olderReleases = []string{"v1.80.3", "v1.90.9", "v1.96.5"}

// olderClient builds testdata/client with a release of tailscale, in a module of its own, so that neither has a say in
// the other's dependencies.
func olderClient(t *testing.T, release string) string {
	t.Helper()
	dir := t.TempDir()
	program, err := os.ReadFile("testdata/client/main.go")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"main.go": string(program), "go.mod": "module client\n\ngo 1.24\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"get", "tailscale.com@" + release}, {"build", "-mod=mod", "-o", "client", "."}} {
		cmd := exec.Command("go", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=", "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build a client of %s, which takes a module proxy: go %v: %v\n%s", release, args, err, out)
		}
	}
	return filepath.Join(dir, "client")
}

// TestOlderClients has clients of older releases talk with one of ours over the relay.
func TestOlderClients(t *testing.T) {
	need.AWeek(t, "compiling clients of older releases")
	b := &bed{runner: native(t), image: theImage(t), patience: 20 * time.Second}
	defer b.close()
	var relay *box
	if err := probe.Caught(func() {
		b.open()
		relay = b.healthy(t.Context(), container.Spec{}, open)
	}); err != nil {
		t.Fatal(err)
	}
	at, err := relay.Addr(httpsPort)
	if err != nil {
		t.Fatal(err)
	}
	node, err := json.Marshal(tailcfg.DERPNode{
		Name: "900a", RegionID: 900, HostName: "127.0.0.1", IPv4: "127.0.0.1", IPv6: "none", DERPPort: int(at.Port()), InsecureForTests: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, release := range olderReleases {
		t.Run(release, func(t *testing.T) {
			program := olderClient(t, release)
			ours, err := relay.connect(t.Context(), key.NewNode())
			if err != nil {
				t.Fatal(err)
			}
			defer ours.Close()
			cmd := exec.Command(program, string(node), ours.Public.String())
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Wait()
			defer cmd.Process.Kill()
			lines := bufio.NewScanner(stdout)
			lines.Buffer(nil, 1<<20)
			if !lines.Scan() {
				t.Fatalf("no handshake: %s", &stderr)
			}
			var theirs key.NodePublic
			if err := theirs.UnmarshalText(lines.Bytes()); err != nil {
				t.Fatal(err)
			}
			p, err := probe.Next[derp.ReceivedPacket](t.Context(), ours, nil)
			if err != nil {
				t.Fatal(err)
			}
			if p.Source != theirs || string(p.Data) != "from an older release" {
				t.Errorf("%q came from %v", p.Data, p.Source)
			}
			back := strings.Repeat("from this release ", 1000)
			if err := ours.Send(theirs, []byte(back)); err != nil {
				t.Fatal(err)
			}
			if !lines.Scan() || lines.Text() != back {
				t.Errorf("%d of %d bytes came back: %s", len(lines.Text()), len(back), &stderr)
			}
		})
	}
}
