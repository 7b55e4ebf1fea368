// Package diff says how two images differ, part by part: the files of two layers,
// two JSON documents, two compiled programs.
//
// One side is always the wanted one, rebuilt from known inputs, the other the one
// that was got, from wherever. What was got is not trusted: it may be huge, cut off
// or made to confuse. Layers are read as streams; a program is compared from files,
// section by section; names from an image are quoted when a terminal would choke on
// them. What stands in a package's words about two programs follows from what they
// say of themselves, which whoever made them may have forged: that they differ is
// certain, why they do is a lead.
package diff

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Printable is s as it can be shown on a terminal: in quotes, with escapes, where it
// has anything but printable characters.
func Printable(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
		return strconv.Quote(s)
	}
	return s
}

// short is a value for a message: printable, and not endless.
func short(s string) string {
	const limit = 120
	if len(s) > limit {
		return Printable(strings.ToValidUTF8(s[:limit], "")) + fmt.Sprintf("… (%d bytes)", len(s))
	}
	return Printable(s)
}

// Plural is "1 file" or "3 files".
func Plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// A Change is a place at which two things differ.
type Change struct {
	// Path names the place: of a JSON document it is written as jq does,
	// .config.Env["HOSTNAME"], .layers[1].digest.
	Path string
	// Want and Got are the two values, those of JSON in JSON; "" for none.
	Want, Got string
}

func (c Change) String() string {
	switch {
	case c.Want == "":
		return fmt.Sprintf("%s: image %s, the rebuilt has none", c.Path, short(c.Got))
	case c.Got == "":
		return fmt.Sprintf("%s: image none, the rebuilt has %s", c.Path, short(c.Want))
	}
	return fmt.Sprintf("%s: image %s, rebuilt %s", c.Path, short(c.Got), short(c.Want))
}

// changes lists the keys at which two maps differ, in their order.
func changes(want, got map[string]string) (list []Change) {
	keys := maps.Clone(want)
	maps.Copy(keys, got)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if want[key] != got[key] {
			list = append(list, Change{key, want[key], got[key]})
		}
	}
	return list
}
