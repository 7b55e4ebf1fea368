package hostile

import (
	"archive/tar"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"
)

// Bundle is the name of the CA certificates in their layer.
const Bundle = "etc/ssl/certs/ca-certificates.crt"

// Entries are attacks on the files of a layer, and on their headers in its tar.
var Entries = []Attack{
	header("another time", func(h *tar.Header) { h.ModTime = time.Unix(1e9, 0) }),
	header("a set-user-ID bit", func(h *tar.Header) { h.Mode = 0o4755 }),
	header("a program that everybody may write", func(h *tar.Header) { h.Mode = 0o777 }),
	header("another owner", func(h *tar.Header) { h.Uid = 1000 }),
	header("an owner's name", func(h *tar.Header) { h.Uname = "eve" }),
	header("an extended attribute", func(h *tar.Header) {
		h.PAXRecords, h.Format = map[string]string{"SCHILY.xattr.security.capability": "evil"}, tar.FormatPAX
	}),
	header("a comment in the tar", func(h *tar.Header) {
		h.PAXRecords, h.Format = map[string]string{"comment": "evil"}, tar.FormatPAX
	}),
	header("a name with a dot in front", func(h *tar.Header) { h.Name = "./" + h.Name }),
	header("an absolute name", func(h *tar.Header) { h.Name = "/" + h.Name }),
	derper("a symbolic link in place of a file", func(p *Part) {
		p.Header.Typeflag, p.Header.Linkname, p.Content = tar.TypeSymlink, "/proc/self/exe", nil
	}),
	derper("a hard link in place of a file", func(p *Part) {
		p.Header.Typeflag, p.Header.Linkname, p.Content = tar.TypeLink, "etc/passwd", nil
	}),
	derper("a device in place of a file", func(p *Part) {
		p.Header.Typeflag, p.Header.Devmajor, p.Header.Devminor, p.Content = tar.TypeBlock, 8, 0, nil
	}),
	derper("a pipe in place of a file", func(p *Part) { p.Header.Typeflag, p.Content = tar.TypeFifo, nil }),
	derper("a folder in place of a file", func(p *Part) {
		p.Header.Typeflag, p.Header.Name, p.Content = tar.TypeDir, p.Header.Name+"/", nil
	}),
	base("a file's content", Replace("etc/passwd", behind("eve:x:0:0::/:/bin/sh\n"))),
	base("another order of entries", func(list []Part) []Part {
		list[0], list[len(list)-1] = list[len(list)-1], list[0]
		return list
	}),
	base("an added file", Add(tar.Header{Name: "etc/cron.d/evil", Mode: 0o644}, "* * * * * root evil\n")),
	base("a file twice", Add(tar.Header{Name: "etc/passwd", Mode: 0o644}, "root::0:0:::\n")),
	base("a file twice, the second by another name", Add(tar.Header{Name: "etc/../etc/passwd", Mode: 0o644}, "root::0:0:::\n")),
	base("a missing file", func(list []Part) []Part { return list[:len(list)-1] }),
	base("a name that steers a terminal", Add(tar.Header{Name: "etc/\x1b[2Jevil\nPASS", Mode: 0o644}, "")),
	base("a name that leads out of the image", Add(tar.Header{Name: "../../etc/cron.d/evil", Mode: 0o644}, "evil")),
	base("a link to above the image, and a file through it", func(list []Part) []Part {
		list = Add(tar.Header{Name: "out", Typeflag: tar.TypeSymlink, Linkname: "../../.."}, "")(list)
		return Add(tar.Header{Name: "out/evil", Mode: 0o644}, "evil")(list)
	}),
	base("an added hard link to a program", Add(tar.Header{Name: "usr/local/bin/sh", Typeflag: tar.TypeLink, Linkname: "usr/local/bin/derper"}, "")),
	base("an added device", Add(tar.Header{Name: "dev/sda", Typeflag: tar.TypeBlock, Devmajor: 8, Mode: 0o666}, "")),
	entrypoint("a whiteout of a file below", Add(tar.Header{Name: "etc/.wh.passwd", Mode: 0o644}, "")),
	entrypoint("an opaque whiteout of a folder below", Add(tar.Header{Name: "etc/ssl/certs/.wh..wh..opq", Mode: 0o644}, "")),
	entrypoint("a file of a lower layer written over", Add(tar.Header{Name: Bundle, Mode: 0o644}, "evil")),
	entrypoint("a folder of a lower layer made a link", Add(tar.Header{Name: "etc", Typeflag: tar.TypeSymlink, Linkname: "tmp"}, "")),
	{Name: "another CA bundle", Make: func(t testing.TB, g *Good) *Content {
		return g.With(t, g.Edit(t, "base", Replace(Bundle, func(b []byte) []byte { return append(b, certificate(t, "Evil Root")...) })))
	}},
	{Name: "a CA bundle without a root", Make: func(t testing.TB, g *Good) *Content {
		return g.With(t, g.Edit(t, "base", Replace(Bundle, func([]byte) []byte { return []byte("# none\n") })))
	}},
	{Name: "an unreadable CA in the bundle", Make: func(t testing.TB, g *Good) *Content {
		bad := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("evil")})
		return g.With(t, g.Edit(t, "base", Replace(Bundle, behind(string(bad)))))
	}},
}

// edited is an attack on the entries of a layer.
func edited(name, layer string, change func([]Part) []Part) Attack {
	return Attack{Name: name, Make: func(t testing.TB, g *Good) *Content {
		return g.With(t, g.Edit(t, layer, func(list []Part) []Part {
			n := len(list)
			list = change(list)
			for i := n; i < len(list); i++ { // or the time would be a second difference
				list[i].Header.ModTime = g.Inputs.Tailscale.Time
			}
			return list
		}))
	}}
}

func base(name string, change func([]Part) []Part) Attack { return edited(name, "base", change) }
func entrypoint(name string, change func([]Part) []Part) Attack {
	return edited(name, "entrypoint", change)
}

// derper is an attack on the entry of derper's program.
func derper(name string, change func(*Part)) Attack {
	return edited(name, "derper", func(list []Part) []Part {
		for i := range list {
			if list[i].Header.Name == Derper {
				change(&list[i])
			}
		}
		return list
	})
}

func header(name string, change func(*tar.Header)) Attack {
	return derper(name, func(p *Part) { change(&p.Header) })
}

// certificate is a root of somebody's own, in PEM.
func certificate(t testing.TB, name string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	check(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
