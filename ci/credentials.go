package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"dagger.io/dagger"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/xavieralpha/derper/internal/registry"
)

// secretsDir is where a container has its config.json of Docker's form, and the private
// key that signs.
const (
	secretsDir = "/secrets"
	keyFile    = secretsDir + "/key"
)

// signing are the variables from which build sign takes the key's password, the token
// of a workflow that signs without a key, and what the provenance says of it.
var signing = []string{
	"COSIGN_PASSWORD", "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
	"GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_SHA", "GITHUB_WORKFLOW_REF", "GITHUB_RUN_ID", "GITHUB_RUN_ATTEMPT",
}

// credentials gives a container the client's credentials for the registries that
// the arguments name, and no others. They are secrets of the engine's: it keeps them
// in memory, out of its cache and its logs.
func (e *engine) credentials(c *dagger.Container, s step) (*dagger.Container, error) {
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
	given := variables(hosts)
	if s.identity {
		for _, v := range signing {
			given[v] = v
		}
	}
	for _, inside := range slices.Sorted(maps.Keys(given)) {
		if _, ok := os.LookupEnv(given[inside]); ok {
			c = e.secretVariable(c, inside, given[inside])
		}
	}
	if s.identity && e.o.key != "" {
		c = c.WithMountedSecret(keyFile, e.client.SetSecret("key", e.o.key))
	}
	return c, nil
}

// variables are those in which build looks for credentials before it looks anywhere
// else: REGISTRY_EXAMPLE_COM_5000_USERNAME and the like. To each belongs the name that it
// has on this machine.
func variables(hosts []name.Registry) map[string]string {
	given := map[string]string{}
	for _, r := range hosts {
		insideUser, insidePassword := registry.Variables(familiar(r.RegistryStr()))
		for _, host := range outside(r.RegistryStr()) {
			user, password := registry.Variables(familiar(host))
			for inside, here := range map[string]string{insideUser: user, insidePassword: password} {
				if _, ok := os.LookupEnv(here); ok || given[inside] == "" {
					given[inside] = here
				}
			}
		}
	}
	return given
}

// familiar is the name of a registry as people write it.
func familiar(host string) string {
	if host == name.DefaultRegistry {
		return "docker.io"
	}
	return host
}

// registries are those of the references among the arguments for build.
func registries(o *options) []name.Registry {
	var out []name.Registry
	add := func(s string) string {
		ref, err := name.ParseReference(strings.TrimPrefix(s, "http://"))
		if err == nil && !slices.ContainsFunc(out, func(r name.Registry) bool { return r.RegistryStr() == ref.Context().RegistryStr() }) {
			out = append(out, ref.Context().Registry)
		}
		return s
	}
	o.eachReference(add)
	if len(out) == 0 && o.command == "release" {
		for _, s := range registry.Default {
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
		for _, host := range outside(r.RegistryStr()) {
			here, err := name.NewRegistry(host)
			if err != nil {
				return "", err
			}
			a, err := keychain.Resolve(here)
			if err == nil && a == authn.Anonymous {
				continue
			}
			var config *authn.AuthConfig
			if err == nil {
				config, err = a.Authorization()
			}
			if err != nil {
				return "", fmt.Errorf("credentials for %s: %w", here, err)
			}
			key := r.RegistryStr()
			if key == name.DefaultRegistry {
				key = authn.DefaultAuthKey
			}
			auths[key] = *config
			break
		}
	}
	if len(auths) == 0 {
		return "", nil
	}
	data, err := json.Marshal(map[string]any{"auths": auths})
	return string(data), err
}
