package main

import (
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
		{"release", "--dry-run", "index.docker.io ghcr.io"},
		{"release", "--repo registry.example.com:5000/derper --repo=quay.io/a/derper", "registry.example.com:5000 quay.io"},
		{"release", "--repo http://10.87.0.1:5000/derper", "10.87.0.1:5000"},
		{"verify", "", ""},
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
	o := &options{command: "release", passed: []string{"--repo", "camllia/derper", "--repo", "registry.example.com:5000/derper"}}
	got := strings.Join(variables(registries(o)), " ")
	const want = "DOCKER_IO_USERNAME DOCKER_IO_PASSWORD REGISTRY_EXAMPLE_COM_5000_USERNAME REGISTRY_EXAMPLE_COM_5000_PASSWORD"
	if got != want {
		t.Errorf("%s, want %s", got, want)
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
		"other.example.com": {"auth": "b3RoZXI6b3RoZXJwYXNz"}}}`
	if err := os.WriteFile(filepath.Join(theirs, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	script(t, filepath.Join(theirs, "docker-credential-test"), `echo '{"Username": "helped", "Secret": "helppass"}'`)
	t.Setenv("PATH", theirs+":"+os.Getenv("PATH"))

	o := &options{command: "release", passed: []string{"camllia/derper", "registry.example.com/derper", "helped.example.com/derper", "open.example.com/derper"}}
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
		"open.example.com": ":", "other.example.com": ":",
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
