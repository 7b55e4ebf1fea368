// Generate writes the CA roots of module golang.org/x/crypto/x509roots/fallback as
// a PEM file, and lists those that it leaves out: roots with a constraint that a
// PEM file cannot carry.
package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "roots:", err)
		os.Exit(1)
	}
}

func run() error {
	var roots, leftOut bytes.Buffer
	for root := range bundle.Roots() {
		cert, err := x509.ParseCertificate(root.Certificate)
		if err != nil {
			return err
		}
		if root.Constraint != nil {
			fmt.Fprintf(&leftOut, "%x %s\n", sha256.Sum256(root.Certificate), cert.Subject)
			continue
		}
		fmt.Fprintf(&roots, "# %s\n", cert.Subject)
		if err := pem.Encode(&roots, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}); err != nil {
			return err
		}
	}
	if err := os.WriteFile("ca-certificates.crt", roots.Bytes(), 0o644); err != nil {
		return err
	}
	return os.WriteFile("left-out.txt", leftOut.Bytes(), 0o644)
}
