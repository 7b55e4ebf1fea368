package features

import (
	"flag"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tailscale.com/feature/featuretags"

	"github.com/xavieralpha/derper/internal/lock"
)

// released is upstream's list in the release that go.mod names, as this package reads it.
func released(t *testing.T) Table {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", lock.TailscaleModule).Output()
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), File))
	if err != nil {
		t.Fatal(err)
	}
	table, err := Parse(source)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// TestReal compares what is read out of upstream's source with what its own code says.
func TestReal(t *testing.T) {
	table := released(t)
	if len(table) != len(featuretags.Features) || len(table) < 50 {
		t.Errorf("%d features, upstream has %d", len(table), len(featuretags.Features))
	}
	for ft, meta := range featuretags.Features {
		name := string(ft)
		if table[name].About != meta.Desc {
			t.Errorf("%s: %q, upstream says %q", name, table[name].About, meta.Desc)
		}
		kept, unknown := table.Keep([]string{name})
		if want := featuretags.Requires(ft); unknown != nil || len(kept) != len(want) {
			t.Errorf("%s keeps %v, unknown %v, upstream %v", name, kept, unknown, want)
		}
		tag := "ts_include_" + name
		if ft.IsOmittable() {
			tag = ft.OmitTag()
		}
		if got := table.tag(name); got != tag {
			t.Errorf("%s: tag %s, upstream's is %s", name, got, tag)
		}
		if unknown := table.Unknown([]string{tag}); unknown != nil {
			t.Errorf("%v is not known", unknown)
		}
	}
	// What only later releases have is in every earlier one.
	if _, unknown := table.Keep(names(lock.Kept)); !slices.Equal(unknown, []string{"nattraversal"}) {
		t.Errorf("kept, and upstream does not have them: %v", unknown)
	}
}

func names(features []lock.Feature) (list []string) {
	for _, f := range features {
		list = append(list, f.Name)
	}
	return list
}

const source = `package featuretags

const CLI FeatureTag = "cli"

type FeatureTag string

func (ft FeatureTag) IsOmittable() bool {
	switch ft {
	case CLI:
		return false
	}
	return true
}

var Features = map[FeatureTag]FeatureMeta{
	CLI:   {Sym: "CLI", Desc: "the command line"},
	"dbus": {Sym: "DBus", Desc: "D-Bus", ImplementationDetail: true},
	"ssh": {
		Sym:  "SSH",
		Desc: "Tailscale SSH",
		Deps: []FeatureTag{"c2n", "dbus"}, // and more
	},
	"c2n":   {Sym: "C2N", Deps: []FeatureTag{"loop"}},
	"loop":  {Deps: []FeatureTag{"c2n"}},
	"tap":   {},
}
`

func TestTags(t *testing.T) {
	table, err := Parse([]byte(source))
	if err != nil {
		t.Fatal(err)
	}
	for keep, want := range map[string]string{
		"":            "ts_omit_c2n ts_omit_dbus ts_omit_loop ts_omit_ssh ts_omit_tap",
		"tap":         "ts_omit_c2n ts_omit_dbus ts_omit_loop ts_omit_ssh",
		"ssh":         "ts_omit_tap",
		"cli loop":    "ts_include_cli ts_omit_dbus ts_omit_ssh ts_omit_tap",
		"tap unheard": "ts_omit_c2n ts_omit_dbus ts_omit_loop ts_omit_ssh",
	} {
		if got := strings.Join(table.Tags(strings.Fields(keep)), " "); got != want {
			t.Errorf("to keep %q takes %s, want %s", keep, got, want)
		}
	}
	kept, unknown := table.Keep([]string{"ssh", "unheard"})
	if got := slices.Sorted(maps.Keys(kept)); !slices.Equal(got, []string{"c2n", "dbus", "loop", "ssh"}) || !slices.Equal(unknown, []string{"unheard"}) {
		t.Errorf("kept %v, unknown %v", got, unknown)
	}
	if by := table.Required("c2n", kept); !slices.Equal(by, []string{"loop", "ssh"}) {
		t.Errorf("c2n is required by %v", by)
	}
	if got := table.Unknown([]string{"netgo", "ts_include_cli", "ts_include_tap", "ts_omit_cli", "ts_omit_gone", "ts_omit_tap"}); !slices.Equal(got, []string{"ts_include_tap", "ts_omit_cli", "ts_omit_gone"}) {
		t.Errorf("unknown: %v", got)
	}
}

// A list whose form is not known is an error that names the line, never another list.
func TestOtherForm(t *testing.T) {
	for name, test := range map[string]struct{ old, new, want string }{
		"no Go":                {"package featuretags", "featuretags", "expected 'package'"},
		"no list":              {"var Features", "var Others", "found no map Features"},
		"made by a call":       {"var Features = ", "var Features = merge()\n\nvar more = ", "found no map Features"},
		"a computed name":      {`"tap":   {}`, `"ta"+"p":   {}`, ":25:2: expected a string"},
		"a constant of others": {`CLI:   {`, `CMD:   {`, ":16:2: expected a string"},
		"made by a function":   {`"tap":   {}`, `"tap":   tap()`, ":25:11: expected a literal of a feature"},
		"computed needs":       {`Deps: []FeatureTag{"loop"}`, `Deps: needs()`, "expected a literal list"},
		"unkeyed":              {`{Sym: "DBus", Desc: "D-Bus", ImplementationDetail: true}`, `{"DBus", "D-Bus", nil, true}`, ":17:11: expected a key and a value"},
		"needs what is not":    {`Deps: []FeatureTag{"loop"}`, `Deps: []FeatureTag{"lop"}`, "c2n requires lop"},
		"no opposites":         {"IsOmittable", "CanOmit", "found no method IsOmittable"},
		"other opposites":      {"return false", "return ft != CLI", "expected cases that return false"},
		"all are opposites":    {"return true", "return false", "expected one switch, and true for all others"},
		"twice":                {`"tap":   {}`, `"ssh":   {}`, `expected the name of another feature, got "ssh"`},
	} {
		t.Run(name, func(t *testing.T) {
			other := strings.Replace(source, test.old, test.new, 1)
			if other == source {
				t.Fatalf("%q is not in the source", test.old)
			}
			table, err := Parse([]byte(other))
			if err == nil || table != nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), File) {
				t.Errorf("%v, %v, want %q", table, err, test.want)
			}
		})
	}
}

var update = flag.Bool("update", false, "rewrite the table in docs/image.md")

// TestPage keeps docs/image.md equal to the code, and to what the release in go.mod requires.
func TestPage(t *testing.T) {
	const page, begin, end = "../../docs/image.md", "<!-- features:begin -->\n", "<!-- features:end -->"
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(b), begin)
	old, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s lacks the lines %s and %s", page, strings.TrimSpace(begin), end)
	}
	table := released(t)
	kept, _ := table.Keep(names(lock.Kept))
	want := "| feature | why it is kept |\n|---|---|\n"
	for _, f := range lock.Kept {
		want += "| `" + f.Name + "` | " + f.Why + " |\n"
	}
	for _, name := range slices.Sorted(maps.Keys(kept)) {
		if !slices.Contains(names(lock.Kept), name) {
			want += "| `" + name + "` | only because " + strings.Join(table.Required(name, kept), ", ") + " requires it |\n"
		}
	}
	if old != want && *update {
		err = os.WriteFile(page, []byte(before+begin+want+end+after), 0o644)
	} else if old != want {
		t.Error("the table in docs/image.md is not that of the code; run: go test ./internal/features -run Page -update")
	}
	if err != nil {
		t.Fatal(err)
	}
	// What is not there.
	_, left, _ := strings.Cut(after, "| not there | features |\n")
	left, _, _ = strings.Cut(left, "\n\n")
	said := map[string]bool{}
	for _, row := range strings.Split(left, "\n")[1:] {
		cells := strings.Split(row, " | ")
		for _, name := range strings.Split(strings.TrimSuffix(cells[len(cells)-1], " |"), ", ") {
			name = strings.Trim(name, "`")
			if said[name] = true; kept[name] {
				t.Errorf("%s is kept, and the page says that it is not there", name)
			}
			if _, ok := table[name]; !ok {
				t.Errorf("%s is no feature of upstream's", name)
			}
		}
	}
	if !said["logtail"] {
		t.Error("the page does not say that there is no telemetry")
	}
}
