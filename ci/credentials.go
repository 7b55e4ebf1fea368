package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"dagger.io/dagger"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// secretsDir is where a container has its config.json of Docker's form.
const secretsDir = "/secrets"

// credentials gives a container the client's credentials for the registries that
// the arguments name, and no others. They are secrets of the engine's: it keeps them
// in memory, out of its cache and its logs.
func (e *engine) credentials(c *dagger.Container) (*dagger.Container, error) {
	hosts := registries(e.o)
	config, err := dockerConfig(authn.DefaultKeychain, hosts)
	if err != nil {
		return nil, err
	}
	if config != "" {
		c = c.
			WithMountedSecret(secretsDir+"/config.json", e.client.SetSecret("docker-config", config)).
			WithEnvVariable("DOCKER_CONFIG", secretsDir)
	}
	for _, v := range variables(hosts) {
		if os.Getenv(v) != "" {
			c = e.secretVariable(c, v)
		}
	}
	return c, nil
}

// variables are those in which build push looks for credentials before it looks
// anywhere else: REGISTRY_EXAMPLE_COM_5000_USERNAME and the like.
func variables(hosts []name.Registry) []string {
	var out []string
	for _, r := range hosts {
		host := r.RegistryStr()
		if host == name.DefaultRegistry {
			host = "docker.io"
		}
		prefix := strings.Map(func(c rune) rune {
			if c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' {
				return c
			}
			return '_'
		}, strings.ToUpper(host))
		out = append(out, prefix+"_USERNAME", prefix+"_PASSWORD")
	}
	return out
}

// published are the repositories that a release goes to when none is named.
var published = []string{"docker.io/camllia/derper", "ghcr.io/xavieralpha/derper"}

// registries are those that the arguments for build name.
func registries(o *options) []name.Registry {
	var out []name.Registry
	seen := map[string]bool{}
	add := func(s string) {
		ref, err := name.ParseReference(strings.TrimPrefix(s, "http://"))
		if err == nil && !seen[ref.Context().RegistryStr()] {
			seen[ref.Context().RegistryStr()] = true
			out = append(out, ref.Context().Registry)
		}
	}
	for _, arg := range o.passed {
		if _, value, ok := strings.Cut(arg, "="); ok {
			arg = value
		}
		if strings.Contains(arg, "/") {
			add(arg)
		}
	}
	if len(out) == 0 && o.command == "release" {
		for _, s := range published {
			add(s)
		}
	}
	return out
}

// dockerConfig is the content of a config.json with what the keychain has for the
// registries, "" if it has nothing. Credential helpers have been asked by then: there
// is none in a container.
func dockerConfig(keychain authn.Keychain, registries []name.Registry) (string, error) {
	auths := map[string]authn.AuthConfig{}
	for _, r := range registries {
		a, err := keychain.Resolve(r)
		if err != nil {
			return "", fmt.Errorf("credentials for %s: %w", r, err)
		}
		if a == authn.Anonymous {
			continue
		}
		config, err := a.Authorization()
		if err != nil {
			return "", fmt.Errorf("credentials for %s: %w", r, err)
		}
		key := r.RegistryStr()
		if key == name.DefaultRegistry {
			key = authn.DefaultAuthKey
		}
		auths[key] = *config
	}
	if len(auths) == 0 {
		return "", nil
	}
	data, err := json.Marshal(map[string]any{"auths": auths})
	return string(data), err
}
