package hostile

import (
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/testing/imagetest"
)

// Configs are attacks on how a container starts.
var Configs = []Attack{
	config("an environment variable", func(c *image.ConfigFile) { c.Config.Env[0] = "PATH=/evil" }),
	config("an added variable", func(c *image.ConfigFile) { c.Config.Env = append(c.Config.Env, "LD_PRELOAD=/evil.so") }),
	config("a field that go-containerregistry's type lacks", func(c *image.ConfigFile) { c.Config.Healthcheck.StartInterval = 0 }),
	config("another health check", func(c *image.ConfigFile) { c.Config.Healthcheck.Test = []string{"NONE"} }),
	config("a label", func(c *image.ConfigFile) { c.Config.Labels["org.opencontainers.image.licenses"] = "none" }),
	config("another entrypoint of the container", func(c *image.ConfigFile) { c.Config.Entrypoint = []string{"/usr/local/bin/derper"} }),
	config("a command", func(c *image.ConfigFile) { c.Config.Cmd = []string{"-verify-clients=false"} }),
	config("another user", func(c *image.ConfigFile) { c.Config.User = "0:0" }),
	config("another working folder", func(c *image.ConfigFile) { c.Config.WorkingDir = "/tmp" }),
	config("an added port", func(c *image.ConfigFile) { c.Config.ExposedPorts = map[string]struct{}{"22/tcp": {}} }),
	config("a volume", func(c *image.ConfigFile) { c.Config.Volumes = map[string]struct{}{"/usr/local/bin": {}} }),
	config("another stop signal", func(c *image.ConfigFile) { c.Config.StopSignal = "SIGKILL" }),
	config("another time of creation", func(c *image.ConfigFile) { c.Created = v1.Time{Time: time.Unix(1e9, 0).UTC()} }),
	config("an author", func(c *image.ConfigFile) { c.Author = "\x1b[2Jeve" }),
	config("another history", func(c *image.ConfigFile) { c.History[0].CreatedBy = "evil" }),
	config("a config that claims another platform", func(c *image.ConfigFile) { c.Architecture = "arm64" }),
	config("a config that claims another system", func(c *image.ConfigFile) { c.OS = "windows" }),
	config("a DiffID of another tar", func(c *image.ConfigFile) { c.RootFS.DiffIDs[2] = c.RootFS.DiffIDs[1] }),
	config("fewer DiffIDs than layers", func(c *image.ConfigFile) { c.RootFS.DiffIDs = c.RootFS.DiffIDs[:3] }),
	rawConfig("a key of a config twice", func(t testing.TB) func([]byte) []byte {
		return inserted(t, `"config":{`, `"User":"0:0","User":"",`)
	}),
	rawConfig("an unknown key in a config", func(t testing.TB) func([]byte) []byte {
		return inserted(t, `"config":{`, `"OnBuild":["RUN evil"],`)
	}),
	rawConfig("a key of a config in capitals", func(t testing.TB) func([]byte) []byte {
		return inserted(t, `"config":{`, `"USER":"0:0",`)
	}),
	rawConfig("bytes behind a config", func(testing.TB) func([]byte) []byte { return behind(`{"config":{"User":"0"}}`) }),
	rawConfig("a config written in another way", func(testing.TB) func([]byte) []byte { return behind("\n") }),
	rawConfig("no config", func(testing.TB) func([]byte) []byte { return func([]byte) []byte { return nil } }),
	rawConfig("a config that is no JSON", func(testing.TB) func([]byte) []byte {
		return func([]byte) []byte { return []byte("evil\x1b[2J") }
	}),
	rawConfig("a config that is nested 100,000 deep", func(testing.TB) func([]byte) []byte {
		return func([]byte) []byte { return []byte(strings.Repeat("[", 100_000)) }
	}),
	rawConfig("a config of 2 MiB", func(testing.TB) func([]byte) []byte { return behind(strings.Repeat(" ", 2<<20)) }),
}

func config(name string, change func(*image.ConfigFile)) Attack {
	return Attack{Name: name, Make: func(t testing.TB, g *Good) *Content {
		return g.With(t, imagetest.Config(t, g.Images[0], change))
	}}
}

func rawConfig(name string, change func(testing.TB) func([]byte) []byte) Attack {
	return Attack{Name: name, Make: func(t testing.TB, g *Good) *Content { return g.Content.Clone().Config(t, change(t)) }}
}
