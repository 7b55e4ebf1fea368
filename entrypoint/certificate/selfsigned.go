package certificate

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Create makes a self-signed pair of the same kind as derper's for an IP
// address: P-256, one year (some clients refuse more), the host as SAN. It
// never writes over a file.
func (p Pair) Create(now time.Time) error {
	crt, key, err := p.selfSigned(now)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(p.Key), 0o700); err != nil {
		return err
	}
	if err := place(p.Key, key, 0o600); err != nil {
		return err
	}
	if err := place(p.Crt, crt, 0o644); err != nil {
		// Half a pair would stop the next start.
		return errors.Join(err, os.Remove(p.Key))
	}
	return nil
}

// selfSigned returns the contents of both files.
func (p Pair) selfSigned(now time.Time) (crt, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, fmt.Errorf("make a serial number: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial.Add(serial, big.NewInt(1)),
		NotBefore:             now.Add(-time.Minute), // for clients whose clock is behind
		NotAfter:              now.AddDate(1, 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	if len(p.Host) <= 64 { // longer ones do not fit a common name; the SAN is what counts
		template.Subject = pkix.Name{CommonName: p.Host}
	}
	if ip := net.ParseIP(p.Host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{p.Host}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, nil, fmt.Errorf("make a certificate: %w", err)
	}
	keyDER, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		return nil, nil, fmt.Errorf("encode the key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), nil
}

// Names of the files beside a pair that is renewed end so.
const (
	oldEnd   = ".old"
	renewEnd = ".renew"
)

// Renew replaces a self-signed pair by a new one that starts now, and returns
// the names of the files that the old one is kept in. Old files of an earlier
// time are written over. The two files cannot change at once: a crash between
// them leaves the new key beside the old certificate, until Recover or the
// next Renew puts the new certificate there, too. The error is ErrMissing when
// there is no pair.
func (p Pair) Renew(now time.Time) (kept []string, err error) {
	unlock, err := p.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := p.recover(); err != nil {
		return nil, err
	}
	old, err := p.Load()
	if err != nil {
		return nil, err
	}
	if !old.SelfSigned {
		return nil, fmt.Errorf("%s is not self-signed but issued by %s: get a new one there, and replace it and %s", p.Crt, issuer(old.Leaf), p.Key)
	}
	crt, key, err := p.selfSigned(now)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(write(p.Key+oldEnd, old.key, 0o600), write(p.Crt+oldEnd, old.crt, 0o644)); err != nil {
		return nil, p.notStored(err)
	}
	if err := errors.Join(write(p.Key+renewEnd, key, 0o600), write(p.Crt+renewEnd, crt, 0o644)); err != nil {
		return nil, p.notStored(errors.Join(err, p.tidy()))
	}
	if err := os.Rename(p.Key+renewEnd, p.Key); err != nil {
		return nil, p.notStored(errors.Join(err, p.tidy()))
	}
	if err := os.Rename(p.Crt+renewEnd, p.Crt); err != nil {
		return nil, p.notStored(errors.Join(err, write(p.Key, old.key, 0o600), p.tidy()))
	}
	return []string{p.Crt + oldEnd, p.Key + oldEnd}, nil
}

// notStored says why a new pair did not come where the old one still is.
func (p Pair) notStored(err error) error {
	if errors.Is(err, syscall.EBUSY) {
		return fmt.Errorf("the pair cannot be replaced: %w; mount the folder of the two files, not each of them", err)
	}
	return fmt.Errorf("the pair cannot be replaced: %w; uid %d must be able to write in %s", err, os.Geteuid(), filepath.Dir(p.Crt))
}

// Recover finishes a Renew that ended between its two files, and does nothing
// otherwise. It is for the start, before Load.
func (p Pair) Recover() error {
	if _, err := os.Lstat(p.Crt + renewEnd); err != nil {
		return nil
	}
	unlock, err := p.lock()
	if err != nil {
		return nil // a Renew that still runs
	}
	defer unlock()
	return p.recover()
}

func (p Pair) recover() error {
	crt, err := readFile(p.Crt + renewEnd)
	if err != nil {
		return p.tidy()
	}
	key, err := readFile(p.Key)
	if err != nil {
		return nil // Load says why
	}
	if _, err := tls.X509KeyPair(crt, key); err != nil {
		return p.tidy() // it did not come to the first file
	}
	return os.Rename(p.Crt+renewEnd, p.Crt)
}

// tidy removes what a Renew leaves that changed nothing.
func (p Pair) tidy() error {
	var failed []error
	for _, name := range []string{p.Crt + renewEnd, p.Key + renewEnd} {
		if err := os.Remove(name); !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// lock keeps a second Renew away, which would mix its files with those of the
// first. The end of the process unlocks.
func (p Pair) lock() (unlock func(), err error) {
	dir, err := os.Open(filepath.Dir(p.Crt))
	if err != nil {
		return func() {}, nil // Load says why
	}
	// Some file systems know no locks; a second Renew is rare enough.
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); errors.Is(err, syscall.EWOULDBLOCK) {
		dir.Close()
		return nil, fmt.Errorf("%s is being renewed already", p.Crt)
	}
	return func() { dir.Close() }, nil
}

// write writes a file whole or not at all; it may be over another one.
func write(path string, content []byte, mode fs.FileMode) error {
	temp, err := writeTemp(path, content, mode)
	if err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	syncFolder(path)
	return nil
}

// syncFolder has the name of a file outlive the machine's stop. Some file systems cannot.
func syncFolder(path string) {
	if dir, err := os.Open(filepath.Dir(path)); err == nil {
		dir.Sync() //nolint:errcheck // the file is there all the same
		dir.Close()
	}
}

// place writes a file whole or not at all, and never over another one: link
// fails when the name is taken.
func place(path string, content []byte, mode fs.FileMode) error {
	temp, err := writeTemp(path, content, mode)
	if err != nil {
		return err
	}
	defer syncFolder(path)
	defer os.Remove(temp)
	if err := os.Link(temp, path); err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	// A file system without hard links. Two starts at the same moment could
	// both get here; the later pair is then the one that counts.
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s: %w", path, fs.ErrExist)
	}
	return os.Rename(temp, path)
}

// writeTemp writes a file beside path, under a name that nobody has: what others put into
// the folder, a link or what a killed run left, is not opened.
func writeTemp(path string, content []byte, mode fs.FileMode) (name string, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(content)
	f.Chmod(mode) // where it fails the file is for its owner alone, which will do
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}
