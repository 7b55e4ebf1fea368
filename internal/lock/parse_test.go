package lock

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each of these is a slip of somebody who edits the lock by hand; the error must
// lead to it.
func TestParseRefuses(t *testing.T) {
	good := string(sampleBytes(t))
	replace := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("the sample has no %q", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	const commit = "53a0d659afa51835dd7a9283873cca44261454f8"
	for _, test := range []struct {
		name, data string
		want       []string // in the error
	}{
		{"empty", "", []string{"line 1, column 1", "ends too early"}},
		{"no object", "[]", []string{"line 1, column 1", "expected an object", "got a list"}},
		{"null", "null", []string{"line 1, column 1", "expected an object", "got null"}},
		{"missing colon", replace(`"schema": 2`, `"schema" 2`), []string{"line 2, column 12", "not JSON", "after object name"}},
		{"comma too many", replace("\"linux/arm/v7\"\n    ]", "\"linux/arm/v7\",\n    ]"), []string{"line 45, column 5", "not JSON"}},
		{"single quotes", replace(`"v1.102.3"`, `'v1.102.3'`), []string{"line 6, column 18", "not JSON"}},
		{"truncated", good[:len(good)/2], []string{"not JSON", "ends too early"}},
		{"last brace missing", strings.TrimSuffix(good, "}\n"), []string{"not JSON", "ends too early"}},
		{"garbage after it", good + "\nx\n", []string{"line 124, column 1", "not JSON", "after top-level value"}},
		{"second document", good + good, []string{"line 123, column 1", "not JSON"}},

		{"unknown key", replace(`"schema": 2,`, "\"schema\": 2,\n  \"note\": \"x\","), []string{"line 3, column 3", `unknown key "note"`}},
		// The name is that of a key elsewhere: the error must not point there.
		{"key at a wrong place", replace(`"roots": {`, "\"roots\": {\n      \"commit\": \"x\","), []string{"line 21, column 7", `unknown key "inputs.roots.commit"`}},
		{"key in another case", replace(`"commit"`, `"Commit"`), []string{"line 7, column 7", `unknown key "inputs.tailscale.Commit"`}},
		{"key twice", replace(`"commit": "`, `"commit": "0000000000000000000000000000000000000000", "commit": "`), []string{"line 7, column 61", `duplicate key "inputs.tailscale.commit"`}},
		{"host twice", replace(`"linux/arm64": "`, `"linux/amd64": "`), []string{"line 17, column 9", `duplicate key "inputs.go.sums.linux/amd64"`}},
		{"key twice in an output", replace(`"index": "`, `"index": "", "index": "`), []string{`duplicate key "outputs.default.index"`}},

		{"string for number", replace(`"schema": 2`, `"schema": "1"`), []string{"line 2, column 13", `key "schema" wants a whole number, has "1"`}},
		{"fraction", replace(`"format": 3`, `"format": 1.5`), []string{`key "inputs.format" wants a whole number, has the number 1.5`}},
		{"number for string", replace(`"commit": "`+commit+`"`, `"commit": 53`), []string{"line 7, column 17", `key "inputs.tailscale.commit" wants a string, has the number 53`}},
		{"list for object", `{"schema": 2, "inputs": []}`, []string{"line 1, column 25", `key "inputs" wants an object, has a list`}},
		{"string for list", strings.Replace(good, "\"platforms\": [\n      \"linux/amd64\",\n      \"linux/arm/v7\"\n    ]", `"platforms": "all"`, 1), []string{`key "inputs.platforms" wants a list, has "all"`}},
		{"null in a list", replace("      \"linux/amd64\",\n", "      null,\n"), []string{`key "inputs.platforms[0]" wants a string, has null`}},
		{"null for string", replace(`"`+commit+`"`, `null`), []string{`key "inputs.tailscale.commit" wants a string, has null`}},
		{"null for an object", `{"schema": 2, "outputs": null}`, []string{"line 1, column 26", `key "outputs" wants an object, has null`}},
		{"time is no time", replace(`"2026-08-19T19:07:43Z"`, `"yesterday"`), []string{"line 8, column 15", `key "inputs.tailscale.time" wants a time`, `has "yesterday"`}},
		{"time is a number", replace(`"2026-08-19T19:07:43Z"`, `1787166463`), []string{`key "inputs.tailscale.time" wants a time`}},

		{"other schema", replace(`"schema": 2`, `"schema": 3`), []string{`"schema"`, "expected 2, got 3"}},
		{"no schema", replace("  \"schema\": 2,\n", ""), []string{`"schema"`, "got 0"}},
		{"version without v", replace(`"v1.102.3"`, `"1.102.3"`), []string{"inputs.tailscale.version", "1.102.3"}},
		{"version of two numbers", replace(`"v1.102.3"`, `"v1.102"`), []string{"inputs.tailscale.version", "v1.102"}},
		{"version is a branch", replace(`"v1.102.3"`, `"latest"`), []string{"inputs.tailscale.version", "latest"}},
		{"short commit", replace(commit, commit[:39]), []string{"inputs.tailscale.commit", commit[:39], "40 hex digits"}},
		{"commit in capitals", replace(commit, strings.ToUpper(commit)), []string{"inputs.tailscale.commit", "40 hex digits"}},
		{"commit not hex", replace(commit, "g"+commit[1:]), []string{"inputs.tailscale.commit", "40 hex digits"}},
		{"time with a zone", replace(`"2026-08-19T19:07:43Z"`, `"2026-08-19T21:07:43+02:00"`), []string{"inputs.tailscale.time", "UTC"}},
		{"time with a fraction", replace(`"2026-08-19T19:07:43Z"`, `"2026-08-19T19:07:43.5Z"`), []string{"inputs.tailscale.time", "whole seconds"}},
		{"no time", replace("      \"time\": \"2026-08-19T19:07:43Z\",\n", ""), []string{"inputs.tailscale.time"}},
		{"sum of another kind", replace(sum, "h2:"+sum[3:]), []string{"inputs.tailscale.sum", "no h1: sum"}},
		{"sum too short", replace(sum, sum[:20]), []string{"inputs.tailscale.sum", "no h1: sum"}},
		{"sum with a newline in it", replace(sum, sum[:20]+`\n`+sum[20:]), []string{"inputs.tailscale.sum", "no h1: sum"}},
		{"go version of a language", replace(`"go1.26.8"`, `"go1.26"`), []string{"inputs.go.version", "go1.26"}},
		{"go version without go", replace(`"go1.26.8"`, `"1.26.8"`), []string{"inputs.go.version", "1.26.8"}},
		{"unknown host", replace(`"darwin/amd64": `, `"plan9/amd64": `), []string{"inputs.go.sums.plan9/amd64", "unknown host", "inputs.go.sums.darwin/amd64"}},
		{"roots version not whole", replace(`"v0.0.0-20261030153154-30a33513ff6d"`, `"v0.1"`), []string{"inputs.roots.version", "v0.1"}},
		{"unknown platform", replace(`"linux/arm/v7"`, `"linux/arm/v4"`), []string{"inputs.platforms", "linux/arm/v4", "known are"}},
		{"platform by its longer name", replace(`"linux/arm/v7"`, `"linux/arm64/v8"`), []string{"inputs.platforms", "linux/arm64/v8", "is written linux/arm64"}},
		{"platform twice", replace(`"linux/arm/v7"`, `"linux/amd64"`), []string{"inputs.platforms", "duplicate linux/amd64"}},
		{"source with a slash at its end", replace(`"source": "`+DefaultSource+`"`, `"source": "`+DefaultSource+`/"`), []string{"inputs.source", "expected the address"}},
		{"source is a path", replace(DefaultSource, "/srv/derper"), []string{"inputs.source"}},
		{"program of another module", replace("tailscale.com/cmd/derper", "example.com/cmd/derper"), []string{"inputs.programs[0].package", "no package of tailscale.com"}},
		{"program outside of its module", replace("tailscale.com/cmd/derper", "tailscale.com/../derper"), []string{"inputs.programs[0].package"}},
		{"programs out of order", replace("tailscale.com/cmd/derper", "tailscale.com/cmd/tailscaled"), []string{"inputs.programs[1].package", "sorted"}},
		{"tags out of order", replace(`"tailscale.com/cmd/derper"`, `"tailscale.com/cmd/derper", "buildTags": ["b", "a"]`), []string{"inputs.programs[0].buildTags", "sorted"}},
		{"kept and left out", replace(`"tailscale.com/cmd/derper"`, `"tailscale.com/cmd/derper", "features": ["ssh"], "buildTags": ["ts_omit_ssh"]`), []string{"inputs.programs[0].features", "ssh", "build update"}},
		{"no tag", replace(`"tailscale.com/cmd/derper"`, `"tailscale.com/cmd/derper", "buildTags": ["a,b"]`), []string{"inputs.programs[0].buildTags", "a,b"}},
		{"features out of order", replace(`"tailscale.com/cmd/derper"`, `"tailscale.com/cmd/derper", "features": ["ssh", "health"]`), []string{"inputs.programs[0].features", "sorted"}},
		{"no feature", replace(`"tailscale.com/cmd/derper"`, `"tailscale.com/cmd/derper", "features": ["ts-omit"]`), []string{"inputs.programs[0].features", `"ts-omit" is no feature`}},
		{"no features", replace(`"tailscale.com/cmd/derper"`, `"tailscale.com/cmd/derper", "features": []`), []string{"inputs.programs[0].features", "leave it out"}},
		{"a program that is not there", replace("          \"derper\"\n", "          \"derp\"\n"), []string{"inputs.variants[0].programs", `"derp"`}},
		{"a program twice", replace("          \"derper\"\n", "          \"tailscaled\"\n"), []string{"inputs.variants[0].programs", "duplicate"}},
		{"suffix without its dash", replace(`"name": "default",`, `"name": "default", "suffix": "debug",`), []string{"inputs.variants[0].suffix", "debug"}},
		{"suffix like a revision", replace(`"name": "default",`, `"name": "default", "suffix": "-r1",`), []string{"inputs.variants[0].suffix", "revision"}},
		{"user by name", replace(`"name": "default",`, `"name": "default", "user": "root",`), []string{"inputs.variants[0].user", "root"}},
		{"file outside of the image", replace(`"name": "default",`, `"name": "default", "files": [{"path": "../x", "mode": "0644"}],`), []string{"inputs.variants[0].files[0].path"}},
		{"file with setuid", replace(`"name": "default",`, `"name": "default", "files": [{"path": "x", "mode": "04755"}],`), []string{"inputs.variants[0].files[0].mode"}},
		{"folder with a text", replace(`"name": "default",`, `"name": "default", "files": [{"path": "x/", "mode": "0755", "text": "x"}],`), []string{"inputs.variants[0].files[0].text"}},
		{"format of a later program", replace(`"format": 3`, `"format": 4`), []string{"inputs.format", "expected 3, got 4"}},
		{"format of an older program", replace(`"format": 3`, `"format": 1`), []string{"inputs.format", "expected 3, got 1: use the program of the revision"}},
		{"an older schema with other keys", replace(`"schema": 2,`, `"schema": 1, "more": 1,`), []string{"expected 2, got 1: use the program of the revision"}},
		{"another schema with other keys", replace(`"schema": 2,`, `"schema": 3, "more": 1,`), []string{"expected 2, got 3"}},
		{"no derper", replace("          \"tailscaled\",\n          \"derper\"\n", "          \"tailscaled\"\n"), []string{"inputs.variants[0].programs", "no derper"}},
		{"program with the name of a layer", replace("tailscale.com/cmd/derper", "tailscale.com/cmd/base"), []string{"inputs.programs[0].package", "another layer"}},
		{"file in the place of a program", replace(`"name": "default",`, `"name": "default", "files": [{"path": "usr/local/bin/derper", "mode": "0755"}],`), []string{"inputs.variants[0].files[0].path", "hides a program"}},
		{"folder in the place of a program", replace(`"name": "default",`, `"name": "default", "files": [{"path": "entrypoint/", "mode": "0755"}],`), []string{"inputs.variants[0].files[0].path", "hides a program"}},
		{"file in the place of the programs' folder", replace(`"name": "default",`, `"name": "default", "files": [{"path": "usr/local", "mode": "0755"}],`), []string{"inputs.variants[0].files[0].path", "hides a program"}},
		{"file twice", replace(`"name": "default",`, `"name": "default", "files": [{"path": "x", "mode": "0755"}, {"path": "x/", "mode": "0755"}],`), []string{"inputs.variants[0].files[1].path", "duplicate"}},
		{"revision below 0", replace(`"revision": 1`, `"revision": -1`), []string{"inputs.revision"}},
		{"nothing published", replace("\"index\": {\n      \"default\": \""+digest("e")+"\"\n    }", "\"index\": {}"), []string{"published.index", "is empty"}},
		{"huge revision", replace(`"revision": 1`, `"revision": 1000000000`), []string{"inputs.revision", "expected 0 to 999999999"}},
		{"release that ends like a revision", replace(`"v1.102.3"`, `"v1.102.3-r1"`), []string{"inputs.tailscale.version", "revision"}},
		{"package with a command in it", replace("tailscale.com/cmd/derper", "tailscale.com/a;b/derper"), []string{"inputs.programs[0].package"}},
		{"package with a pattern", replace("tailscale.com/cmd/derper", "tailscale.com/.../derper"), []string{"inputs.programs[0].package"}},
		{"no build tags", replace(`"tailscale.com/cmd/derper"`, `"tailscale.com/cmd/derper", "buildTags": []`), []string{"inputs.programs[0].buildTags", "leave it out"}},
		{"file that takes others away", replace(`"name": "default",`, `"name": "default", "files": [{"path": "etc/.wh.passwd", "mode": "0644"}],`), []string{"files[0].path"}},
		{"file below a file", replace(`"name": "default",`, `"name": "default", "files": [{"path": "a", "mode": "0644"}, {"path": "a/b", "mode": "0644"}],`), []string{"files[1].path", "below a file"}},
		{"outputs without layers", strings.Replace(good, "\"layers\": [", "\"layers2\": [", 1), []string{"layers2"}},
		{"outputs of another variant", replace("\"outputs\": {\n    \"default\"", "\"outputs\": {\n    \"other\""), []string{"outputs", "variant default", "variant other", `remove "outputs"`}},
		{"withdrawn without its v", replace(`"inputs": {`, `"withdrawn": ["1.104.5"], "inputs": {`), []string{"withdrawn", "1.104.5"}},
		{"format 0", replace(`"format": 3`, `"format": 0`), []string{"inputs.format"}},
		{"digest too short", replace(digest("f"), digest("f")[:70]), []string{"outputs.default.index", "no digest"}},
		{"layer with a path for a name", replace(`"base"`, `"../base"`), []string{"outputs.default.platforms[0].layers", "../base"}},
		{"outputs of another platform", strings.Replace(good, `"platform": "linux/arm/v7"`, `"platform": "linux/386"`, 1), []string{"outputs.default.platforms[1].platform", "linux/386"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, err := Parse([]byte(test.data))
			if err == nil {
				t.Fatalf("accepted as %+v", l)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in the error: %v", want, err)
				}
			}
		})
	}
}

// A missing sum of a host is as good as a wrong one.
func TestMissingHost(t *testing.T) {
	for _, host := range Hosts {
		l := sample()
		delete(l.Inputs.Go.Sums, host)
		if _, err := l.Bytes(); err == nil || !strings.Contains(err.Error(), "inputs.go.sums."+host) {
			t.Errorf("without %s: %v", host, err)
		}
	}
}

func TestOutputsOfAllPlatforms(t *testing.T) {
	l := sample()
	l.Output().Platforms = l.Output().Platforms[:1]
	if _, err := l.Bytes(); err == nil || !strings.Contains(err.Error(), "1 platforms are recorded, and the inputs have 2") {
		t.Errorf("outputs of a part of the platforms: %v", err)
	}
	l.Inputs.Platforms = nil
	if _, err := l.Bytes(); err == nil || !strings.Contains(err.Error(), "inputs.platforms") {
		t.Errorf("no platforms: %v", err)
	}
}

func TestReadNamesTheFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "other.json")
	if _, err := Read(name); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), name) {
		t.Errorf("missing: %v", err)
	}
	if err := os.WriteFile(name, []byte("{"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(name); err == nil || !strings.Contains(err.Error(), name+": line 1, column 2") {
		t.Errorf("damaged: %v", err)
	}
}
