package plan

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xavieralpha/derper/internal/lock"
)

const host = "linux/amd64"

var platforms = []lock.Platform{"linux/amd64", "linux/arm/v6"}

func inputs() lock.Inputs {
	in, _ := lock.Defaults().Of(lock.Default)
	in.Tailscale = lock.Tailscale{
		Version: "v1.102.3",
		Commit:  "53a0d659afa51835dd7a9283873cca44261454f8",
		Time:    time.Date(2026, 8, 19, 19, 7, 43, 0, time.UTC),
		Sum:     "h1:tailscale",
	}
	in.Go = lock.Go{Version: "go1.26.8", Sums: map[string]string{host: "h1:go", "darwin/arm64": "h1:go-darwin"}}
	in.Roots = lock.Module{Version: "v0.1.0", Sum: "h1:roots"}
	in.Platforms = []lock.Platform{"linux/amd64", "linux/386", "linux/arm/v6"}
	return in
}

func sources() Sources {
	s := Sources{}
	for _, name := range Names() {
		s[name] = "sha256:" + name
	}
	return s
}

func newPlan(t *testing.T, in lock.Inputs, s Sources, host string) *Plan {
	t.Helper()
	p, err := New(in, s, platforms, host)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// keys are the keys of a plan's actions, by ID.
func keys(t *testing.T, p *Plan) map[string]string {
	t.Helper()
	m := map[string]string{}
	for _, a := range p.Actions() {
		if m[a.ID()] != "" {
			t.Fatalf("two actions with the ID %s", a.ID())
		}
		m[a.ID()] = a.Key()
	}
	return m
}

// The keys of a fixed lock are fixed. They may change when what an action makes
// changes (other flags, another setting, another input), and then they must. They
// must not when nothing of the kind does: everybody's cache would be worthless. (The
// digests of this program's own code are made up here.)
func TestGoldenKeys(t *testing.T) {
	want := map[string]string{
		"compile derper linux/amd64":      "3b1ddb001a05c754ff6c46196a587723c615fffe507ee39b95f2852559c9d0f1",
		"compile derper linux/arm/v6":     "b39da9c96a05cb2fd321f7fe955607a1a6fdcc562f978f816ec4db4991c9c755",
		"compile tailscaled linux/amd64":  "36e2522e27717e4148feae5d975165b4989c5b0aa22ac34b1bd6c8f6ac7d442e",
		"compile tailscaled linux/arm/v6": "5063f494c9b4cb86de0052273333703e5e304422f83521a2f6a874a1b6a88fab",
		"attestation linux/amd64":         "a506bb6f4d165c339b23e5d874a8471f352dff40e11b0ce3552dbf032968335e",
		"attestation linux/arm/v6":        "8a0e16fb478bedaf3eb804794c1959c185f371e41301b557a01099ccced46dd2",
		"entrypoint linux/amd64":          "a5f8064216ae01b871ea826b30b5ff2e30fc17d7977ffd70d2e9ca3bf581037d",
		"entrypoint linux/arm/v6":         "2dba6f86a8489cc902671083ae69b4e116c221a3b46fc645f69f38faf057336d",
		"flags linux/amd64":               "0ba870a8a39b8960d24a09ca5382a62bcb9201e6cc14b4f2b6aa81e9df70529e",
		"flags linux/arm/v6":              "605d9bd1784c89feefbfd24312e7533b003a7beef3b0fb0332afb9af3e457fdd",
		"layer base linux/amd64":          "062b79c6f13c32d12cfb5cce4c73adc7449491393453bc908ce0ad5b9debe509",
		"layer base linux/arm/v6":         "d6d8d16dde16575a1802d5d4b83112e8e4a30b0ffc10bf5fa12c9c6e69e61123",
		"layer derper linux/amd64":        "3497d4d06da09be81b336b6410a5bd094e5a56ea5ebebaac2be71ec950b986c9",
		"layer derper linux/arm/v6":       "ac11325d580ae85348566c4c7027350c20b45fa81003b46df7da82663b40e344",
		"layer entrypoint linux/amd64":    "43add5acb954819d137e26ca075e69568ea89969d5e03e0ed94940e74e950519",
		"layer entrypoint linux/arm/v6":   "175a24572ba46221d67726da2b2fd25e603f8b258943c355777cb8a025537f83",
		"layer tailscaled linux/amd64":    "1e54f3d94b519dc393795ec23dd7a3730316d5430dcfff9165fa45ee032762db",
		"layer tailscaled linux/arm/v6":   "e7b749a58df4780e5dddfdbd583dba73e19f7f8fffcc4f07d540544254d026eb",
		"roots":                           "9dca9e0c60ff8b8720b1e5fee1ce7ad23bafcd3c31affa4bdd7e07c953093e0a",
	}
	got := keys(t, newPlan(t, inputs(), sources(), host))
	for id, key := range got {
		if want[id] != key {
			t.Errorf("%q: %q,", id, key)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d actions, not %d", len(got), len(want))
	}
}

// The plan is that of the lock and of nothing else: not of the environment, not of
// the time, not of the lists that it was given.
func TestPure(t *testing.T) {
	want := keys(t, newPlan(t, inputs(), sources(), host))
	for _, setting := range []string{
		"GOFLAGS=-tags=x", "GOAMD64=v3", "GOEXPERIMENT=jsonv2", "GOENV=/etc/passwd", "CGO_ENABLED=1", "GOPRIVATE=*",
		"GOOS=plan9", "GOARCH=arm", "TZ=Asia/Kathmandu", "HOME=/nonexistent", "LANG=tr_TR.UTF-8",
	} {
		name, value, _ := strings.Cut(setting, "=")
		t.Setenv(name, value)
	}
	in := inputs()
	got := keys(t, newPlan(t, in, sources(), host))
	if !reflect.DeepEqual(got, want) {
		t.Errorf("other keys in another environment:\n%v\n%v", got, want)
	}
	if !reflect.DeepEqual(in, inputs()) {
		t.Errorf("the inputs were changed: %+v", in)
	}
	// One platform alone has the keys that it has among others.
	alone, err := New(inputs(), sources(), platforms[1:], host)
	if err != nil {
		t.Fatal(err)
	}
	for id, key := range keys(t, alone) {
		if want[id] != key {
			t.Errorf("%s: another key without the other platforms", id)
		}
	}
}

// Every input moves the keys of what is made of it, and no other; so does every source.
func TestInputsMoveKeys(t *testing.T) {
	const (
		compile, small, entrypoint         = "compile derper", "compile tailscaled", "entrypoint"
		base, tailscaled, derper, ownLayer = "layer base", "layer tailscaled", "layer derper", "layer entrypoint"
		attestation, flags                 = "attestation", "flags"
		moved, none, roots                 = "h1:moved", "", "roots"
		everything, sep                    = "*", ", "
	)
	programs := strings.Join([]string{compile, small, tailscaled, derper, flags, ownLayer, attestation}, sep)
	layers := strings.Join([]string{base, tailscaled, derper, ownLayer, attestation}, sep)
	type test struct {
		change func(*lock.Inputs, Sources)
		moves  string
	}
	// A field of the lock's inputs moves these.
	tests := map[string]test{
		"Source":            {func(in *lock.Inputs, _ Sources) { in.Source = "https://example.com/fork" }, attestation},
		"Tailscale.Version": {func(in *lock.Inputs, _ Sources) { in.Tailscale.Version = "v1.102.4" }, programs},
		"Tailscale.Commit":  {func(in *lock.Inputs, _ Sources) { in.Tailscale.Commit = strings.Repeat("a", 40) }, programs},
		"Tailscale.Sum":     {func(in *lock.Inputs, _ Sources) { in.Tailscale.Sum = moved }, programs},
		"Tailscale.Time": {func(in *lock.Inputs, _ Sources) { in.Tailscale.Time = in.Tailscale.Time.Add(time.Second) },
			layers},
		"Go.Version": {func(in *lock.Inputs, _ Sources) { in.Go.Version = "go1.26.9" }, everything},
		"Go.Sums":    {func(in *lock.Inputs, _ Sources) { in.Go.Sums[host] = moved }, everything},
		"Go.Sums of another host": {func(in *lock.Inputs, _ Sources) { in.Go.Sums["darwin/arm64"] = moved },
			attestation},
		"Roots.Version": {func(in *lock.Inputs, _ Sources) { in.Roots.Version = "v0.2.0" }, roots + sep + base + sep + attestation},
		"Roots.Sum":     {func(in *lock.Inputs, _ Sources) { in.Roots.Sum = moved }, roots + sep + base + sep + attestation},
		"Programs":      {func(in *lock.Inputs, _ Sources) { in.Programs[0].Package = "tailscale.com/other/derper" }, compile + sep + derper + sep + flags + sep + ownLayer + sep + attestation},
		"Modules": {func(in *lock.Inputs, _ Sources) {
			in.Modules = []lock.Source{{Path: "example.com/tools", Module: lock.Module{Version: "v1.0.0", Sum: moved}}}
			in.Programs = append(in.Programs, lock.Program{Package: "example.com/tools/sh"})
			in.Variants[0].Programs = append(in.Variants[0].Programs, "sh")
		}, attestation},
		"Programs of no variant": {func(in *lock.Inputs, _ Sources) {
			in.Programs = append(in.Programs, lock.Program{Package: "tailscale.com/cmd/stunc"})
		}, none},
		"Variants": {func(in *lock.Inputs, _ Sources) { in.Variants[0].User = "65532" }, attestation},
		"Variants' budget and tags": {func(in *lock.Inputs, _ Sources) { in.Variants[0].Budget, in.Variants[0].Suffix = 1, "-x" },
			none},
		"Variants besides": {func(in *lock.Inputs, _ Sources) {
			in.Variants = append(in.Variants, lock.Variant{Name: "debug", Programs: []string{"derper"}})
		}, none},
		"Platforms": {func(in *lock.Inputs, _ Sources) { in.Platforms = append(in.Platforms, "linux/s390x") }, none},
		"Format":    {func(in *lock.Inputs, _ Sources) { in.Format = lock.Format + 1 }, layers},
		"Revision":  {func(in *lock.Inputs, _ Sources) { in.Revision = 1 }, attestation},
	}
	// A source moves these.
	for name, moves := range map[string]string{
		"internal/pipeline":                      everything,
		"internal/toolchain":                     everything,
		"internal/roots":                         roots + sep + base + sep + attestation,
		"internal/image":                         layers,
		"internal/attest":                        attestation,
		"internal/lock":                          attestation,
		"internal/plan":                          attestation,
		"derper.go":                              layers + sep + entrypoint,
		"entrypoint":                             entrypoint + sep + flags + sep + ownLayer + sep + attestation,
		"internal/flags":                         flags + sep + ownLayer + sep + attestation,
		"LICENSE":                                base + sep + attestation,
		Tools:                                    none, // of the program that TestOwnProgram adds
		"go":                                     layers + sep + flags,
		"github.com/klauspost/compress":          layers,
		"github.com/google/go-containerregistry": attestation,
		"github.com/google/licensecheck":         attestation,
		"github.com/spdx/tools-golang":           attestation,
		"golang.org/x/mod":                       tailscaled + sep + derper + sep + attestation,
	} {
		tests[name] = test{func(_ *lock.Inputs, s Sources) { s[name] = moved }, moves}
	}
	before := keys(t, newPlan(t, inputs(), sources(), host))
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			in, s := inputs(), sources()
			test.change(&in, s)
			after := keys(t, newPlan(t, in, s, host))
			for id, key := range before {
				kind := id
				for _, p := range platforms {
					kind = strings.TrimSuffix(kind, " "+string(p))
				}
				want := test.moves == everything || slices.Contains(strings.Split(test.moves, sep), kind)
				if moves := after[id] != key; moves != want {
					t.Errorf("%s: its key moves: %v, should: %v", id, moves, want)
				}
			}
		})
	}
	// A field that is added to the lock, and a source that is added, need a line above.
	var fields func(t reflect.Type, path string) []string
	fields = func(t reflect.Type, path string) (list []string) {
		if t.Kind() != reflect.Struct || t == reflect.TypeFor[time.Time]() {
			return []string{strings.TrimPrefix(path, ".")}
		}
		for i := range t.NumField() {
			list = append(list, fields(t.Field(i).Type, path+"."+t.Field(i).Name)...)
		}
		return list
	}
	for _, name := range append(fields(reflect.TypeFor[lock.Inputs](), ""), Names()...) {
		if _, ok := tests[name]; !ok {
			t.Errorf("not tested: %s", name)
		}
	}
}

// A plan without the digest of a source would give keys that do not tell.
func TestMissingSource(t *testing.T) {
	for _, name := range Names() {
		s := sources()
		delete(s, name)
		if _, err := New(inputs(), s, platforms, host); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
	}
}

// Where a build runs decides about the toolchain and about nothing else.
func TestHost(t *testing.T) {
	here, there := newPlan(t, inputs(), sources(), host), newPlan(t, inputs(), sources(), "darwin/arm64")
	for i, a := range here.Actions() {
		b := there.Actions()[i]
		if a.Kind == "layer" || a.Kind == "roots" || a.Kind == "attestation" || a.Kind == "flags" {
			continue // of what the others make; runs where the build does
		}
		if !reflect.DeepEqual(a.Env, b.Env) || !reflect.DeepEqual(a.Args, b.Args) {
			t.Errorf("%s is done otherwise on another host:\n%q\n%q\n%q\n%q", a.ID(), a.Env, b.Env, a.Args, b.Args)
		}
		if a.Inputs["golang.org/toolchain@v0.0.1-go1.26.8.linux-amd64"] != "h1:go" ||
			b.Inputs["golang.org/toolchain@v0.0.1-go1.26.8.darwin-arm64"] != "h1:go-darwin" {
			t.Errorf("%s has the wrong toolchain: %v, %v", a.ID(), a.Inputs, b.Inputs)
		}
	}
}

func TestRefuses(t *testing.T) {
	if _, err := New(inputs(), sources(), platforms, "windows/amd64"); err == nil || !strings.Contains(err.Error(), "windows/amd64") {
		t.Errorf("a host without a toolchain: %v", err)
	}
	if _, err := New(inputs(), sources(), []lock.Platform{"linux/s390x"}, host); err == nil || !strings.Contains(err.Error(), "linux/s390x is not in the lock") {
		t.Errorf("a platform that is not in the lock: %v", err)
	}
}

// Actions can run in the order in which they are listed.
func TestOrder(t *testing.T) {
	p := newPlan(t, inputs(), sources(), host)
	made := map[string]bool{}
	taken := map[string]bool{}
	for _, a := range p.Actions() {
		for name, in := range a.Inputs {
			if strings.HasPrefix(in, "action:") {
				if !made[in] {
					t.Errorf("%s takes %s from %s, which is not made before", a.ID(), name, in)
				}
				taken[in] = true
			}
		}
		made["action:"+a.Key()] = true
	}
	for _, a := range p.Actions() {
		if a.Kind != "attestation" && !taken["action:"+a.Key()] {
			t.Errorf("%s is made for nothing", a.ID())
		}
	}
	for _, pp := range p.Platforms {
		var names []string
		for _, a := range pp.Layers {
			names = append(names, a.Name)
		}
		if want := []string{"base", "tailscaled", "derper", "entrypoint"}; !slices.Equal(names, want) {
			t.Errorf("%s: layers %v, not %v, least changing first", pp.Platform, names, want)
		}
	}
}

// An action that was kept as JSON is the same action.
func TestJSON(t *testing.T) {
	for _, a := range newPlan(t, inputs(), sources(), host).Actions() {
		back := new(Action)
		if err := json.Unmarshal(a.JSON(), back); err != nil {
			t.Fatal(err)
		}
		if back.Key() != a.Key() || !reflect.DeepEqual(back, a) {
			t.Errorf("%s: comes back as %+v", a.ID(), back)
		}
	}
}
