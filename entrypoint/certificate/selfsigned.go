package certificate

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
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
	public, err := key.PublicKey.Bytes()
	if err != nil {
		return fmt.Errorf("encode the key: %w", err)
	}
	private, err := key.Bytes()
	if err != nil {
		return fmt.Errorf("encode the key: %w", err)
	}
	tbs := p.toBeSigned(now, public)
	digest := sha256.Sum256(tbs)
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		return fmt.Errorf("sign the certificate: %w", err)
	}
	der := element(tagSequence, tbs, element(tagSequence, oidECDSASHA256), bits(signature))
	keyDER := element(tagSequence,
		element(tagInteger, []byte{1}),
		element(tagOctetString, private),
		element(tagContext, oidP256),
		element(tagContext+1, bits(public)))
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

// toBeSigned is the part of the certificate that is signed, RFC 5280.
func (p Pair) toBeSigned(now time.Time, public []byte) []byte {
	serial := make([]byte, 16)
	rand.Read(serial)
	serial[0] = serial[0]&0x7f | 0x40 // positive, and in its shortest form
	var name []byte
	if len(p.Host) <= 64 { // longer ones do not fit a common name; the SAN is what counts
		name = element(tagSet, element(tagSequence, oidCommonName, element(tagUTF8, []byte(p.Host))))
	}
	name = element(tagSequence, name)
	san := element(0x82, []byte(p.Host))
	if ip := net.ParseIP(p.Host); ip != nil {
		if v4 := ip.To4(); v4 != nil {
			ip = v4
		}
		san = element(0x87, ip)
	}
	critical := element(0x01, []byte{0xff})
	extension := func(parts ...[]byte) []byte {
		last := len(parts) - 1
		parts[last] = element(tagOctetString, parts[last])
		return element(tagSequence, parts...)
	}
	// A minute back, for clients whose clock is behind.
	from, until := now.Add(-time.Minute), now.AddDate(1, 0, 0)
	return element(tagSequence,
		element(tagContext, element(tagInteger, []byte{2})), // version 3
		element(tagInteger, serial),
		element(tagSequence, oidECDSASHA256),
		name, // issuer
		element(tagSequence, derTime(from), derTime(until)),
		name, // subject
		element(tagSequence, element(tagSequence, oidEC, oidP256), bits(public)),
		element(tagContext+3, element(tagSequence,
			extension(oidKeyUsage, critical, element(tagBitString, []byte{5, 0xa0})), // digital signature, key encipherment
			extension(oidExtKeyUsage, element(tagSequence, oidServerAuth)),
			extension(oidConstraints, critical, element(tagSequence)), // no CA
			extension(oidSAN, element(tagSequence, san)),
		)))
}

// derTime is UTCTime until 2049 and GeneralizedTime from then on.
func derTime(t time.Time) []byte {
	t = t.UTC()
	if t.Year() < 2050 {
		return element(tagUTCTime, t.AppendFormat(nil, "060102150405Z"))
	}
	return element(tagTime, t.AppendFormat(nil, "20060102150405Z"))
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
