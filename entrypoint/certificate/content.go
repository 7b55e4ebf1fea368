package certificate

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

var (
	begin   = []byte("-----BEGIN ")
	end     = []byte("-----END ")
	utf8BOM = []byte("\ufeff")
)

// what says what a file is in which there is no PEM block. Nothing is shown of
// one that may be secret.
func what(path string, b []byte, secret bool) string {
	text := bytes.TrimSpace(b)
	isBase64 := len(text) > 0 && len(bytes.Trim(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\r\n")) == 0
	switch {
	case len(text) == 0:
		return "it is empty"
	case bytes.HasPrefix(b, []byte{0xff, 0xfe}), bytes.HasPrefix(b, []byte{0xfe, 0xff}):
		return "it begins with the byte order mark of UTF-16, which PowerShell's > writes; save it as UTF-8 without one"
	case bytes.Contains(b, begin):
		return hidden(b)
	case b[0] == 0x30 && !isBase64:
		return binary(path, b)
	case isHTML(text):
		return "it is a web page (HTML), perhaps an error message in place of a download"
	case isBase64:
		return "it is base64 without the lines -----BEGIN and -----END"
	case !utf8.Valid(text) || bytes.ContainsRune(text, 0):
		return "it is neither text nor DER"
	case secret:
		return "it is other text"
	}
	return fmt.Sprintf("it begins with %q", first(string(text), 12))
}

// binary tells the things in DER apart that come with a certificate.
func binary(path string, b []byte) string {
	if _, err := x509.ParseCertificate(b); err == nil {
		return fmt.Sprintf("it is a certificate in DER form; convert it: openssl x509 -inform DER -in %s -out NEW", path)
	}
	if _, err := parseKey(b); err == nil {
		return fmt.Sprintf("it is a key in DER form; convert it: openssl pkey -inform DER -in %s -out NEW", path)
	}
	// A sequence, its length, and the version, 3 (RFC 7292).
	if head := b[:min(len(b), 10)]; bytes.Contains(head, []byte{0x02, 0x01, 0x03}) {
		return fmt.Sprintf("it is PKCS#12 (.p12, .pfx); convert it: openssl pkcs12 -nodes -in %s -out NEW", path)
	}
	return "it is binary, in DER form perhaps; convert it to PEM with openssl"
}

// hidden says why a PEM block that begins in the file is none; it is empty if
// all are fine.
func hidden(b []byte) string {
	begun, read := bytes.Count(b, begin), len(blocks(b))
	switch {
	case begun <= read:
		return ""
	case bytes.HasPrefix(b, append(utf8BOM, begin...)):
		return "it begins with a byte order mark, which hides the first line; save it as UTF-8 without one"
	case bytes.Count(b, end) < begun:
		return "it is cut short: a line -----BEGIN has no line -----END; copy it again"
	case bytes.Contains(b, []byte(`\n`)):
		return `its line breaks are written as \n; write real ones`
	}
	for line := range bytes.Lines(b) {
		if i := bytes.Index(line, begin); i > 0 {
			if len(bytes.TrimSpace(line[:i])) == 0 {
				return "there are spaces before -----BEGIN; take them out"
			}
			return "there is something before -----BEGIN on its line; take it out"
		}
	}
	return fmt.Sprintf("%d of %d PEM blocks in it are damaged; copy it again", begun-read, begun)
}

func isHTML(b []byte) bool {
	text := strings.ToLower(first(string(bytes.TrimSpace(bytes.TrimPrefix(b, utf8BOM))), 14))
	return strings.HasPrefix(text, "<!doctype html") || strings.HasPrefix(text, "<html")
}

// first returns at most n characters of the first line of s.
func first(s string, n int) string {
	for i, r := range s {
		if n--; n < 0 || unicode.IsControl(r) {
			return s[:i]
		}
	}
	return s
}
