package registry

import (
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// TestVariables guards the names that users have set, and hosts that are alike.
func TestVariables(t *testing.T) {
	seen := map[string]string{}
	for host, want := range map[string]string{
		"docker.io":                 "DOCKER_IO",
		"ghcr.io":                   "GHCR_IO",
		"registry.example.com:5000": "REGISTRY_EXAMPLE_COM_5000",
		"registry.example.com":      "REGISTRY_EXAMPLE_COM",
		"registry-example.com":      "REGISTRY__EXAMPLE_COM",
		"registry--example.com":     "REGISTRY____EXAMPLE_COM",
		"registry-example-com":      "REGISTRY__EXAMPLE__COM",
		"registry_example.com":      "REGISTRYx5fEXAMPLEx2eCOM",
		"registry..example.com":     "REGISTRYx2ex2eEXAMPLEx2eCOM",
		"registry.-example.com":     "REGISTRYx2ex2dEXAMPLEx2eCOM",
		"registry-.example.com":     "REGISTRYx2dx2eEXAMPLEx2eCOM",
		"registry.example.com.5000": "REGISTRYx2eEXAMPLEx2eCOMx2e5000",
		"localhost:5000":            "LOCALHOST_5000",
		"localhost.5000":            "LOCALHOSTx2e5000",
		"127.0.0.1":                 "127_0_0_1",
		"127.0.0.1:5000":            "127_0_0_1_5000",
		"127.0.0:1":                 "127x2e0x2e0x3a1",
		"127.0.0.1.5000":            "127x2e0x2e0x2e1x2e5000",
		"[::1]:5000":                "x5bx3ax3a1x5dx3a5000",
		"[::1]":                     "x5bx3ax3a1x5d",
	} {
		user, password := Variables(host)
		if user != want+"_USERNAME" || password != want+"_PASSWORD" {
			t.Errorf("%s: %s and %s, want %s_USERNAME", host, user, password, want)
		}
		if other := seen[user]; other != "" {
			t.Errorf("%s and %s share %s", host, other, user)
		}
		seen[user] = host
	}
}

// TestCredentials guards whose password goes where: the environment's comes first, one
// host's is not another's, and half of one is said.
func TestCredentials(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	env := map[string]string{
		"DOCKER_IO_USERNAME": "ann", "DOCKER_IO_PASSWORD": "hub",
		"REGISTRY_EXAMPLE_COM_USERNAME": "ann", "REGISTRY_EXAMPLE_COM_PASSWORD": "dot",
		"HALF_EXAMPLE_COM_USERNAME": "ann",
	}
	getenv := func(name string) string { return env[name] }
	references := []string{"me/derper", "http://registry.example.com/derper:1.102.3", "registry-example.com/derper", "ghcr.io/me/derper@sha256:" + strings.Repeat("0", 64)}
	keychain, err := Credentials(references, getenv)
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{"docker.io": "hub", "registry.example.com": "dot", "registry-example.com": "", "ghcr.io": ""} {
		registry, err := name.NewRegistry(host)
		if err != nil {
			t.Fatal(err)
		}
		auth, err := keychain.Resolve(registry)
		if err != nil {
			t.Fatal(err)
		}
		config, err := authn.Authorization(t.Context(), auth)
		if err != nil || config.Password != want {
			t.Errorf("%s: password %q, want %q (%v)", host, config.Password, want, err)
		}
	}
	if _, err := Credentials([]string{"half.example.com/derper"}, getenv); err == nil || err.Error() != "HALF_EXAMPLE_COM_USERNAME is set, and HALF_EXAMPLE_COM_PASSWORD is not" {
		t.Errorf("half: %v", err)
	}
}
