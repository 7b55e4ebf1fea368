package setting

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// File is where the image has what its build wrote down of derper, a [Release].
const File = "/usr/share/derper/flags.json"

// A Release is what the build of the image wrote down of derper.
type Release struct {
	Version string `json:"version"` // of tailscale
	Flags   []Flag `json:"flags"`
}

// A Flag is a flag of derper, as its source defines it.
type Flag struct {
	Name string `json:"name"` // without dash
	Type Kind   `json:"type"`
	// Default is in package flag's form, such as 10m0s.
	Default string `json:"default,omitempty"`
	// Computed is whether derper works the default out when it starts: Default is empty.
	Computed bool   `json:"computed,omitempty"`
	Help     string `json:"help,omitempty"`
}

// A Kind is the type of a flag: the function of package flag that defines it.
type Kind string

const (
	KindBool     Kind = "bool"
	KindInt      Kind = "int"
	KindInt64    Kind = "int64"
	KindUint     Kind = "uint"
	KindUint64   Kind = "uint64"
	KindFloat64  Kind = "float64"
	KindString   Kind = "string"
	KindDuration Kind = "duration"
	KindValue    Kind = "value" // Var, TextVar, Func and BoolFunc: derper knows which texts are values
)

var kinds = []Kind{KindBool, KindInt, KindInt64, KindUint, KindUint64, KindFloat64, KindString, KindDuration, KindValue}

// IsFlagName reports whether name can be that of a flag: package flag takes it, and a
// command line can have it without quotes.
func IsFlagName(name string) bool {
	return name != "" && name[0] != '-' && !strings.ContainsFunc(name, func(c rune) bool {
		return c == '=' || unicode.IsSpace(c) || !unicode.IsPrint(c) || c == unicode.ReplacementChar
	})
}

// ParseRelease reads what [Release.Bytes] wrote. Fields that it does not know are those of a
// newer build, and no error.
func ParseRelease(data []byte) (Release, error) {
	var r Release
	if err := json.Unmarshal(data, &r); err != nil {
		return Release{}, fmt.Errorf("derper's flags: %w", err)
	}
	if r.Version == "" {
		return Release{}, fmt.Errorf("derper's flags: no version")
	}
	seen := map[string]bool{}
	for _, f := range r.Flags {
		switch {
		case !IsFlagName(f.Name):
			return Release{}, fmt.Errorf("derper's flags: %q is no name of a flag", f.Name)
		case seen[f.Name]:
			return Release{}, fmt.Errorf("derper's flags: duplicate -%s", f.Name)
		case !slices.Contains(kinds, f.Type):
			return Release{}, fmt.Errorf("derper's flags: -%s has the unknown type %q", f.Name, f.Type)
		}
		seen[f.Name] = true
	}
	return r, nil
}

// Bytes is the release as a file, the same for the same flags in any order.
func (r Release) Bytes() []byte {
	r.Flags = append([]Flag{}, r.Flags...)
	slices.SortStableFunc(r.Flags, func(a, b Flag) int { return strings.Compare(a.Name, b.Name) })
	var b bytes.Buffer
	out := json.NewEncoder(&b)
	out.SetEscapeHTML(false)
	out.SetIndent("", "  ")
	if err := out.Encode(r); err != nil {
		panic(err) // texts and bools are always JSON
	}
	return b.Bytes()
}
