// Package attesttest makes a small image to attest, for tests.
package attesttest

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper"
	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/image"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/plan"
)

// H1 is a sum that nothing has.
func H1(seed string) string {
	sum := sha256.Sum256([]byte(seed))
	return "h1:" + base64.StdEncoding.EncodeToString(sum[:])
}

// Other is a variant that no lock has, of parts that the default one has, too.
func Other() lock.Variant {
	return lock.Variant{
		Name: "other", Programs: []string{plan.Tailscaled, plan.Derper}, Suffix: "-other", User: "4711:4711",
		Files: []lock.Entry{{Path: "srv/", Mode: "0700", Owner: 4711}},
	}
}

// inputs are a lock's inputs that never change.
func inputs() lock.Inputs {
	in, _ := lock.Defaults().Of(lock.Default)
	in.Tailscale = lock.Tailscale{
		Version: "v1.2.3", Commit: strings.Repeat("0123456789", 4), Sum: H1("tailscale"),
		Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	in.Go = lock.Go{Version: "go1.99.1", Sums: map[string]string{}}
	in.Roots = lock.Module{Version: "v0.0.0-20260101000000-0123456789ab", Sum: H1("roots")}
	in.Platforms = []lock.Platform{"linux/amd64", "linux/arm/v7"}
	for _, host := range lock.Hosts {
		in.Go.Sums[host] = H1(host)
	}
	return in
}

// Build is a small image, made the way the pipeline makes one. Its programs are
// nothing but the build information that the linker would leave in them. Where change
// is not nil, it is applied to the files of each layer.
func Build(t testing.TB, change func(layer string, files []image.File) []image.File) attest.Build {
	t.Helper()
	return build(t, inputs(), change)
}

// BuildOf is Build of another variant, which has the programs of the default one. The lock
// has both.
func BuildOf(t testing.TB, v lock.Variant) attest.Build {
	t.Helper()
	in := inputs()
	in.Variants = append(in.Variants, v)
	of, err := in.Of(v.Name)
	if err != nil {
		t.Fatal(err)
	}
	b := build(t, of, nil)
	b.Lock.Inputs = in
	return b
}

func build(t testing.TB, in lock.Inputs, change func(layer string, files []image.File) []image.File) attest.Build {
	t.Helper()
	b := attest.Build{Lock: &lock.Lock{Schema: lock.SchemaVersion, Inputs: in}}
	tailscale := fmt.Sprintf("mod\t%s\t%s\t%s\n", lock.TailscaleModule, in.Tailscale.Version, in.Tailscale.Sum)
	dep := fmt.Sprintf("dep\texample.com/Dep\tv1.0.0+incompatible\t%s\n", H1("dep"))
	other := fmt.Sprintf("dep\texample.com/other\tv0.1.0\t%s\n", H1("other"))
	const licences = "usr/share/licenses/"
	files := map[string][]image.File{
		plan.Base: append(image.Etc(),
			image.Text("etc/ssl/certs/ca-certificates.crt", "the roots\n"), image.Text("usr/share/ca-certificates/left-out.txt", ""),
			image.Text(licences+lock.RootsModule+"@"+in.Roots.Version+"/LICENSE", BSD),
			image.Text(licences+derper.Module+"/LICENSE", BSD),
			image.Text(licences+in.Go.Version+"/LICENSE", BSD),
			image.Text(licences+in.Go.Version+"/PATENTS", "a grant\n"),
			image.Text(licences+"tailscale.com@v1.2.3/LICENSE", BSD),
			image.Text(licences+"tailscale.com@v1.2.3/taken/over/LICENSE.txt", MIT),
			image.Text(licences+"example.com/Dep@v1.0.0+incompatible/COPYING", MIT),
			image.Text(licences+"example.com/other@v0.1.0/LICENSE", "You may do as you please on Sundays.\n"),
		),
		plan.Tailscaled: {Program("usr/local/bin/tailscaled", in.Go.Version, "tailscale.com/cmd/tailscaled", tailscale+dep+other)},
		plan.Derper:     {Program("usr/local/bin/derper", in.Go.Version, "tailscale.com/cmd/derper", tailscale+dep)},
		plan.Entrypoint: {Program("entrypoint", in.Go.Version, derper.Module+"/entrypoint", "mod\t"+derper.Module+"\t(devel)\t\n")},
	}
	var err error
	if files[plan.Files], err = image.Entries(in.Variant().Files); err != nil {
		t.Fatal(err)
	}
	var images, attestations []v1.Image
	for _, p := range in.Platforms {
		var layers []*image.Layer
		for _, name := range plan.Layers(in) {
			list := files[name]
			if change != nil {
				list = change(name, list)
			}
			layers = append(layers, layer(t, name, list, in.Tailscale.Time))
		}
		img, err := image.New(in, p, layers)
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, img)
		if a := Attestation(t, in, p, img); a != nil {
			attestations = append(attestations, a)
		}
	}
	if b.Index, err = image.Index(in, in.Platforms, images, attestations...); err != nil {
		t.Fatal(err)
	}
	return b
}

// Attestation is what a build puts beside an image in the index, nil for an image that
// cannot be read as one.
func Attestation(t testing.TB, in lock.Inputs, p lock.Platform, img v1.Image) v1.Image {
	t.Helper()
	sbom, made, err := attest.Image(t.Context(), in, p, img)
	if err != nil {
		return nil
	}
	a, err := attest.Embed(attest.Bytes(sbom), attest.Bytes(made))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// Set is what is stated about a build's image.
func Set(t testing.TB, b attest.Build) *attest.Set {
	t.Helper()
	set, err := attest.Make(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func layer(t testing.TB, name string, files []image.File, mtime time.Time) *image.Layer {
	t.Helper()
	var b bytes.Buffer
	diffID, err := image.WriteLayer(&b, files, mtime)
	if err != nil {
		t.Fatal(err)
	}
	return &image.Layer{
		Layer: lock.Layer{Name: name, DiffID: diffID, Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(b.Bytes())), Bytes: int64(b.Len())},
		Open:  func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil },
	}
}

// Program is an executable file with build information: an ELF header, one segment,
// and in it what the linker writes. Source: debug/buildinfo.
func Program(name, goVersion, path, modules string) image.File {
	var blob bytes.Buffer
	blob.WriteString("\xff Go buildinf:\x08\x02")
	blob.Write(make([]byte, 16))
	for _, s := range []string{goVersion, "0123456789abcdef" + "path\t" + path + "\n" + modules + "fedcba9876543210"} {
		blob.Write(binary.AppendUvarint(nil, uint64(len(s))))
		blob.WriteString(s)
	}
	const header, at = 64 + 56, 4096
	var b bytes.Buffer
	b.WriteString("\x7fELF\x02\x01\x01")
	b.Write(make([]byte, 9))
	le := func(values ...any) {
		for _, v := range values {
			binary.Write(&b, binary.LittleEndian, v)
		}
	}
	le(uint16(2), uint16(62), uint32(1), uint64(at), uint64(64), uint64(0), uint32(0), uint16(64), uint16(56), uint16(1), uint16(0), uint16(0), uint16(0))
	le(uint32(1), uint32(6), uint64(at), uint64(at), uint64(at), uint64(blob.Len()), uint64(blob.Len()), uint64(4096))
	b.Write(make([]byte, at-header))
	b.Write(blob.Bytes())
	f := image.Text(name, b.String())
	f.Mode = 0o755
	return f
}

// BSD and MIT are texts of licences.
const BSD = `Copyright 2009 The Go Authors.

Redistribution and use in source and binary forms, with or without
modification, are permitted provided that the following conditions are
met:

   * Redistributions of source code must retain the above copyright
notice, this list of conditions and the following disclaimer.
   * Redistributions in binary form must reproduce the above
copyright notice, this list of conditions and the following disclaimer
in the documentation and/or other materials provided with the
distribution.
   * Neither the name of Google LLC nor the names of its
contributors may be used to endorse or promote products derived from
this software without specific prior written permission.

THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS
"AS IS" AND ANY EXPRESS OR IMPLIED WARRANTIES, INCLUDING, BUT NOT
LIMITED TO, THE IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR
A PARTICULAR PURPOSE ARE DISCLAIMED. IN NO EVENT SHALL THE COPYRIGHT
OWNER OR CONTRIBUTORS BE LIABLE FOR ANY DIRECT, INDIRECT, INCIDENTAL,
SPECIAL, EXEMPLARY, OR CONSEQUENTIAL DAMAGES (INCLUDING, BUT NOT
LIMITED TO, PROCUREMENT OF SUBSTITUTE GOODS OR SERVICES; LOSS OF USE,
DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER CAUSED AND ON ANY
THEORY OF LIABILITY, WHETHER IN CONTRACT, STRICT LIABILITY, OR TORT
(INCLUDING NEGLIGENCE OR OTHERWISE) ARISING IN ANY WAY OUT OF THE USE
OF THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE.
`

const MIT = `Copyright (c) 2020 Example

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
`
