package diff

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"unicode/utf8"
)

// Text says how the contents of two small files differ: of a list of certificates,
// which ones came and went; of other text, the first line.
func Text(want, got []byte) []string {
	w, g := certificates(want), certificates(got)
	if differ := changes(w, g); len(w) > 0 && len(differ) > 0 {
		var lines []string
		for _, c := range differ {
			what := "added"
			if c.Got == "" {
				what = "missing"
			}
			lines = append(lines, fmt.Sprintf("CA certificate %s: %s (SHA-256 %s)", what, short(c.Want+c.Got), c.Path))
		}
		return lines
	}
	if !utf8.Valid(want) || !utf8.Valid(got) {
		return nil
	}
	a, b := bytes.Split(want, []byte("\n")), bytes.Split(got, []byte("\n"))
	line := func(list [][]byte, i int) string {
		if i < len(list) {
			return fmt.Sprintf("%q", short(string(list[i])))
		}
		return "none"
	}
	for i := range max(len(a), len(b)) {
		if i >= len(a) || i >= len(b) || !bytes.Equal(a[i], b[i]) {
			return []string{fmt.Sprintf("line %d: image %s, rebuilt %s", i+1, line(b, i), line(a, i))}
		}
	}
	return nil
}

// certificates are the subjects of the certificates in a PEM file, by fingerprint.
func certificates(data []byte) map[string]string {
	found := map[string]string{}
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			return found
		}
		data = rest
		if block.Type != "CERTIFICATE" {
			continue
		}
		subject := "unreadable"
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			subject = cmp.Or(c.Subject.String(), "no subject")
		}
		found[fmt.Sprintf("%x", sha256.Sum256(block.Bytes))] = subject
	}
}
