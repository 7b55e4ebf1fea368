package main

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

func TestRegistries(t *testing.T) {
	for _, test := range []struct{ command, passed, want string }{
		{"release", "", "index.docker.io ghcr.io"},
		{"release", "--key /secrets/key", "index.docker.io ghcr.io"},
		{"release", "--to registry.example.com:5000/derper --to=quay.io/a/derper,quay.io/b/derper", "registry.example.com:5000 quay.io"},
		{"release", "--to http://10.87.0.1:5000/derper", "10.87.0.1:5000"},
		{"release", "--key keys/cosign.key --trusted-root sigstore/root.json", "index.docker.io ghcr.io"},
		{"release", "--unsigned --to ghcr.io/a/b --folder some/folder", "ghcr.io"},
		{"verify", "", ""},
		{"verify", "--html out/report.html --rebuilder keys/alice.pub ghcr.io/a/b", "ghcr.io"},
		{"verify", "--source camllia/derper", "index.docker.io"},
		{"verify", "camllia/derper:latest", "index.docker.io"},
		{"verify", "ghcr.io/a/b@sha256:" + strings.Repeat("0", 64), "ghcr.io"},
	} {
		var got []string
		for _, r := range registries(&options{command: test.command, passed: strings.Fields(test.passed)}) {
			got = append(got, r.RegistryStr())
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s %s: %v, want %s", test.command, test.passed, got, test.want)
		}
	}
}

func TestVariables(t *testing.T) {
	t.Setenv("127_0_0_1_5000_PASSWORD", "secret")
	o := &options{command: "release", passed: []string{"--to", "camllia/derper,registry.example.com:5000/derper", "--to=http://client.localhost:5000/derper"}}
	want := map[string]string{
		"DOCKER_IO_USERNAME": "DOCKER_IO_USERNAME", "DOCKER_IO_PASSWORD": "DOCKER_IO_PASSWORD",
		"REGISTRY_EXAMPLE_COM_5000_USERNAME": "REGISTRY_EXAMPLE_COM_5000_USERNAME",
		"REGISTRY_EXAMPLE_COM_5000_PASSWORD": "REGISTRY_EXAMPLE_COM_5000_PASSWORD",
		"CLIENT_LOCALHOST_5000_USERNAME":     "LOCALHOST_5000_USERNAME",
		"CLIENT_LOCALHOST_5000_PASSWORD":     "127_0_0_1_5000_PASSWORD",
	}
	if got := variables(registries(o)); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestCredentials guards against credentials in a container for registries that it
// has no business with, and against a form that no reader of it understands.
func TestCredentials(t *testing.T) {
	theirs := t.TempDir()
	t.Setenv("DOCKER_CONFIG", theirs)
	config := `{"credHelpers": {"helped.example.com": "test"}, "auths": {
		"https://index.docker.io/v1/": {"auth": "aHViOmh1YnBhc3M="},
		"registry.example.com": {"username": "me", "password": "mypass"},
		"localhost:5000": {"username": "local", "password": "localpass"},
		"other.example.com": {"auth": "b3RoZXI6b3RoZXJwYXNz"}}}`
	if err := os.WriteFile(filepath.Join(theirs, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	script(t, filepath.Join(theirs, "docker-credential-test"), `echo '{"Username": "helped", "Secret": "helppass"}'`)
	t.Setenv("PATH", theirs+":"+os.Getenv("PATH"))

	o := &options{command: "release", passed: []string{"--to",
		"camllia/derper,registry.example.com/derper,helped.example.com/derper,open.example.com/derper,http://client.localhost:5000/derper"}}
	given, err := dockerConfig(authn.DefaultKeychain, registries(o))
	if err != nil {
		t.Fatal(err)
	}
	ours := t.TempDir()
	if err := os.WriteFile(filepath.Join(ours, "config.json"), []byte(given), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOCKER_CONFIG", ours)
	for host, want := range map[string]string{
		"index.docker.io": "hub:hubpass", "registry.example.com": "me:mypass", "helped.example.com": "helped:helppass",
		"client.localhost:5000": "local:localpass", "open.example.com": ":", "other.example.com": ":",
	} {
		r, err := name.NewRegistry(host)
		if err != nil {
			t.Fatal(err)
		}
		a, err := authn.DefaultKeychain.Resolve(r)
		if err != nil {
			t.Fatal(err)
		}
		c, err := a.Authorization()
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Username + ":" + c.Password; got != want {
			t.Errorf("%s: %s, want %s", host, got, want)
		}
	}
	none, err := dockerConfig(authn.DefaultKeychain, nil)
	if none != "" || err != nil {
		t.Errorf("without registries: %q, %v", none, err)
	}
}
