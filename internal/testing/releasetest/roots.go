package releasetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"golang.org/x/mod/module"

	"github.com/xavieralpha/derper/internal/lock"
)

// bundleSource has the part of the real package's interface that is used.
const bundleSource = `package bundle

import (
	"crypto/x509"
	_ "embed"
	"iter"
)

//go:embed free.der
var free []byte

//go:embed constrained.der
var constrained []byte

type Root struct {
	Certificate []byte
	Constraint  func([]*x509.Certificate) error
}

func Roots() iter.Seq[Root] {
	return func(yield func(Root) bool) {
		if yield(Root{Certificate: free}) {
			yield(Root{Certificate: constrained, Constraint: func([]*x509.Certificate) error { return nil }})
		}
	}
}
`

// addRoots adds a module of two roots, one of them constrained.
func (r *Release) addRoots(t testing.TB) {
	t.Helper()
	m := module.Version{Path: lock.RootsModule, Version: r.Inputs.Roots.Version}
	r.Add(t, m, "module "+lock.RootsModule+"\n\ngo 1.24\n", map[string]string{
		"LICENSE":                "the roots' licence\n",
		"bundle/bundle.go":       bundleSource,
		"bundle/free.der":        root(t, "Free Root"),
		"bundle/constrained.der": root(t, "Constrained Root"),
	})
	r.Inputs.Roots.Sum = r.sums[m]
}

func root(t testing.TB, name string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Unix(0, 0),
		NotAfter:              time.Unix(1<<32, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(der)
}
