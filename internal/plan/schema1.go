package plan

import "github.com/xavieralpha/derper/internal/lock"

// What of its own code the last program of lock schema 1 wrote into provenance, by digest.
// It made the image of v1.102.3, whose index has that provenance: to verify it, it has to
// be stated again. A lock with another image has none of this.
const (
	schema1Generator  = "sha256:74bce6aa577788ac6e98c2dda494c8344046b9f75830a54b575d0a38359a5ef9"
	schema1Entrypoint = "sha256:3af914e1ced41818ab6dd58c4e72ae009a4a6a2aac999fb87c54133dc98f27cb"
	schema1Etc        = "sha256:e18b8e81053a5ee8796b2ad3f8263ed72ffad13fc664ec3eafc3a9b00e25c16a"
	schema1Licence    = "sha256:65c2761d0fa47b358f7883c8bff43da4d704541b0a7ed2a83705af345f4d8c9f"
	schema1Encoder    = "sha256:03c114847546c130f0f021a03dbd582fa2ec9b824078f60fbcbccdf30b2eacb5"
	schema1Statements = "sha256:f2d345aae011927ea36dac8cf4cbb853c6d215852ad4479817c32375e50cef79"
)

// Schema1 are the actions of an image of format 1, with the inputs that they had, and so
// with the keys that stand in its provenance. Nothing is looked up under these keys.
func Schema1(in lock.Inputs, platforms []lock.Platform, host string) ([]*Action, error) {
	p, err := build(in, nil, platforms, host)
	if err != nil {
		return nil, err
	}
	with := func(a *Action, inputs map[string]string) {
		if a.Args != nil {
			inputs[in.Go.Module(host).String()] = in.Go.Sums[host]
		}
		a.Inputs = inputs
	}
	with(p.Roots, map[string]string{lock.RootsModule + "@" + in.Roots.Version: in.Roots.Sum, "generator": schema1Generator})
	for _, pp := range p.Platforms {
		compile := pp.Compile[0] // both programs
		compile.Name = ""
		with(compile, map[string]string{lock.TailscaleModule + "@" + in.Tailscale.Version: in.Tailscale.Sum})
		with(pp.Entrypoint, map[string]string{"source": schema1Entrypoint})
		attested := in
		attested.Platforms = []lock.Platform{pp.Platform}
		statements := map[string]string{"statements": schema1Statements, "lock": digestOf(attested.Schema1())}
		for _, l := range pp.Layers {
			inputs := map[string]string{"format": "1", "encoder": schema1Encoder, "time": l.Inputs["time"]}
			switch l.Name {
			case Base:
				inputs["roots"], inputs["programs"] = p.Roots.Result(), compile.Result()
				inputs["etc"], inputs["licence"] = schema1Etc, schema1Licence
			case Entrypoint:
				inputs[Entrypoint] = pp.Entrypoint.Result()
			default:
				inputs[l.Name] = compile.Result()
			}
			with(l, inputs)
			statements["layer "+l.Name] = l.Result()
		}
		with(pp.Attestation, statements)
	}
	return p.Actions(), nil
}
