package diff

import (
	"bytes"
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
	c.values("", w, g)
	if len(c) == 0 {
		c.add("", []byte("the same values"), []byte("the same values, written in another way (order, spaces or repeated keys)"))
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

func (c *changeList) add(path string, want, got []byte) {
	if path == "" {
		path = "."
	}
	*c = append(*c, Change{path, string(want), string(got)})
}

// none is the value where there is none.
type none struct{}

func (c *changeList) values(path string, want, got any) {
	switch w := want.(type) {
	case map[string]any:
		if g, ok := got.(map[string]any); ok {
			c.objects(path, w, g)
			return
		}
	case []any:
		if g, ok := got.([]any); ok {
			c.arrays(path, w, g)
			return
		}
	}
	if w, g := compact(want), compact(got); !bytes.Equal(w, g) {
		c.add(path, w, g)
	}
}

func (c *changeList) objects(path string, want, got map[string]any) {
	keys := maps.Clone(want)
	maps.Copy(keys, got)
	of := func(m map[string]any, key string) any {
		if v, ok := m[key]; ok {
			return v
		}
		return none{}
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		c.values(path+member(key), of(want, key), of(got, key))
	}
}

func (c *changeList) arrays(path string, want, got []any) {
	w, wantPairs := pairs(want)
	g, gotPairs := pairs(got)
	if wantPairs && gotPairs {
		before := len(*c)
		c.objects(path, w, g)
		if len(*c) == before && !bytes.Equal(compact(want), compact(got)) {
			c.add(path, []byte("the same values"), []byte("the same values in another order"))
		}
		return
	}
	of := func(list []any, i int) any {
		if i < len(list) {
			return list[i]
		}
		return none{}
	}
	for i := range max(len(want), len(got)) {
		c.values(fmt.Sprintf("%s[%d]", path, i), of(want, i), of(got, i))
	}
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

func compact(v any) []byte {
	if v == (none{}) {
		return nil
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return []byte(fmt.Sprint(v)) // nothing that was decoded fails
	}
	return bytes.TrimSpace(b.Bytes())
}
