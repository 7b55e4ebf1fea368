package release

import (
	"cmp"
	"fmt"
	"io"
	"slices"
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
	Version string // as 1.102.3-r1
	// Tailscale is upstream's version, as v1.102.3.
	Tailscale string
	Commit    string // upstream's, 40 hex digits
	Go        string // as go1.26.8
	Roots     string // a module version
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
		Version: a[image.LabelVersion],
		Commit:  a[image.LabelCommit],
		Go:      a[image.LabelGo],
		Roots:   a[image.LabelRoots],
	}
	if v, err := lock.ParseImageVersion(d.Version); err == nil {
		d.Tailscale = v.Tailscale
	}
	for _, desc := range manifest.Manifests {
		if desc.Platform == nil || !desc.MediaType.IsImage() {
			continue
		}
		img, err := index.Image(desc.Digest)
		var m *v1.Manifest
		if err == nil {
			m, err = img.Manifest()
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", desc.Digest, err)
		}
		size := m.Config.Size
		for _, l := range m.Layers {
			size += l.Size
		}
		d.Platforms = append(d.Platforms, Size{Platform: image.PlatformOf(*desc.Platform), Manifest: desc.Digest.String(), Bytes: size})
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

// Write writes the notes in Markdown. The same notes give the same bytes.
func (n *Notes) Write(w io.Writer) error {
	return notesTemplate.Execute(w, n)
}

// Inputs are what the image is made of: what it is, what that was until now, and what it
// is now.
func (n *Notes) Inputs() [][3]string {
	old, now := cmp.Or(n.Before, &Image{}), n.Image
	return [][3]string{
		{"image", old.Version, now.Version}, {"tailscale", old.Tailscale, now.Tailscale}, {"commit", "", now.Commit}, {"Go", old.Go, now.Go},
		{"CA roots", old.Roots, now.Roots}, {"index", "", now.Digest},
	}
}

// Change is how the size of a platform has changed, as "+0.1 MB".
func (n *Notes) Change(now Size) string {
	i := slices.IndexFunc(n.Before.Platforms, func(old Size) bool { return old.Platform == now.Platform })
	if i < 0 {
		return "new"
	}
	return progress.Growth(now.Bytes, n.Before.Platforms[i].Bytes)
}

// Gone are platforms that Before had.
func (n *Notes) Gone() []Size {
	return slices.DeleteFunc(slices.Clone(cmp.Or(n.Before, &Image{}).Platforms), func(old Size) bool {
		return slices.ContainsFunc(n.Image.Platforms, func(now Size) bool { return now.Platform == old.Platform })
	})
}

// Compare is a link to what upstream changed, "" when it changed nothing.
func (n *Notes) Compare() string {
	if n.Before == nil || n.Before.Tailscale == n.Image.Tailscale || n.Before.Tailscale == "" {
		return ""
	}
	return "https://github.com/tailscale/tailscale/compare/" + n.Before.Tailscale + "..." + n.Image.Tailscale
}

var notesTemplate = template.Must(template.New("notes").Funcs(template.FuncMap{"size": progress.Bytes}).Parse(
	`# derper {{.Image.Version}}

| | |
|---|---|
{{range .Inputs}}| {{index . 0}} | {{if and (index . 1) (ne (index . 1) (index . 2))}}` + "`{{index . 1}}` → {{end}}`{{index . 2}}`" + ` |
{{end}}{{with .Compare}}
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
{{range .Image.Platforms}}| {{.Platform}} | {{size .Bytes}} |{{if $.Before}} {{$.Change .}} |{{end}} ` + "`{{.Manifest}}`" + ` |
{{end}}{{range .Gone}}
No longer there: {{.Platform}}
{{end}}
## Verify

Build it yourself and compare:

` + "```sh" + `
go run github.com/xavieralpha/derper/cmd/build@main verify {{index .Repositories 0}}@{{.Image.Digest}}
` + "```" + `
{{if .Verify}}
Who made it, and of what:

` + "```sh" + `
{{range .Verify}}{{.}}
{{end}}` + "```" + `
{{end}}`))
