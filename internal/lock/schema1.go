package lock

import (
	"fmt"
	"slices"
)

// Schema1 are the inputs as a lock of schema 1 had them. Provenance in the index of an
// image of format 1 has them in this form.
type Schema1 struct {
	Tailscale   Tailscale  `json:"tailscale"`
	Go          Go         `json:"go"`
	Roots       Module     `json:"roots"`
	Platforms   []Platform `json:"platforms"`
	LayerFormat int        `json:"layerFormat"`
}

// Schema1 are the inputs in the form of schema 1.
func (in Inputs) Schema1() Schema1 {
	return Schema1{in.Tailscale, in.Go, in.Roots, in.Platforms, in.Format}
}

// Format1 are the inputs of an image of format 1, without releases: those that every lock
// of schema 1 had, whatever [Defaults] are by now.
func Format1() Inputs {
	return Inputs{
		Source:    "https://github.com/xavieralpha/derper",
		Programs:  []Program{{Package: "tailscale.com/cmd/derper"}, {Package: "tailscale.com/cmd/tailscaled"}},
		Variants:  []Variant{{Name: Default, Programs: []string{"tailscaled", "derper"}}},
		Platforms: slices.Clone(Known),
		Format:    1,
	}
}

// parseSchema1 reads a lock of schema 1. What it has recorded counts as published, as
// revision 0: whoever pulled that release has this image.
func parseSchema1(data []byte) (*Lock, error) {
	var old struct {
		Schema    int      `json:"schema"`
		Inputs    Schema1  `json:"inputs"`
		Outputs   *Output  `json:"outputs,omitempty"`
		Withdrawn []string `json:"withdrawn,omitempty"`
	}
	if err := decode(data, &old); err != nil {
		return nil, err
	}
	if old.Inputs.LayerFormat != 1 {
		return nil, fmt.Errorf("key \"inputs.layerFormat\": is %d, a lock of schema 1 has 1", old.Inputs.LayerFormat)
	}
	l := &Lock{Schema: SchemaVersion, Inputs: Format1(), Withdrawn: old.Withdrawn}
	in := &l.Inputs
	in.Tailscale, in.Go, in.Roots, in.Platforms = old.Inputs.Tailscale, old.Inputs.Go, old.Inputs.Roots, old.Inputs.Platforms
	in.Variants[0].Budget = Defaults().Variants[0].Budget
	if old.Outputs != nil {
		l.Outputs = map[string]*Output{Default: old.Outputs}
		l.Published = &Published{Index: l.Indexes()}
	}
	return l, nil
}
