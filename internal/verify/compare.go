package verify

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/xavieralpha/derper/internal/plan"
	"github.com/xavieralpha/derper/internal/verify/diff"
)

// comparison compares one image with the rebuilt one.
type comparison struct {
	ctx       context.Context
	want, got *foundImage
	checks    []Check
	err       error // the first

	layerDiffers  map[int]bool // of the rebuilt image, in content or compression
	configDiffers bool
}

// compareImages compares all of two images, from the inside out.
func compareImages(ctx context.Context, want, got *foundImage) ([]Check, error) {
	c := &comparison{ctx: ctx, want: want, got: got, layerDiffers: map[int]bool{}}
	c.layers()
	c.config()
	c.manifest()
	return c.checks, c.err
}

func (c *comparison) add(check Check) { c.checks = append(c.checks, check) }

// layers compares the layers, in pairs: files first, then the tar, then the blob.
func (c *comparison) layers() {
	var outer []Check
	for _, pair := range align(c.want.contents, c.got.contents) {
		w, g := pair[0], pair[1]
		name := fmt.Sprintf("layer %d", max(w, g)+1)
		if w >= 0 && len(c.want.contents) == len(plan.Layers) {
			name = "layer " + plan.Layers[w]
		}
		switch {
		case g < 0:
			c.layerDiffers[w] = true
			c.add(Check{Level: LevelEntry, Name: name, Result: Fail, Rebuilt: c.want.contents[w].DiffID, Note: "the image does not have this layer"})
		case w < 0:
			c.extra(name, c.got.contents[g])
		default:
			outer = append(outer, c.layer(name, w, g)...)
		}
	}
	c.checks = append(c.checks, outer...)
}

// extra reports a layer that only the image has.
func (c *comparison) extra(name string, got *diff.Layer) {
	names := map[string]bool{}
	for i := range got.Entries {
		e := &got.Entries[i]
		names[e.Name] = true
		c.add(Check{Level: LevelEntry, Name: diff.Printable(e.Name), Result: Fail, Image: e.Digest, Note: "only in the image, in an added layer: " + e.Describe()})
	}
	note := fmt.Sprintf("the image has a layer more than the rebuilt one, with %d files", len(names))
	if got.Damage != "" {
		note += "; it cannot be unpacked: " + got.Damage
	}
	c.add(Check{Level: LevelEntry, Name: name, Result: Fail, Image: got.DiffID, Note: note})
}

// layer compares two layers. It adds the checks of their files, and returns those of
// the layer as a whole.
func (c *comparison) layer(name string, w, g int) (outer []Check) {
	want, got := c.want.contents[w], c.got.contents[g]
	failed := 0
	files, order := diff.Files(want.Entries, got.Entries)
	for _, d := range files {
		for _, check := range c.file(d, w, g) {
			if check.Result == Fail {
				failed++
			}
			check.Follows = check.Result == Fail && got.Damage != "" // what is behind the damage
			c.add(check)
		}
	}
	whole := Check{Level: LevelEntry, Name: name, Result: Pass, Rebuilt: want.DiffID, Image: got.DiffID}
	packed := Check{Level: LevelCompression, Name: name, Result: Pass, Rebuilt: want.Digest, Image: got.Digest}
	if want.DiffID != got.DiffID {
		whole.Result, packed.Follows = Fail, true
		switch {
		case got.Damage != "":
			whole.Note = "cannot be unpacked: " + got.Damage
		case order != "":
			whole.Note = order
		case failed > 0:
			whole.Follows = true
		default:
			whole.Note = "all entries are the same, but not the tar around them: its padding, its end, or the form of a header"
		}
	}
	switch {
	case want.Digest == got.Digest:
	case c.got.layers[g].digest == "" && got.Compression == "none":
		packed.Result, packed.Image, packed.Note = Skip, "", "the archive has the layer uncompressed"
	case packed.Follows:
		packed.Result = Fail
	default:
		packed.Result = Fail
		packed.Note = fmt.Sprintf("the same tar, compressed in another way: image %s, %d bytes, rebuilt %s, %d bytes", got.Compression, got.Size, want.Compression, want.Size)
	}
	if packed.Result == Fail || whole.Result == Fail {
		c.layerDiffers[w] = true
	}
	return []Check{whole, packed}
}

// file compares two entries.
func (c *comparison) file(d diff.FileDiff, w, g int) []Check {
	check := Check{Level: LevelEntry, Name: diff.Printable(d.Name), Result: Pass}
	if d.Want != nil {
		check.Rebuilt = d.Want.Digest
		if d.Want.Program() {
			check.Level = LevelBinary
		}
	}
	if d.Got != nil {
		check.Image = d.Got.Digest
	}
	switch {
	case d.Same():
		return []Check{check}
	case d.Got == nil:
		check.Level, check.Result, check.Note = LevelEntry, Fail, "missing from the image"
		return []Check{check}
	case d.Want == nil:
		check.Result, check.Note = Fail, "only in the image: "+d.Got.Describe()
		if d.Nth > 0 {
			check.Note = "stands in the image's layer once more, over the first: " + d.Got.Describe()
		}
		return []Check{check}
	}
	var checks []Check
	changes := d.Changes
	if d.Content() {
		content := check
		content.Result = Fail
		if err := c.content(&content, d, w, g); c.err == nil {
			c.err = err
		}
		checks = append(checks, content)
		// The size goes with the content.
		changes = slices.DeleteFunc(changes, func(change string) bool { return strings.HasPrefix(change, "size: ") })
	}
	if len(changes) > 0 {
		check.Level, check.Result, check.Note = LevelEntry, Fail, strings.Join(changes, "; ")
		checks = append(checks, check)
	}
	return checks
}

// maxText is the most of a file that is compared as text, and maxProgram that of a program
// that is taken apart, in bytes; derper has 18 MB.
const (
	maxText    = 4 << 20
	maxProgram = 128 << 20
)

// content says how the contents of two files differ.
func (c *comparison) content(check *Check, d diff.FileDiff, w, g int) error {
	check.Note = fmt.Sprintf("content differs: %d bytes in the image, %d rebuilt", d.Got.Header.Size, d.Want.Header.Size)
	limit := int64(maxText)
	if d.Want.Program() {
		limit = maxProgram
	}
	if max(d.Want.Header.Size, d.Got.Header.Size) > limit {
		check.Note += "; more than is compared"
		return nil
	}
	want, err := c.read(c.want.layers[w], d, limit)
	if err != nil {
		return err
	}
	got, err := c.read(c.got.layers[g], d, limit)
	if err != nil {
		return err
	}
	if d.Want.Program() {
		check.Note, check.Details, err = diff.Programs(c.ctx, want, got)
		return err
	}
	if check.Details = few(diff.Text(want, got)); len(check.Details) > 0 {
		check.Note += "; " + check.Details[0]
	}
	return nil
}

func (c *comparison) read(l foundLayer, d diff.FileDiff, limit int64) ([]byte, error) {
	blob, err := l.open()
	if err != nil {
		return nil, err
	}
	defer blob.Close()
	return diff.FileIn(blob, d.Name, d.Nth, limit)
}

// align pairs the layers of two images: equal ones with each other, what is between
// them by place. -1 stands for none.
func align(want, got []*diff.Layer) (pairs [][2]int) {
	w, g := 0, 0
	for w < len(want) || g < len(got) {
		left, right := len(want)-w, len(got)-g
		switch {
		case left > 0 && right > 0 && (left == right || want[w].DiffID == got[g].DiffID):
			pairs = append(pairs, [2]int{w, g})
			w, g = w+1, g+1
		case right > left:
			pairs = append(pairs, [2]int{-1, g})
			g++
		default:
			pairs = append(pairs, [2]int{w, -1})
			w++
		}
	}
	return pairs
}
