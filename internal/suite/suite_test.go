package suite

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xavieralpha/derper/entrypoint/setting"
	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/container"
	"github.com/xavieralpha/derper/internal/flags"
	"github.com/xavieralpha/derper/internal/probe"
	"github.com/xavieralpha/derper/internal/testing/need"
	"github.com/xavieralpha/derper/internal/testing/releasetest"
	"github.com/xavieralpha/derper/internal/testing/testlock"
)

func TestMain(m *testing.M) {
	Init()
	if _, err := testlock.Containers(); err != nil {
		fmt.Fprintln(os.Stderr, "suite test:", err)
		os.Exit(1)
	}
	flag.Set("test.parallel", "4") // containers wait more than they work; -parallel on the command line still counts
	code := m.Run()
	if closeImage != nil {
		closeImage()
	}
	os.Exit(code)
}

var (
	closeImage func()
	realImage  = sync.OnceValues(func() (img v1.Image, err error) {
		img, closeImage, err = releasetest.Image(context.Background(), "../..")
		return img, err
	})
)

// theImage is the image of the lock.
func theImage(t testing.TB) v1.Image {
	t.Helper()
	need.Linux(t)
	img, err := realImage()
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// theFlags are those of the derper in it.
func theFlags(t testing.TB) setting.Release {
	t.Helper()
	r, err := flags.Of(t.Context(), theImage(t))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestNative tests the image of the lock: all of it.
func TestNative(t *testing.T) { testImage(t, native(t)) }

// native is the runner that needs no Docker.
func native(t testing.TB) container.Runner {
	t.Helper()
	need.Namespaces(t)
	return container.Native()
}

// TestDocker does so with Docker.
func TestDocker(t *testing.T) {
	need.Root(t, "to enter the networks of Docker's containers")
	need.Docker(t)
	testImage(t, container.Docker())
}

func testImage(t *testing.T, runner container.Runner) {
	r, err := Run(t.Context(), Config{Image: theImage(t), Runner: runner, Progress: func(row Row, done, of int) {
		switch row.Result {
		case probe.Pass:
			t.Log(row.Text(NameWidth))
		case probe.Skip:
			t.Run(row.Name, func(t *testing.T) {
				if hasIPv6() != nil {
					need.Missing(t, "IPv6 on loopback", row.Reason)
				}
				t.Errorf("left out: %s", row.Reason)
			})
		case probe.Fail:
			t.Errorf("%v\nlog of its containers:\n%s", row, row.Log)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(r.Summary())
	var junit strings.Builder
	if err := WriteJUnit(&junit, "test", []*Results{r}); err != nil || !strings.Contains(junit.String(), `name="`+r.Platform+" default with "+r.Runner+`"`) {
		t.Error(err)
	}
	for _, v := range theFlags(t).Table().Variables() {
		if _, ok := r.Find(rowOf(v.Name)); !ok {
			t.Errorf("no row for %s", v.Name)
		}
	}
}

// TestNames guards --run and the reports against two rows of one name, and a release against
// a name that is not signed.
func TestNames(t *testing.T) {
	seen := map[string]bool{}
	all := &Results{Platform: "linux/amd64", Digest: "sha256:" + strings.Repeat("0", 64), Runner: "native"}
	for _, c := range Cases(setting.KnownRelease()) {
		for _, name := range c.rows() {
			if seen[name] {
				t.Errorf("two rows are called %s", name)
			}
			seen[name] = true
			all.Rows = append(all.Rows, Row{Name: name, Result: []probe.Result{probe.Pass, probe.Skip, probe.Fail}[len(seen)%3]})
		}
	}
	want := (&Report{Platforms: []*Results{all}}).Tests("v1")
	data, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := attest.ParseTests(data)
	if err != nil || !reflect.DeepEqual(got, want) || len(got[0].Passed)+len(got[0].Skipped)+len(got[0].Failed) != len(seen) {
		t.Errorf("as they are signed: %+v, %v", got, err)
	}
}

// check runs the rows that match and expects exactly those named to fail. As those
// take all the patience there is, it is short; a machine that was too slow for it
// gets the ordinary one.
func check(t *testing.T, img v1.Image, run string, want ...string) {
	t.Helper()
	slices.Sort(want)
	runner := native(t)
	var r *Results
	var failed, lines []string
	for _, patience := range []time.Duration{8 * time.Second, 0} {
		var err error
		r, err = Run(t.Context(), Config{Image: img, Runner: runner, Run: regexp.MustCompile(run), patience: patience})
		if err != nil {
			t.Fatal(err)
		}
		failed, lines = nil, nil
		for _, row := range r.Rows {
			if row.Result == probe.Fail {
				failed = append(failed, row.Name)
			}
			lines = append(lines, row.Text(NameWidth))
		}
		slices.Sort(failed)
		if slices.Equal(failed, want) {
			break
		}
	}
	if !slices.Equal(failed, want) {
		t.Errorf("failed: %q, wants exactly %q:\n%s", failed, want, strings.Join(lines, "\n"))
		for _, row := range r.Rows {
			if row.Result == probe.Fail {
				t.Logf("%s: log of its containers:\n%s", row.Name, row.Log)
			}
		}
	}
	for _, row := range r.Rows {
		if row.Result == probe.Fail && row.Reason == "" {
			t.Errorf("%s: a failure without a reason", row.Name)
		}
		if row.Result == probe.Fail && row.Name == "sigterm" && !strings.Contains(row.Log, "serving on") {
			t.Errorf("%s: a failure without the log of its containers: %s", row.Name, row.Log)
		}
	}
	if len(r.Rows) < 2 {
		t.Errorf("only %d rows match %s: nothing that must pass", len(r.Rows), run)
	}
}

// scenarioRows matches the rows of the scenario of a variable, and one more.
func scenarioRows(variable string) string {
	for _, s := range scenarios {
		var names []string
		for _, e := range s.effects {
			names = append(names, e.name)
		}
		if slices.Contains(names, variable) {
			return fmt.Sprintf("^(variable/(%s)|versions)$", strings.Join(names, "|"))
		}
	}
	return "none"
}
