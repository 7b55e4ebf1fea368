package document

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

var documents = []string{
	`{}`, `[]`, `null`, `true`, `false`, `0`, `-1.5e+3`, `""`, ` { "a" : [ 1 , "x" , null ] , "b" : { } } `,
	`"\u00e9\ud83d\ude00\n\t\"\\\/"`, `"\ud83d"`, `"é😀"`, `{"a":1,"a":2}`, "\t[true]\n",
	``, ` `, `{`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,}`, `[1,]`, `[1`, `01`, `1.`, `.5`, `1e`, `+1`, `-`, `"`, `"\x"`, `"\u12"`,
	"\"a\nb\"", `tru`, `nul`, `{} {}`, `{a:1}`, `{'a':1}`, `1MB`, `NaN`, "\xff", "\"\xff\"",
}

// The mistake it guards: another opinion than encoding/json, which derper and
// tailscaled use.
func TestAgainstStandardLibrary(t *testing.T) {
	for _, text := range documents {
		compare(t, text)
	}
	if _, err := Parse([]byte(strings.Repeat("[", 1000) + strings.Repeat("]", 1000))); err == nil {
		t.Error("any depth is taken")
	}
	if _, err := Parse([]byte("{\n  \"a\": 1MB\n}")); err == nil || !strings.Contains(err.Error(), "line 2, column 9") {
		t.Errorf("the place of an error: %v", err)
	}
	if _, err := Object([]byte("[]")); err == nil {
		t.Error("an array is taken for an object")
	}
}

func compare(t *testing.T, text string) {
	t.Helper()
	got, err := Parse([]byte(text))
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var want any
	wantErr := decoder.Decode(&want)
	if wantErr == nil && !json.Valid([]byte(text)) {
		wantErr = json.Unmarshal([]byte(text), &want)
	}
	if (err == nil) != (wantErr == nil) {
		t.Errorf("%q: %v; encoding/json says %v", text, err, wantErr)
		return
	}
	if err == nil && !reflect.DeepEqual(plain(got), want) {
		t.Errorf("%q: got %#v, want %#v", text, got, want)
	}
}

// plain turns numbers into those of encoding/json.
func plain(v any) any {
	switch v := v.(type) {
	case Number:
		return json.Number(v)
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
	case map[string]any:
		for name := range v {
			v[name] = plain(v[name])
		}
	}
	return v
}

func TestQuote(t *testing.T) {
	for _, text := range []string{"", "plain", "\"\\/\x00\x1f\n", "é😀\u2028", "tskey-auth-<>&"} {
		var got string
		if err := json.Unmarshal([]byte(Quote(text)), &got); err != nil || got != text {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range documents {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Count(text, "[")+strings.Count(text, "{") <= maxDepth {
			compare(t, text)
		}
	})
}
