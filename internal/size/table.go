package size

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/xavieralpha/derper/internal/atomicfile"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/progress"
)

// ErrNoSizes says that a lock has no sizes for the tables.
var ErrNoSizes = errors.New("records no sizes of layers")

// Pages have a table of what the images of a lock weigh, between two lines: README.md has a
// row for each variant, docs/image.md one for each of its platforms. They name the image that
// they are about: a release that is recorded since has another, until they are written anew.
var Pages = map[string]func(l *lock.Lock) string{"README.md": variants, "docs/image.md": platforms}

// The lines around a table.
const (
	begin = "<!-- sizes:begin -->\n"
	end   = "<!-- sizes:end -->\n"
)

// Tables are the pages in a checkout as they are to be, by their names. The error is
// [ErrNoSizes] if the lock does not say what is to be in them.
func Tables(checkout string, l *lock.Lock) (map[string]string, error) {
	for _, v := range l.Inputs.Variants {
		if l.Outputs[v.Name] == nil {
			return nil, ErrNoSizes
		}
		for _, p := range l.Outputs[v.Name].Platforms {
			if compressed, _ := p.Sizes(); compressed == 0 {
				return nil, ErrNoSizes
			}
		}
	}
	pages := map[string]string{}
	for name, table := range Pages {
		before, _, after, err := split(filepath.Join(checkout, name))
		if err != nil {
			return nil, err
		}
		pages[name] = before + begin + about(l) + "\n\n" + table(l) + end + after
	}
	return pages, nil
}

// Write writes the tables into the pages of a checkout.
func Write(checkout string, l *lock.Lock) error {
	pages, err := Tables(checkout, l)
	for name, text := range pages {
		err = errors.Join(err, atomicfile.Write(filepath.Join(checkout, name), []byte(text)))
	}
	return err
}

// split is what is in a page before its table, in it, and behind it.
func split(name string) (before, table, after string, err error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return "", "", "", err
	}
	before, rest, ok := strings.Cut(string(data), begin)
	table, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return "", "", "", fmt.Errorf("%s: lacks the lines %s and %s around the table of sizes", name, strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	return before, table, after, nil
}

// about says of which image a table is.
func about(l *lock.Lock) string { return fmt.Sprintf("Of `%s`:", l.Inputs.ImageVersion()) }

// variants is a row for each variant.
func variants(l *lock.Lock) string {
	var b strings.Builder
	b.WriteString("| variant | compressed | on disk |\n|---|---|---|\n")
	for _, v := range l.Inputs.Variants {
		var compressed, onDisk span
		for _, p := range l.Outputs[v.Name].Platforms {
			c, d := p.Sizes()
			compressed.add(c)
			onDisk.add(d)
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", v.Name, compressed, onDisk)
	}
	return b.String()
}

// platforms is a row for each platform of each variant.
func platforms(l *lock.Lock) string {
	var b strings.Builder
	b.WriteString("| variant | platform | compressed | on disk | layers, compressed |\n|---|---|---|---|---|\n")
	for _, v := range l.Inputs.Variants {
		for _, p := range l.Outputs[v.Name].Platforms {
			var layers []string
			for _, layer := range p.Layers {
				layers = append(layers, layer.Name+" "+progress.Bytes(layer.Bytes))
			}
			c, d := p.Sizes()
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", v.Name, p.Platform, progress.Bytes(c), progress.Bytes(d), strings.Join(layers, ", "))
		}
	}
	return b.String()
}

// span is the least and the most of some sizes.
type span struct{ least, most int64 }

func (s *span) add(n int64) {
	if s.most == 0 || n < s.least {
		s.least = n
	}
	s.most = max(s.most, n)
}

func (s span) String() string {
	least, most := progress.Bytes(s.least), progress.Bytes(s.most)
	number, unit, _ := strings.Cut(least, " ")
	switch {
	case least == most:
		return most
	case strings.HasSuffix(most, " "+unit):
		return number + "–" + most
	}
	return least + "–" + most
}
