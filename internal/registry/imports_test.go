package registry

import (
	"os/exec"
	"strings"
	"testing"
)

// TestOnlyWay guards that nothing else speaks to registries: neither past the limits and
// the secrets of this package, nor in the clear.
func TestOnlyWay(t *testing.T) {
	cmd := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := false
	for line := range strings.Lines(string(out)) {
		imports := strings.Fields(line)
		for _, i := range imports[1:] {
			if !strings.HasPrefix(i, "github.com/google/go-containerregistry/pkg/v1/remote") && i != "github.com/google/go-containerregistry/pkg/crane" {
				continue
			}
			if strings.HasSuffix(imports[0], "/internal/registry") {
				seen = true
			} else {
				t.Errorf("%s imports %s", imports[0], i)
			}
		}
	}
	if !seen {
		t.Error("this package does not import go-containerregistry's either: the test tests nothing")
	}
}
