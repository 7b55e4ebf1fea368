package release

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"text/template"
	"time"

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
		if !image.OfPlatform(desc) {
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
	// Variants are what is released, the default variant first.
	Variants []Variant
	// Repositories are where it is, the one to verify first.
	Repositories []string
	// Changes are more lines on what changed, as derper's flags.
	Changes []string
	// Known is what is known of vulnerabilities; nil for nothing.
	Known *Known
	// Verify has commands that check signature and attestations; may be empty.
	Verify []string
	// Rebuilders is how many rebuilders are known; Confirmed, by variant, are the names of
	// those who attest that they rebuilt the image.
	Rebuilders int
	Confirmed  map[string][]string
}

// A Variant is what the notes are about a variant.
type Variant struct {
	Name string
	// Image is what is released, Before what the moving tag named until now; nil when nothing
	// was published.
	Image, Before *Image
	// Tags are its names, first the one that stays.
	Tags []string
}

// Write writes the notes in Markdown. The same notes give the same bytes.
func (n *Notes) Write(w io.Writer) error {
	return notesTemplate.Execute(w, n)
}

// Alone reports whether nobody but those who release it has attested a rebuild.
func (n *Notes) Alone() bool {
	for _, names := range n.Confirmed {
		if len(names) > 0 {
			return false
		}
	}
	return true
}

// Default is the first variant. All variants are made of the same inputs.
func (n *Notes) Default() Variant { return n.Variants[0] }

// Inputs are what the images are made of: what it is, what that was until now, and what it
// is now.
func (n *Notes) Inputs() [][3]string {
	old, now := cmp.Or(n.Default().Before, &Image{}), n.Default().Image
	return [][3]string{
		{"image", old.Version, now.Version}, {"tailscale", old.Tailscale, now.Tailscale}, {"commit", "", now.Commit}, {"Go", old.Go, now.Go},
		{"CA roots", old.Roots, now.Roots},
	}
}

// Change is how the size of a platform has changed, as "+0.1 MB".
func (v Variant) Change(now Size) string {
	i := slices.IndexFunc(v.Before.Platforms, func(old Size) bool { return old.Platform == now.Platform })
	if i < 0 {
		return "new"
	}
	return progress.Growth(now.Bytes, v.Before.Platforms[i].Bytes)
}

// Gone are platforms that Before had.
func (v Variant) Gone() []Size {
	return slices.DeleteFunc(slices.Clone(cmp.Or(v.Before, &Image{}).Platforms), func(old Size) bool {
		return slices.ContainsFunc(v.Image.Platforms, func(now Size) bool { return now.Platform == old.Platform })
	})
}

// Compare is a link to what upstream changed, "" when it changed nothing.
func (n *Notes) Compare() string {
	old, now := n.Default().Before, n.Default().Image
	if old == nil || old.Tailscale == now.Tailscale || old.Tailscale == "" {
		return ""
	}
	return "https://github.com/tailscale/tailscale/compare/" + old.Tailscale + "..." + now.Tailscale
}

var notesTemplate = template.Must(template.New("notes").Funcs(template.FuncMap{"size": progress.Bytes, "date": func(t time.Time) string { return t.Format(time.DateOnly) }}).Parse(
	`# derper {{.Default.Image.Version}}

| | |
|---|---|
{{range .Inputs}}| {{index . 0}} | {{if and (index . 1) (ne (index . 1) (index . 2))}}` + "`{{index . 1}}` → {{end}}`{{index . 2}}`" + ` |
{{end}}{{with .Compare}}
What upstream changed: {{.}}
{{end}}{{range .Changes}}
- {{.}}{{end}}{{if .Changes}}
{{end}}
{{range .Variants}}{{$v := .}}## {{.Name}}

Index ` + "`{{.Image.Digest}}`" + `, tags {{range $i, $tag := .Tags}}{{if $i}}, {{end}}` + "`{{$tag}}`" + `{{end}}

` + "```sh" + `
{{range $.Repositories}}docker pull {{.}}:{{index $v.Tags 0}}
{{end}}` + "```" + `

| platform | pull |{{if .Before}} change |{{end}} manifest |
|---|---|{{if .Before}}---|{{end}}---|
{{range .Image.Platforms}}| {{.Platform}} | {{size .Bytes}} |{{if $v.Before}} {{$v.Change .}} |{{end}} ` + "`{{.Manifest}}`" + ` |
{{end}}{{range .Gone}}
No longer there: {{.Platform}}
{{end}}{{with $.Rebuilders}}{{$by := index $.Confirmed $v.Name}}
{{len $by}} of {{.}} known rebuilders confirmed this image{{range $i, $name := $by}}{{if $i}},{{else}}:{{end}} {{$name}}{{end}}.
{{end}}
{{end}}{{with .Known}}## Known vulnerabilities

Fixable findings: {{.Fixable}}. {{if .Affected}}As of {{date .Database}}, these are in code that a program calls:

| advisory | module | healed by |{{if .SomeVariants}} variants |{{end}}
|---|---|---|{{if .SomeVariants}}---|{{end}}
{{range .Affected}}| [{{.ID}}](https://pkg.go.dev/vuln/{{.ID}}){{with .Alias}}, {{.}}{{end}} | ` + "`{{.Module}} {{.Version}}`" + ` | {{.HealedBy}} |{{if $.Known.SomeVariants}} {{range $i, $v := .Variants}}{{if $i}}, {{end}}{{$v}}{{end}} |{{end}}
{{end}}{{else}}As of {{date .Database}}, no program calls code of which a vulnerability is known.
{{end}}
{{end}}## Verify

Build it yourself and compare:

` + "```sh" + `
{{range .Variants}}go run github.com/xavieralpha/derper/cmd/build@main verify {{index $.Repositories 0}}@{{.Image.Digest}}
{{end}}` + "```" + `
{{if .Alone}}
Nobody else has confirmed it yet. How to: https://github.com/xavieralpha/derper/blob/main/docs/rebuilders.md
{{end}}{{if .Verify}}
Who made it, and of what:

` + "```sh" + `
{{range .Verify}}{{.}}
{{end}}` + "```" + `
{{end}}`))
