package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/secure-systems-lab/go-securesystemslib/encrypted"

	"github.com/xavieralpha/derper/internal/attest"
	"github.com/xavieralpha/derper/internal/lock"
	"github.com/xavieralpha/derper/internal/registry"
	"github.com/xavieralpha/derper/internal/testing/registrytest"
	"github.com/xavieralpha/derper/internal/testing/releasetest"
	"github.com/xavieralpha/derper/internal/testing/sigstoretest"
	"github.com/xavieralpha/derper/internal/testing/vextest"
	"github.com/xavieralpha/derper/internal/vex"
)

// What must never be seen.
const (
	keyPassword      = "word-of-the-key"
	registryPassword = "word-of-the-registry"
)

// TestAttestScripts runs the scenarios in testdata/attest: build attest, sign and
// verify-signature on a small release, Docker's registry with a password, and a Sigstore
// on loopback.
func TestAttestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/attest",
		Setup: func(env *testscript.Env) error {
			tb := env.T().(testing.TB)
			release := releasetest.New(tb, "../..")
			server := registrytest.Distribution(tb, registrytest.Options{Username: "user", Password: registryPassword})
			sigstore := sigstoretest.New(tb, "https://github.com/xavieralpha/derper/.github/workflows/sign.yml@refs/heads/main")
			secrets := []string{keyPassword, registryPassword, sigstore.Bearer, sigstore.IDToken}
			userName, passwordName := registry.Variables(server.Host)
			for name, value := range map[string]string{
				"GOPROXY":         release.Proxy,
				testSumDB:         release.SumDB,
				"CACHE":           releasetest.CacheDir(tb),
				"VERSION":         release.Inputs.Tailscale.Version,
				"REPO":            server.Repository("derper"),
				"STRANGER":        server.Repository("stranger"),
				userName:          "user",
				passwordName:      registryPassword,
				"COSIGN_PASSWORD": keyPassword,
				"IDENTITY":        sigstore.Identity,
				"SIGNER":          "identity " + sigstore.Identity + " of " + sigstoretest.Issuer,
				"ISSUER":          sigstoretest.Issuer,
				"TRUSTED_ROOT":    sigstore.TrustedRoot,
				"SIGNING_CONFIG":  sigstore.SigningConfig,
				"TOKEN_URL":       sigstore.TokenURL,
				"BEARER":          sigstore.Bearer,
			} {
				env.Setenv(name, value)
			}
			for _, name := range []string{"signer", "other"} {
				secret, err := writeKeys(filepath.Join(env.WorkDir, name))
				if err != nil {
					return err
				}
				secrets = append(secrets, secret)
			}
			env.Values["secrets"], env.Values["sigstore"] = secrets, sigstore
			l := &lock.Lock{Schema: lock.SchemaVersion, Inputs: release.Inputs}
			return l.Write(filepath.Join(env.WorkDir, lock.File))
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			// certify REPOSITORY REF makes Fulcio certify the workflow for a run of a
			// repository.
			"certify": func(ts *testscript.TestScript, _ bool, args []string) {
				s := ts.Value("sigstore").(*sigstoretest.Sigstore)
				s.Certify(sigstoretest.CalledBy(args[0], args[1], s.Identity))
			},
			// otherlock time|index|outputs lets the lock have another time of the
			// release, or record another index, or nothing.
			"otherlock": func(ts *testscript.TestScript, _ bool, args []string) {
				l, err := lock.Read(ts.MkAbs(lock.File))
				ts.Check(err)
				switch args[0] {
				case "time":
					l.Inputs.Tailscale.Time = l.Inputs.Tailscale.Time.Add(time.Hour)
				case "index":
					l.Output().Index = "sha256:" + strings.Repeat("0", 64)
				case "outputs":
					l.Outputs = nil
				}
				ts.Check(l.Write(ts.MkAbs(lock.File)))
			},
			// scans FILE ID ... writes a file as build scan does, with advisories that affect
			// the image.
			"scans": func(ts *testscript.TestScript, _ bool, args []string) {
				l, err := lock.Read(ts.MkAbs(lock.File))
				ts.Check(err)
				var findings []vex.Finding
				for _, id := range args[1:] {
					findings = append(findings, vex.Finding{ID: id, Module: "example.com/dep", Version: "v1.0.0", Level: vex.Called})
				}
				ts.Check(vextest.Scans(l.Inputs, findings...).Write(ts.MkAbs(args[0])))
			},
			// oneplatform lets the lock have one platform.
			"oneplatform": func(ts *testscript.TestScript, _ bool, _ []string) {
				l, err := lock.Read(ts.MkAbs(lock.File))
				ts.Check(err)
				l.Inputs.Platforms = []lock.Platform{"linux/amd64"}
				ts.Check(l.Write(ts.MkAbs(lock.File)))
			},
			// setdigest puts the digest of the index into a variable.
			"setdigest": func(ts *testscript.TestScript, _ bool, args []string) {
				l, err := lock.Read(ts.MkAbs(lock.File))
				ts.Check(err)
				ts.Setenv(args[0], l.Output().Index)
			},
			// results FILE [DIGEST] writes results of tests of all platforms of the lock, as build
			// test does, the first of which are of another digest if one is given.
			"results": func(ts *testscript.TestScript, _ bool, args []string) {
				l, err := lock.Read(ts.MkAbs(lock.File))
				ts.Check(err)
				var list []attest.Tests
				for _, p := range l.Output().Platforms {
					list = append(list, attest.Tests{
						Digest: p.Manifest, Platform: p.Platform, Passed: []string{"versions", "probe/ipv4"},
						TestedBy: attest.TestedBy{Runner: "native", Host: "linux/amd64", Version: "v0.0.1"},
					})
				}
				list[0].Skipped = []string{"probe/ipv6"}
				if len(args) > 1 {
					list[0].Digest = args[1]
				}
				ts.Check(writeTests(ts.MkAbs(args[0]), list))
			},
			// nosecret looks through all that the last command has said.
			"nosecret": func(ts *testscript.TestScript, _ bool, _ []string) {
				said := ts.ReadFile("stdout") + ts.ReadFile("stderr")
				for _, secret := range ts.Value("secrets").([]string) {
					if strings.Contains(said, secret) {
						ts.Fatalf("a secret in %q", said)
					}
				}
			},
		},
	})
}

// writeKeys writes a pair of keys, name.key and name.pub, as cosign does, and a plain
// one, name.pem. It returns the secret line of the plain one.
func writeKeys(name string) (string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return "", err
	}
	sealed, err := encrypted.Encrypt(private, []byte(keyPassword))
	if err != nil {
		return "", err
	}
	plain := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	for ext, data := range map[string]string{
		".key": string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED SIGSTORE PRIVATE KEY", Bytes: sealed})),
		".pub": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})),
		".pem": plain,
	} {
		if err := os.WriteFile(name+ext, []byte(data), 0o600); err != nil {
			return "", err
		}
	}
	return strings.Split(plain, "\n")[1], nil
}
