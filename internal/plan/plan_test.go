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
	return lock.Inputs{
		Tailscale: lock.Tailscale{
			Version: "v1.102.3",
			Commit:  "53a0d659afa51835dd7a9283873cca44261454f8",
			Time:    time.Date(2026, 8, 19, 19, 7, 43, 0, time.UTC),
			Sum:     "h1:tailscale",
		},
		Go:          lock.Go{Version: "go1.26.8", Sums: map[string]string{host: "h1:go", "darwin/arm64": "h1:go-darwin"}},
		Roots:       lock.Module{Version: "v0.1.0", Sum: "h1:roots"},
		Platforms:   []lock.Platform{"linux/amd64", "linux/386", "linux/arm/v6"},
		LayerFormat: 1,
	}
}

func sources() Sources {
	return Sources{Entrypoint: "sha256:entrypoint", Roots: "sha256:roots", Licence: "sha256:licence", Etc: "sha256:etc", Encoder: "sha256:encoder", Attestation: "sha256:attestation"}
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
// must not when nothing of the kind does: everybody's cache would be worthless, and
// a release of this program alone would compile everything anew.
func TestGoldenKeys(t *testing.T) {
	want := map[string]string{
		"compile linux/amd64":           "3adeec2da255da001f0264a9b9a5a477f03ddb848e9c37d804cc0df5b72f107e",
		"compile linux/arm/v6":          "4b448806a55a02cdaf0c1b3bce4b133bbc9b4ca2a7bd6e090dd6cbf99d510caa",
		"entrypoint linux/amd64":        "5d7e227fa8626b7f76da75a186e1ea258ec1928e7ff3e9fd80a600f0e238a33e",
		"entrypoint linux/arm/v6":       "3483b819a93460cfaca2d44636452413caaed1c197e2b010f3d5deb70a3a8762",
		"attestation linux/amd64":       "8e06b068a344008f14a2f6cf8fdfeafd7f04b01eda635d575c0e5467d5460e77",
		"attestation linux/arm/v6":      "1ff7a9cf49b342c429fae2855e14ea47a678dd5b42cafc7f68e175a9863e69df",
		"layer base linux/amd64":        "6c94f9250d4127708dd1e5f3428fe373e48bb1b3da3e6dc94c9e27c141e61c71",
		"layer base linux/arm/v6":       "b43440fdfbc49eb67dc3405d0b067df667bd4dad36ae426af2dab111d83f1f5d",
		"layer derper linux/amd64":      "9c233ea5e469e4c72e6f9acf43f48e0a8a751303dcd0a23e1459520ba3e07585",
		"layer derper linux/arm/v6":     "92f2d1b32de6dd346d797f60db166efa94fc8f8133fcde2f41f70fa7eb309167",
		"layer entrypoint linux/amd64":  "7decccc6f4ae34186047d4375306d97278b807f866e289f7335607eb2d6935b7",
		"layer entrypoint linux/arm/v6": "10b55b13104379507a8f51e356fb7c7f51e48cd87355a48ddac1ab7ffba890f3",
		"layer tailscaled linux/amd64":  "8ba2429b0f813165a725e2dab2bd88ff69e3bc5adb7ca6b58d57f321c8ab9974",
		"layer tailscaled linux/arm/v6": "a69ac24271f2b7b8de1a71d8ab8dfbc409dc8c308b1bafea9a05d5be1da2be77",
		"roots":                         "2b792170ae00df28c113acafa8a5efe8063103942b8746e0ff0eafe372510fd9",
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

// Every input moves the keys of what is made of it, and no other.
func TestInputsMoveKeys(t *testing.T) {
	const (
		compile, entrypoint                 = "compile", "entrypoint"
		base, tailscaled, derper, ownLayer  = "layer base", "layer tailscaled", "layer derper", "layer entrypoint"
		attestation                         = "attestation"
		moved, none, roots, everything, sep = "h1:moved", "", "roots", "*", ", "
	)
	programs := strings.Join([]string{compile, base, tailscaled, derper, attestation}, sep)
	layers := strings.Join([]string{base, tailscaled, derper, ownLayer, attestation}, sep)
	tests := map[string]struct {
		change func(*lock.Inputs, *Sources)
		moves  string
	}{
		"Tailscale.Version": {func(in *lock.Inputs, _ *Sources) { in.Tailscale.Version = "v1.102.4" }, programs},
		"Tailscale.Commit":  {func(in *lock.Inputs, _ *Sources) { in.Tailscale.Commit = strings.Repeat("a", 40) }, programs},
		"Tailscale.Sum":     {func(in *lock.Inputs, _ *Sources) { in.Tailscale.Sum = moved }, programs},
		"Tailscale.Time": {func(in *lock.Inputs, _ *Sources) { in.Tailscale.Time = in.Tailscale.Time.Add(time.Second) },
			layers},
		"Go.Version": {func(in *lock.Inputs, _ *Sources) { in.Go.Version = "go1.26.9" }, everything},
		"Go.Sums":    {func(in *lock.Inputs, _ *Sources) { in.Go.Sums[host] = moved }, everything},
		"Go.Sums of another host": {func(in *lock.Inputs, _ *Sources) { in.Go.Sums["darwin/arm64"] = moved },
			attestation},
		"Roots.Version": {func(in *lock.Inputs, _ *Sources) { in.Roots.Version = "v0.2.0" }, roots + sep + base + sep + attestation},
		"Roots.Sum":     {func(in *lock.Inputs, _ *Sources) { in.Roots.Sum = moved }, roots + sep + base + sep + attestation},
		"Platforms": {func(in *lock.Inputs, _ *Sources) { in.Platforms = append(in.Platforms, "linux/s390x") },
			none},
		"LayerFormat": {func(in *lock.Inputs, _ *Sources) { in.LayerFormat = 2 }, layers},
		"Entrypoint":  {func(_ *lock.Inputs, s *Sources) { s.Entrypoint = moved }, entrypoint + sep + ownLayer + sep + attestation},
		"Roots":       {func(_ *lock.Inputs, s *Sources) { s.Roots = moved }, roots + sep + base + sep + attestation},
		"Licence":     {func(_ *lock.Inputs, s *Sources) { s.Licence = moved }, base + sep + attestation},
		"Etc":         {func(_ *lock.Inputs, s *Sources) { s.Etc = moved }, base + sep + attestation},
		"Encoder":     {func(_ *lock.Inputs, s *Sources) { s.Encoder = moved }, layers},
		"Attestation": {func(_ *lock.Inputs, s *Sources) { s.Attestation = moved }, attestation},
	}
	before := keys(t, newPlan(t, inputs(), sources(), host))
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			in, s := inputs(), sources()
			test.change(&in, &s)
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
	// A field that is added to the lock needs a line above.
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
	for _, name := range append(fields(reflect.TypeFor[lock.Inputs](), ""), fields(reflect.TypeFor[Sources](), "")...) {
		if _, ok := tests[name]; !ok {
			t.Errorf("not tested: %s", name)
		}
	}
}

// Where a build runs decides about the toolchain and about nothing else.
func TestHost(t *testing.T) {
	here, there := newPlan(t, inputs(), sources(), host), newPlan(t, inputs(), sources(), "darwin/arm64")
	for i, a := range here.Actions() {
		b := there.Actions()[i]
		if a.Kind == "layer" || a.Kind == "roots" || a.Kind == "attestation" {
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
