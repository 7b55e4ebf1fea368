package diff

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// JSON lists where two JSON documents differ, in the order of the paths. Documents
// that mean the same and are written differently give one Change at the path ".".
func JSON(want, got []byte) ([]Change, error) {
	if bytes.Equal(want, got) {
		return nil, nil
	}
	w, err := decode(want)
	if err != nil {
		return nil, fmt.Errorf("rebuilt JSON: %w", err)
	}
	g, err := decode(got)
	if err != nil {
		return nil, fmt.Errorf("JSON of the image: %w", err)
	}
	var c changeList
	c.compare("", w, g)
	if len(c) == 0 {
		c.add("", "the same values", "the same values, written in another way (order, spaces or repeated keys)")
	}
	return c, nil
}

func decode(data []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("goes on after its end")
	}
	return v, nil
}

type changeList []Change

func (c *changeList) add(path, want, got string) {
	*c = append(*c, Change{cmp.Or(path, "."), want, got})
}

// none is the value where there is none.
type none struct{}

func (c *changeList) compare(path string, want, got any) {
	before := len(*c)
	w, wantObject := want.(map[string]any)
	g, gotObject := got.(map[string]any)
	wantList, isList := want.([]any)
	gotList, areLists := got.([]any)
	if areLists = areLists && isList; areLists {
		w, wantObject = pairs(wantList)
		g, gotObject = pairs(gotList)
	}
	switch {
	case wantObject && gotObject:
		keys := maps.Clone(w)
		maps.Copy(keys, g)
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			w, inWant := w[key]
			g, inGot := g[key]
			c.compare(path+member(key), value(w, inWant), value(g, inGot))
		}
		if len(*c) == before && compact(want) != compact(got) {
			c.add(path, "the same values", "the same values in another order")
		}
	case areLists:
		for i := range max(len(wantList), len(gotList)) {
			c.compare(fmt.Sprintf("%s[%d]", path, i), item(wantList, i), item(gotList, i))
		}
	default:
		if w, g := compact(want), compact(got); w != g {
			c.add(path, w, g)
		}
	}
}

func value(v any, ok bool) any {
	if !ok {
		return none{}
	}
	return v
}

func item(list []any, i int) any {
	if i >= len(list) {
		return none{}
	}
	return list[i]
}

// pairs reads a list such as an environment's, NAME=value each, with no name twice.
func pairs(list []any) (map[string]any, bool) {
	m := map[string]any{}
	for _, v := range list {
		s, ok := v.(string)
		name, value, cut := strings.Cut(s, "=")
		if _, twice := m[name]; !ok || !cut || twice {
			return nil, false
		}
		m[name] = value
	}
	return m, len(list) > 0
}

var plainKey = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func member(key string) string {
	if plainKey.MatchString(key) {
		return "." + key
	}
	return fmt.Sprintf("[%q]", key)
}

func compact(v any) string {
	if v == (none{}) {
		return ""
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Sprint(v) // nothing that was decoded fails
	}
	return strings.TrimSpace(b.String())
}
