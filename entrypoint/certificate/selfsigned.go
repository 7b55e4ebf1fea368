package certificate

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"
)

// Create makes a self-signed pair of the same kind as derper's for an IP
// address: P-256, one year (some clients refuse more), the host as SAN. It
// never writes over a file.
func (p Pair) Create(now time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
	if err != nil {
		return fmt.Errorf("make a serial number: %w", err)
	}
	template := x509.Certificate{
		SerialNumber:          serial,
		NotBefore:             now.Add(-time.Minute), // a client's clock may be a little behind
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
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		return fmt.Errorf("make a certificate: %w", err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode the key: %w", err)
	}
	if err := os.MkdirAll(p.directory, 0o700); err != nil {
		return err
	}
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
	crtPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := place(p.Key, keyPEM, 0o600); err != nil {
		return err
	}
	if err := place(p.Crt, crtPEM, 0o644); err != nil {
		// Half a pair would stop the next start.
		return errors.Join(err, os.Remove(p.Key))
	}
	return nil
}

// place writes a file whole or not at all, and never over another one: link
// fails when the name is taken.
func place(path string, content []byte, mode os.FileMode) (err error) {
	temp := path + ".new"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	defer os.Remove(temp)
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(temp, path); err == nil {
		return nil
	} else if errors.Is(err, os.ErrExist) {
		return err
	}
	// A file system without hard links. Two starts at the same moment could
	// both get here; the later pair is then the one that counts.
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s: %w", path, os.ErrExist)
	}
	return os.Rename(temp, path)
}
