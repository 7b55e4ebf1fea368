package hostile

import (
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/testing/imagetest"
)

// Claims are attacks with an image that says that it was made of something else. Each is
// one image without an index.
var Claims = []Attack{
	claim("no version", image.LabelVersion, ""),
	claim("a version that is none", image.LabelVersion, "latest"),
	claim("a version that is a branch", image.LabelVersion, "main"),
	claim("a version that is a path", image.LabelVersion, "../../x/1.102.3-r1"),
	claim("a version that is a commit", image.LabelVersion, "v0.0.0-20260901000000-0123456789ab"),
	claim("a version with an escape", image.LabelVersion, "1.102.3-r1\x1b[2J"),
	claim("a version of another release", image.LabelVersion, "1.0.1"),
	claim("a version of an older release", image.LabelVersion, "1.100.0-r0"),
	claim("a version of a later revision", image.LabelVersion, "1.102.3-r9").harmless("a revision is a number: the image is what the inputs give with it"),
	claim("a format of a later program", image.LabelFormat, "99"),
	claim("a format that is no number", image.LabelFormat, "2\x1b[2J"),
	claim("a release that the checksum database does not know", image.LabelTailscale, "v1.99.99"),
	claim("a release that is a path", image.LabelTailscale, "v../../x\x1b"),
	claim("a release that is a branch", image.LabelTailscale, "main"),
	claim("a commit that is no release", image.LabelTailscale, "v1.102.4-0.20260901000000-0123456789ab"),
	claim("a release that is not ready", image.LabelTailscale, "v1.102.3-pre"),
	claim("another release than the version", image.LabelTailscale, "v1.102.2"),
	claim("a commit that is none", image.LabelCommit, "abc"),
	claim("another commit", image.LabelCommit, "0123456789012345678901234567890123456789"),
	claim("a time that is none", image.LabelCreated, "yesterday"),
	claim("another time of the commit", image.LabelCreated, "2001-09-09T01:46:40Z"),
	claim("a Go that is none", image.LabelGo, "go1.26.8; evil"),
	claim("a Go that nobody knows", image.LabelGo, "go1.99.99"),
	claim("roots that nobody knows", image.LabelRoots, "v0.0.0-20990101000000-0123456789ab"),
	claim("roots that are a path", image.LabelRoots, "v0.0.0/../../evil"),
	claim("a program from elsewhere", image.LabelPrograms, `[{"package":"example.com/derper"},{"package":"tailscale.com/cmd/tailscaled"}]`),
	claim("a program that is a path", image.LabelPrograms, `[{"package":"tailscale.com/../../evil/derper"}]`),
	claim("a program of the same name", image.LabelPrograms, `[{"package":"tailscale.com/other/derper"},{"package":"tailscale.com/cmd/tailscaled"}]`),
	claim("a program with flags for a tag", image.LabelPrograms, `[{"package":"tailscale.com/cmd/derper","buildTags":["a -toolexec=evil"]},{"package":"tailscale.com/cmd/tailscaled"}]`),
	claim("no programs", image.LabelPrograms, `[]`),
	claim("a variant that is no JSON", image.LabelVariant, "{"),
	claim("a variant twice in its JSON", image.LabelVariant, `{"name":"default","name":"evil","programs":["tailscaled","derper"]}`),
	claim("a variant with a file of its own", image.LabelVariant, `{"name":"default","programs":["tailscaled","derper"],"files":[{"path":"etc/evil","mode":"0644","text":"evil"}]}`),
	claim("a variant with a file that hides a program", image.LabelVariant, `{"name":"default","programs":["tailscaled","derper"],"files":[{"path":"entrypoint","mode":"0755","text":"evil"}]}`),
	claim("a variant with a user", image.LabelVariant, `{"name":"default","programs":["tailscaled","derper"],"user":"65532"}`),
	claim("a source that is none", image.LabelSource, "evil\x1b[2J"),
}

// claim is an attack with another label of an image, and the same annotation.
func claim(name, label, value string) Attack {
	return Attack{Name: name, Make: func(t testing.TB, g *Good) *Content {
		value := strings.ReplaceAll(value, "1.102.3", g.Inputs.Tailscale.Short())
		c := g.Content.Clone()
		d := c.PutImage(t, imagetest.Edit(t, g.Images[0], func(c *image.ConfigFile, m *v1.Manifest) {
			c.Config.Labels[label], m.Annotations[label] = value, value
			if value == "" {
				delete(c.Config.Labels, label)
				delete(m.Annotations, label)
			}
		}))
		d.MediaType = types.OCIManifestSchema1
		c.Top = IndexJSON(t, d)
		return c
	}}
}

// Revision is an attack with an image whose entrypoint is of another revision of this project,
// which it claims to be of.
func Revision(name string, revision int) Attack {
	return Attack{Name: name, Make: func(t testing.TB, g *Good) *Content {
		version := lock.ImageVersion{Tailscale: g.Inputs.Tailscale.Version, Revision: revision}.String()
		other := g.Edit(t, "entrypoint", Replace("entrypoint", func(b []byte) []byte { return append(b, 0) }))
		c := g.Content.Clone()
		d := c.PutImage(t, imagetest.Edit(t, other, func(c *image.ConfigFile, m *v1.Manifest) {
			c.Config.Labels[image.LabelVersion], m.Annotations[image.LabelVersion] = version, version
		}))
		d.MediaType = types.OCIManifestSchema1
		c.Top = IndexJSON(t, d)
		return c
	}}
}
