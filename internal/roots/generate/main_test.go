package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// TestRun guards against a root that gets lost on the way from the real module, against
// one with a constraint that is trusted without it, and against a file that differs from
// run to run.
func TestRun(t *testing.T) {
	files := func() (roots, leftOut []byte) {
		t.Chdir(t.TempDir())
		if err := run(); err != nil {
			t.Fatal(err)
		}
		roots, err := os.ReadFile("ca-certificates.crt")
		if err != nil {
			t.Fatal(err)
		}
		if leftOut, err = os.ReadFile("left-out.txt"); err != nil {
			t.Fatal(err)
		}
		return roots, leftOut
	}
	roots, leftOut := files()
	if again, leftOutAgain := files(); !bytes.Equal(roots, again) || !bytes.Equal(leftOut, leftOutAgain) {
		t.Error("the second run wrote something else")
	}
	listed := strings.Split(strings.TrimSpace(string(leftOut)), "\n")
	if len(leftOut) == 0 {
		listed = nil
	}
	rest := roots
	n := 0
	for root := range bundle.Roots() {
		cert, err := x509.ParseCertificate(root.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		if root.Constraint != nil {
			line := fmt.Sprintf("%x %s", sha256.Sum256(root.Certificate), cert.Subject)
			if len(listed) == 0 || listed[0] != line {
				t.Fatalf("%s is not the next that is left out: %q", line, listed)
			}
			listed = listed[1:]
			continue
		}
		n++
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" || !bytes.Equal(block.Bytes, root.Certificate) {
			t.Fatalf("%s is not the next in the file", cert.Subject)
		}
		if !bytes.Contains(roots, []byte("# "+cert.Subject.String()+"\n")) {
			t.Errorf("%s has no line with its name", cert.Subject)
		}
	}
	if block, _ := pem.Decode(rest); block != nil || len(listed) > 0 {
		t.Errorf("more than the module has: %v, %q", block, listed)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(roots) {
		t.Error("no program can read the file")
	}
	if n < 50 {
		t.Errorf("only %d roots: this test tests little", n)
	}
}
