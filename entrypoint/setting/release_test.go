package setting

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

var written = Release{Version: "1.102.3", Flags: []Flag{
	{Name: "a", Type: KindString, Default: ":443", Help: `listen address, in form ":port" & <more>`},
	{Name: "certdir", Type: KindString, Computed: true},
	{Name: "tcp-user-timeout", Type: KindDuration, Default: "15s", Help: "TCP user timeout"},
}}

const file = `{
  "version": "1.102.3",
  "flags": [
    {
      "name": "a",
      "type": "string",
      "default": ":443",
      "help": "listen address, in form \":port\" & <more>"
    },
    {
      "name": "certdir",
      "type": "string",
      "computed": true
    },
    {
      "name": "tcp-user-timeout",
      "type": "duration",
      "default": "15s",
      "help": "TCP user timeout"
    }
  ]
}
`

// The mistake it guards: an image that is another one because the flags came in another
// order, and a file that is not read as it was written.
func TestRelease(t *testing.T) {
	backwards := Release{written.Version, slices.Clone(written.Flags)}
	slices.Reverse(backwards.Flags)
	for _, r := range []Release{written, backwards} {
		if got := string(r.Bytes()); got != file {
			t.Errorf("it is written as %s", got)
		}
	}
	if backwards.Flags[0].Name != "tcp-user-timeout" {
		t.Error("writing it has sorted the caller's flags")
	}
	read, err := ParseRelease([]byte(file))
	if err != nil || !reflect.DeepEqual(read, written) {
		t.Errorf("it is read as %+v, %v", read, err)
	}
	if got := string(Release{Version: "1"}.Bytes()); got != "{\n  \"version\": \"1\",\n  \"flags\": []\n}\n" {
		t.Errorf("a release without flags is written as %s", got)
	}
}

// The mistake it guards: an entrypoint that passes on flags from what is no such file, or
// that a newer build's file stops.
func TestParseRelease(t *testing.T) {
	for _, test := range []struct{ flags, want string }{
		{`{"name": "x", "type": "bool"}`, ""},
		{`{"name": "x", "type": "value", "since": "1.90"}`, ""},
		{`{"name": "x.y_Z-0", "type": "uint64"}, {"name": "x", "type": "int"}`, ""},
		{`{"name": "x", "type": "bool"}, {"name": "x", "type": "int"}`, "duplicate -x"},
		{`{"name": "x", "type": "complex128"}`, `-x has the unknown type "complex128"`},
		{`{"name": "x"}`, `-x has the unknown type ""`},
		{`{"type": "bool"}`, `"" is no name of a flag`},
		{`{"name": "-x", "type": "bool"}`, `"-x" is no name of a flag`},
		{`{"name": "x=y", "type": "bool"}`, `"x=y" is no name of a flag`},
		{`{"name": "x y", "type": "bool"}`, `"x y" is no name of a flag`},
		{`{"name": "x\u0000", "type": "bool"}`, `"x\x00" is no name of a flag`},
		{`{"name": "x", "type": "int", "default": 5}`, "cannot unmarshal number"},
		{`{`, "unexpected end"},
	} {
		data := `{"version": "1", "flags": [` + test.flags
		if test.flags != "{" {
			data += "]}"
		}
		_, err := ParseRelease([]byte(data))
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", test.flags, err, test.want)
		}
	}
	for _, data := range []string{"", "null", "[]", "{}", `{"flags": []}`, file + "{}"} {
		if r, err := ParseRelease([]byte(data)); err == nil {
			t.Errorf("%q is read as %+v", data, r)
		}
	}
}
