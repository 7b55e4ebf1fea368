package verify

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/xavieralpha/derper/internal/gobinary"
	"github.com/xavieralpha/derper/internal/limit"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/plan"
	"github.com/xavieralpha/derper/internal/verify/diff"
)

// comparison compares one image with the rebuilt one.
type comparison struct {
	ctx       context.Context
	want, got *foundImage
	names     []string // of the rebuilt image's layers
	checks    []Check
	// differs says which program differs before it is taken apart, which may take a while.
	differs func(program string)

	layerDiffers map[int]bool // of the rebuilt image, in content or compression
}

// compareImages compares all of two images, from the inside out. The error is that of ctx:
// what differs is no less different for an explanation that fails.
func compareImages(ctx context.Context, in lock.Inputs, want, got *foundImage, differs func(program string)) ([]Check, error) {
	c := &comparison{ctx: ctx, want: want, got: got, names: plan.Layers(in), layerDiffers: map[int]bool{}, differs: differs}
	c.layers()
	c.documents()
	return c.checks, ctx.Err()
}

func (c *comparison) add(check Check) { c.checks = append(c.checks, check) }

// layers compares the layers, in pairs: files first, then the tar, then the blob.
func (c *comparison) layers() {
	var outer []Check
	for _, pair := range align(c.want.contents, c.got.contents) {
		w, g := pair[0], pair[1]
		name := fmt.Sprintf("layer %d", max(w, g)+1)
		if w >= 0 && w < len(c.names) {
			name = "layer " + c.names[w]
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
	for i := range got.Entries {
		e := &got.Entries[i]
		c.add(Check{Level: LevelEntry, Name: diff.Printable(e.Name), Result: Fail, Image: e.Digest, Note: "only in the image, in an added layer: " + e.Describe()})
	}
	note := "the image has a layer more than the rebuilt one, with " + diff.Plural(len(got.Entries), "file")
	if got.Damage != "" {
		note += "; it cannot be unpacked: " + got.Damage
	}
	c.add(Check{Level: LevelEntry, Name: name, Result: Fail, Image: got.DiffID, Note: note})
}

// layer compares two layers. It adds the checks of their files, and returns those of
// the layer as a whole.
func (c *comparison) layer(name string, w, g int) (outer []Check) {
	want, got := c.want.contents[w], c.got.contents[g]
	before := len(c.checks)
	files, order := diff.Files(want.Entries, got.Entries)
	for _, d := range files {
		c.file(d, w, g)
	}
	inner := c.checks[before:]
	for i := range inner {
		inner[i].Follows = inner[i].failed() && got.Damage != "" // what is behind the damage
	}
	whole := compared(LevelEntry, name, want.DiffID, got.DiffID)
	packed := compared(LevelCompression, name, want.Digest, got.Digest)
	switch {
	case !whole.failed():
	case got.Damage != "":
		whole.Note = "cannot be unpacked: " + got.Damage
	case order != "":
		whole.Note = order
	case slices.ContainsFunc(inner, Check.failed):
		whole.Follows = true
	default:
		whole.Note = "all entries are the same, but not the tar around them: its padding, its end, or the form of a header"
	}
	switch {
	case !packed.failed():
	case !c.got.layers[g].named() && got.Compression == "none":
		packed.Result, packed.Image, packed.Note = Skip, "", "the archive has the layer uncompressed"
	case whole.failed():
		packed.Follows = true
	default:
		packed.Note = fmt.Sprintf("the same tar, compressed in another way: image %s, %d bytes, rebuilt %s, %d bytes", got.Compression, got.Size, want.Compression, want.Size)
	}
	c.layerDiffers[w] = packed.failed() || whole.failed()
	return []Check{whole, packed}
}

// file compares two entries.
func (c *comparison) file(d diff.FileDiff, w, g int) {
	check := Check{Level: LevelEntry, Name: diff.Printable(d.Name), Result: Pass}
	if d.Want != nil {
		check.Rebuilt = d.Want.Digest
	}
	if d.Got != nil {
		check.Image = d.Got.Digest
	}
	content := check // with the level that it has unless it is missing
	if d.Want != nil && d.Want.Program() {
		content.Level = LevelBinary
	}
	switch {
	case d.Same():
		c.add(content)
		return
	case d.Got == nil:
		check.Note = "missing from the image"
	case d.Want == nil && d.Nth > 0:
		check.Note = "is in the image's layer once more, over the first: " + d.Got.Describe()
	case d.Want == nil:
		check.Note = "only in the image: " + d.Got.Describe()
	default:
		changes := d.Changes
		if d.Content() {
			content.Result = Fail
			c.content(&content, d, w, g)
			c.add(content)
			// The size goes with the content.
			changes = slices.DeleteFunc(changes, func(change string) bool { return strings.HasPrefix(change, "size: ") })
		}
		if check.Note = strings.Join(changes, "; "); check.Note == "" {
			return
		}
	}
	check.Result = Fail
	c.add(check)
}

// maxText is the most of a file that is compared as text, in bytes.
const maxText = 4 << 20

// content says how the contents of two files differ.
func (c *comparison) content(check *Check, d diff.FileDiff, w, g int) {
	check.Note = fmt.Sprintf("content differs: %d bytes in the image, %d rebuilt", d.Got.Header.Size, d.Want.Header.Size)
	bytes, explain := int64(maxText), c.text
	if d.Want.Program() {
		bytes, explain = gobinary.MaxProgram, c.program
	}
	if max(d.Want.Header.Size, d.Got.Header.Size) > bytes {
		check.Note += "; more than is compared"
		return
	}
	if err := explain(check, d, w, g); err != nil {
		check.Note += "; how they differ cannot be said: " + diff.Printable(err.Error())
	}
}

// program says how two programs differ, after it was said that they do.
func (c *comparison) program(check *Check, d diff.FileDiff, w, g int) error {
	c.differs(check.Name)
	want, err := c.open(c.want.layers[w], d)
	if err != nil {
		return err
	}
	defer want.Close()
	got, err := c.open(c.got.layers[g], d)
	if err != nil {
		return err
	}
	defer got.Close()
	summary, details, err := diff.Programs(c.ctx, want, d.Want.Header.Size, got)
	if err == nil {
		check.Note, check.Details = summary, details
	}
	return err
}

func (c *comparison) text(check *Check, d diff.FileDiff, w, g int) error {
	read := func(l foundLayer) ([]byte, error) {
		r, err := c.open(l, d)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return limit.ReadAll(r, maxText)
	}
	want, err := read(c.want.layers[w])
	got, gerr := read(c.got.layers[g])
	if err := cmp.Or(err, gerr); err != nil {
		return err
	}
	if check.Details = few(diff.Text(want, got)); len(check.Details) > 0 {
		check.Note += "; " + check.Details[0]
	}
	return nil
}

func (c *comparison) open(l foundLayer, d diff.FileDiff) (io.ReadCloser, error) {
	blob, err := l.open()
	if err != nil {
		return nil, err
	}
	return diff.FileIn(blob, d.Name, d.Nth)
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
