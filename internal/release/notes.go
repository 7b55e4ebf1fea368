package release

import (
	"fmt"
	"io"
	"strings"
	"text/template"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/progress"
)

// An Image is a multi-arch image as its index and manifests describe it: in a
// layout, or as a registry serves it.
type Image struct {
	Digest  string
	Version string // as 1.102.3
	Commit  string // upstream's, 40 hex digits
	Go      string // as go1.26.8
	Roots   string // a module version
	// Platforms are in the index's order.
	Platforms []Size
}

// A Size is what a pull of one platform transfers.
type Size struct {
	Platform lock.Platform
	Manifest string // digest
	Bytes    int64
}

// Describe reads what the notes say of an image. It reads manifests, but no layer.
func Describe(index v1.ImageIndex) (*Image, error) {
	digest, err := index.Digest()
	if err != nil {
		return nil, err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	a := manifest.Annotations
	d := &Image{
		Digest:  digest.String(),
		Version: a["org.opencontainers.image.version"],
		Commit:  a["org.opencontainers.image.revision"],
		Go:      a[image.Prefix+"go"],
		Roots:   a[image.Prefix+"roots"],
	}
	for _, desc := range manifest.Manifests {
		if desc.Platform == nil || !desc.MediaType.IsImage() {
			continue
		}
		img, err := index.Image(desc.Digest)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", desc.Digest, err)
		}
		m, err := img.Manifest()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", desc.Digest, err)
		}
		size := m.Config.Size
		for _, l := range m.Layers {
			size += l.Size
		}
		p := desc.Platform
		name := strings.TrimSuffix(strings.Join([]string{p.OS, p.Architecture, p.Variant}, "/"), "/")
		d.Platforms = append(d.Platforms, Size{Platform: lock.Platform(name), Manifest: desc.Digest.String(), Bytes: size})
	}
	return d, nil
}

// Notes is what a release's notes are made of.
type Notes struct {
	// Image is what is released, Before what the moving tag named until now; nil
	// when nothing was published.
	Image, Before *Image
	// Repositories are where it is, the one to verify first.
	Repositories []string
	// Tags are its names there.
	Tags []string
	// Changes are more lines on what changed, as derper's flags.
	Changes []string
	// Verify has commands that check signature and attestations; may be empty.
	Verify []string
}

// Upstream is where upstream's revisions are compared.
const Upstream = "https://github.com/tailscale/tailscale"

// Write writes the notes in Markdown. The same notes give the same bytes.
func (n *Notes) Write(w io.Writer) error {
	return notesTemplate.Execute(w, n)
}

// Rows are the platforms with the change of their size, as "+0.1 MB", "" for none.
func (n *Notes) Rows() (rows []struct {
	Size
	Change string
}) {
	for _, p := range n.Image.Platforms {
		change := "new"
		if n.Before == nil {
			change = ""
		} else {
			for _, b := range n.Before.Platforms {
				if b.Platform == p.Platform {
					change = difference(p.Bytes - b.Bytes)
				}
			}
		}
		rows = append(rows, struct {
			Size
			Change string
		}{p, change})
	}
	return rows
}

func difference(bytes int64) string {
	switch {
	case bytes > 0:
		return "+" + progress.Bytes(bytes)
	case bytes < 0:
		return "−" + progress.Bytes(-bytes)
	}
	return "±0"
}

// Gone are platforms that Before had.
func (n *Notes) Gone() (gone []lock.Platform) {
	if n.Before == nil {
		return nil
	}
	here := map[lock.Platform]bool{}
	for _, p := range n.Image.Platforms {
		here[p.Platform] = true
	}
	for _, p := range n.Before.Platforms {
		if !here[p.Platform] {
			gone = append(gone, p.Platform)
		}
	}
	return gone
}

// From is the input's version before, and an arrow, when it was another.
func (n *Notes) From(what string) string {
	if n.Before == nil {
		return ""
	}
	old, now := n.Before.field(what), n.Image.field(what)
	if old == now || old == "" {
		return ""
	}
	return "`" + old + "` → "
}

func (i *Image) field(what string) string {
	return map[string]string{"tailscale": i.Version, "commit": i.Commit, "go": i.Go, "roots": i.Roots}[what]
}

// Compare is a link to what upstream changed, "" when it changed nothing.
func (n *Notes) Compare() string {
	if n.Before == nil || n.Before.Version == n.Image.Version || n.Before.Version == "" {
		return ""
	}
	return Upstream + "/compare/v" + n.Before.Version + "...v" + n.Image.Version
}

var notesTemplate = template.Must(template.New("notes").Funcs(template.FuncMap{"size": progress.Bytes, "join": strings.Join}).Parse(
	`# derper {{.Image.Version}}

| | |
|---|---|
| tailscale | {{.From "tailscale"}}` + "`{{.Image.Version}}`" + ` |
| commit | ` + "`{{.Image.Commit}}`" + ` |
| Go | {{.From "go"}}` + "`{{.Image.Go}}`" + ` |
| CA roots | {{.From "roots"}}` + "`{{.Image.Roots}}`" + ` |
| index | ` + "`{{.Image.Digest}}`" + ` |
{{with .Compare}}
What upstream changed: {{.}}
{{end}}{{range .Changes}}
- {{.}}{{end}}{{if .Changes}}
{{end}}
## Where

{{range $repo := .Repositories}}- ` + "`{{$repo}}`" + `: {{range $i, $tag := $.Tags}}{{if $i}}, {{end}}` + "`{{$tag}}`" + `{{end}}
{{end}}
## Platforms

| platform | pull |{{if .Before}} change |{{end}} manifest |
|---|---|{{if .Before}}---|{{end}}---|
{{range .Rows}}| {{.Platform}} | {{size .Bytes}} |{{if $.Before}} {{.Change}} |{{end}} ` + "`{{.Manifest}}`" + ` |
{{end}}{{range .Gone}}
No longer there: {{.}}
{{end}}
## Verify

Build it yourself and compare:

` + "```sh" + `
go run github.com/xavieralpha/derper/cmd/build@latest verify {{index .Repositories 0}}@{{.Image.Digest}}
` + "```" + `
{{if .Verify}}
Who made it, and of what:

` + "```sh" + `
{{range .Verify}}{{.}}
{{end}}` + "```" + `
{{end}}`))
