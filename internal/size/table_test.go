package size

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xavieralpha/derper/internal/lock"
)

// TestPages keeps the tables of sizes equal to what the lock records.
func TestPages(t *testing.T) {
	const checkout = "../.."
	l, err := lock.Read(filepath.Join(checkout, lock.File))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := Tables(checkout, l)
	if err != nil && !errors.Is(err, ErrNoSizes) {
		t.Fatal(err)
	}
	for name := range Pages {
		_, table, _, err := split(filepath.Join(checkout, name))
		if err != nil {
			t.Fatal(err)
		}
		want := pages[name]
		if !strings.HasPrefix(table, about(l)) && table != "" {
			continue // of another release than the lock's, which it says
		}
		have, err := os.ReadFile(filepath.Join(checkout, name))
		if err != nil {
			t.Fatal(err)
		}
		if want != "" && string(have) != want {
			t.Errorf("the table of sizes in %s is not that of %s; run: go run ./cmd/build size --table", name, lock.File)
		}
	}
}

// TestTables guards what the tables say.
func TestTables(t *testing.T) {
	in, _ := lock.Defaults().Of(lock.Default)
	in.Tailscale.Version, in.Revision = "v1.102.3", 1
	in.Platforms = []lock.Platform{"linux/amd64", "linux/arm/v7"}
	in.Variants = append(in.Variants, lock.Variant{Name: "debug", Programs: []string{"derper"}, Suffix: "-debug"})
	output := func(most int64) *lock.Output {
		return &lock.Output{Platforms: []lock.PlatformOutput{
			{Platform: "linux/amd64", Layers: []lock.Layer{{Name: "base", Bytes: 200_000, OnDisk: 500_000}, {Name: "derper", Bytes: most, OnDisk: 3 * most}}},
			{Platform: "linux/arm/v7", Layers: []lock.Layer{{Name: "base", Bytes: 200_000, OnDisk: 500_000}}},
		}}
	}
	l := &lock.Lock{Inputs: in, Outputs: map[string]*lock.Output{lock.Default: output(5_000_000), "debug": output(100_000)}}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "docs"), 0o755); err != nil {
		t.Fatal(err)
	}
	page := "before\n" + begin + "old\n" + end + "behind\n"
	for name := range Pages {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := Write(dir, l); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"README.md": "| default | 200.0 kB–5.2 MB | 500.0 kB–15.5 MB |\n| debug | 200.0–300.0 kB | 500.0–800.0 kB |\n",
		"docs/image.md": "| default | linux/amd64 | 5.2 MB | 15.5 MB | base 200.0 kB, derper 5.0 MB |\n| default | linux/arm/v7 | 200.0 kB | 500.0 kB | base 200.0 kB |\n" +
			"| debug | linux/amd64 | 300.0 kB | 800.0 kB | base 200.0 kB, derper 100.0 kB |\n",
	} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		text := string(data)
		if !strings.Contains(text, want) || !strings.Contains(text, "`1.102.3-r1`") || strings.Contains(text, "old") || !strings.HasPrefix(text, "before\n") || !strings.HasSuffix(text, "behind\n") {
			t.Errorf("%s: %s", name, text)
		}
	}
	l.Outputs["debug"].Platforms[1].Layers = nil
	if err := Write(dir, l); !errors.Is(err, ErrNoSizes) {
		t.Errorf("without sizes: %v", err)
	}
	l.Outputs["debug"] = output(1)
	if err := os.WriteFile(filepath.Join(dir, "README.md"), []byte(begin), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Write(dir, l); err == nil || !strings.Contains(err.Error(), "README.md: lacks the lines") {
		t.Errorf("a page without the lines: %v", err)
	}
}
