package lock

import (
	"errors"
	"testing"
)

func TestCompareEqual(t *testing.T) {
	if err := sample().Compare(Default, sample().Output()); err != nil {
		t.Errorf("equal outputs: %v", err)
	}
	// An image says nothing of the sizes of its layers.
	unsized := sample().Output()
	unsized.Platforms[0].Layers[1].Bytes, unsized.Platforms[0].Layers[1].OnDisk = 0, 0
	if err := sample().Compare(Default, unsized); err != nil {
		t.Errorf("without sizes: %v", err)
	}
	// A build of some platforms has another index, which says nothing.
	for i := range 2 {
		part := &Output{Index: digest("9"), Platforms: sample().Output().Platforms[i : i+1]}
		if err := sample().Compare(Default, part); err != nil {
			t.Errorf("platform %d alone: %v", i, err)
		}
	}
}

func TestCompareNothingRecorded(t *testing.T) {
	l := sample()
	l.Outputs = nil
	if err := l.Compare(Default, sample().Output()); !errors.Is(err, ErrNoOutputs) {
		t.Errorf("%v, not ErrNoOutputs", err)
	}
}

// A difference inside moves everything around it. What is reported is the
// innermost, so that it leads to the cause.
func TestCompareFromTheInsideOut(t *testing.T) {
	// Each step changes one more thing, outermost first.
	steps := []struct {
		change func(*Output)
		want   Difference
	}{
		{func(o *Output) { o.Index = digest("0") },
			Difference{"index", digest("f"), digest("0")}},
		{func(o *Output) { o.Platforms[0].Attestation = digest("0") },
			Difference{"linux/amd64: attestation", digest("7"), digest("0")}},
		{func(o *Output) { o.Platforms[0].Manifest = digest("0") },
			Difference{"linux/amd64: manifest", digest("6"), digest("0")}},
		{func(o *Output) { o.Platforms[0].Config = digest("0") },
			Difference{"linux/amd64: config", digest("5"), digest("0")}},
		{func(o *Output) { o.Platforms[0].Layers[1].OnDisk = 201 },
			Difference{"linux/amd64: sizes of layer derper", "100 bytes, 200 on disk", "100 bytes, 201 on disk"}},
		{func(o *Output) { o.Platforms[0].Layers[1].Digest = digest("0") },
			Difference{"linux/amd64: compression of layer derper", digest("4"), digest("0")}},
		{func(o *Output) { o.Platforms[0].Layers[1].DiffID = digest("0") },
			Difference{"linux/amd64: content of layer derper", digest("3"), digest("0")}},
		{func(o *Output) { o.Platforms[0].Binaries[1].Digest = digest("0") },
			Difference{"linux/amd64: binary tailscaled", digest("b"), digest("0")}},
		{func(o *Output) { o.Platforms[0].Binaries[0].Digest = digest("0") },
			Difference{"linux/amd64: binary derper", digest("a"), digest("0")}},
	}
	built := sample().Output()
	for _, step := range steps {
		step.change(built)
		compareWants(t, built, step.want)
	}
}

func TestCompareMissingAndAdded(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*Output)
		want   Difference
	}{
		"platform added": {
			func(o *Output) { o.Platforms[1].Platform = "linux/386" },
			Difference{"linux/386", "no such platform", digest("6")}},
		"second platform": {
			func(o *Output) { o.Platforms[1].Config = digest("0") },
			Difference{"linux/arm/v7: config", digest("5"), digest("0")}},
		"binary added": {
			func(o *Output) {
				o.Platforms[0].Binaries = append(o.Platforms[0].Binaries, Binary{"tailscale", digest("0")})
			},
			Difference{"linux/amd64: name of binary 3", "none", "tailscale"}},
		"binary gone": {
			func(o *Output) { o.Platforms[0].Binaries = o.Platforms[0].Binaries[:1] },
			Difference{"linux/amd64: name of binary 2", "tailscaled", "none"}},
		"layer gone": {
			func(o *Output) { o.Platforms[0].Layers = o.Platforms[0].Layers[:1] },
			Difference{"linux/amd64: name of layer 2", "derper", "none"}},
		"layers change places": {
			func(o *Output) {
				layers := o.Platforms[0].Layers
				layers[0], layers[1] = layers[1], layers[0]
			},
			Difference{"linux/amd64: name of layer 1", "base", "derper"}},
		"platforms change places": {
			func(o *Output) {
				o.Platforms[0], o.Platforms[1] = o.Platforms[1], o.Platforms[0]
				o.Index = digest("0")
			},
			Difference{"index", digest("f"), digest("0")}},
	} {
		t.Run(name, func(t *testing.T) {
			built := sample().Output()
			test.change(built)
			compareWants(t, built, test.want)
		})
	}
}

func compareWants(t *testing.T, built *Output, want Difference) {
	t.Helper()
	err := sample().Compare(Default, built)
	var got *Difference
	if !errors.As(err, &got) {
		t.Fatalf("%v, not a Difference: want %v", err, &want)
	}
	if *got != want {
		t.Errorf("%v\nnot %v", got, &want)
	}
}
