package releasetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/module"

	"github.com/xavieralpha/derper/internal/lock"
)

// bundleSource has the part of the real package's interface that is used.
const bundleSource = `package bundle

import (
	"crypto/x509"
	"embed"
	"iter"
)

//go:embed *.der
var files embed.FS

var constrained = []bool{%s}

type Root struct {
	Certificate []byte
	Constraint  func([]*x509.Certificate) error
}

func Roots() iter.Seq[Root] {
	return func(yield func(Root) bool) {
		list, _ := files.ReadDir(".")
		for i, e := range list {
			var root Root
			root.Certificate, _ = files.ReadFile(e.Name())
			if constrained[i] {
				root.Constraint = func([]*x509.Certificate) error { return nil }
			}
			if !yield(root) {
				return
			}
		}
	}
}
`

// A Root is a root certificate.
type Root struct {
	Name        string
	Constrained bool
	NotAfter    time.Time // zero for the year 2106
}

// AddRoots adds a version of the module of roots, which has those given in their order.
func (r *Release) AddRoots(t testing.TB, version string, roots ...Root) lock.Module {
	t.Helper()
	files := map[string]string{"LICENSE": "the roots' licence\n"}
	var constrained strings.Builder
	for i, root := range roots {
		files[fmt.Sprintf("bundle/%03d.der", i)] = root.certificate(t)
		fmt.Fprintf(&constrained, "%t,", root.Constrained)
	}
	files["bundle/bundle.go"] = fmt.Sprintf(bundleSource, constrained.String())
	m := module.Version{Path: lock.RootsModule, Version: version}
	r.Add(t, m, "module "+lock.RootsModule+"\n\ngo 1.24\n", files)
	return lock.Module{Version: version, Sum: r.sums[m]}
}

// certificate is a new certificate, in DER.
func (root Root) certificate(t testing.TB) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	notAfter := root.NotAfter
	if notAfter.IsZero() {
		notAfter = time.Unix(1<<32, 0)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: root.Name},
		NotBefore:             time.Unix(0, 0),
		NotAfter:              notAfter,
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(der)
}
