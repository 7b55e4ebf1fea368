// Package tartest makes tars that no writer of tars makes, for tests.
package tartest

import (
	"fmt"
	"strconv"
	"strings"
)

// Size is that of the files that Sparse makes, in bytes.
const Size = 1 << 62

// Sparse are tars of 2 or 3 KiB with one file of [Size] bytes, all of them zeros, in each of
// the forms in which a tar can have such a file.
// Source: GNU tar's manual, "Storing Sparse Files", and "Basic Tar Format".
func Sparse(name string) map[string][]byte {
	size := strconv.FormatInt(Size, 10)
	old := header(name, 'S', 0, "ustar  \x00")
	copy(old[386:], base256(Size))     // where the one piece of the file is
	copy(old[398:], "00000000000\x00") // of no byte
	copy(old[483:], base256(Size))     // the size of the file
	return map[string][]byte{
		"old GNU": end(sum(old)),
		"PAX 0.0": end(pax("GNU.sparse.size", size, "GNU.sparse.numblocks", "1", "GNU.sparse.offset", size, "GNU.sparse.numbytes", "0"), file(name, "")),
		"PAX 0.1": end(pax("GNU.sparse.size", size, "GNU.sparse.numblocks", "1", "GNU.sparse.map", size+",0"), file(name, "")),
		"PAX 1.0": end(pax("GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", name, "GNU.sparse.realsize", size), file("sparse", fmt.Sprintf("%-512s", "1\n"+size+"\n0\n"))),
	}
}

// header is a header without its checksum.
func header(name string, kind byte, size int, magic string) []byte {
	h := make([]byte, 512)
	copy(h, name)
	copy(h[100:], fmt.Sprintf("%07o\x00%07o\x00%07o\x00%011o\x00%011o\x00", 0o755, 0, 0, size, 0))
	h[156] = kind
	copy(h[257:], magic)
	return h
}

// sum writes a header's checksum.
func sum(h []byte) []byte {
	copy(h[148:], "        ")
	n := 0
	for _, b := range h {
		n += int(b)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", n))
	return h
}

// base256 is a number in twelve bytes, as GNU writes those that octal digits cannot have.
func base256(n uint64) []byte {
	b := make([]byte, 12)
	for i := 11; n > 0; i-- {
		b[i] = byte(n)
		n >>= 8
	}
	b[0] |= 0x80
	return b
}

func file(name, content string) []byte { return entry(name, '0', content) }

func entry(name string, kind byte, content string) []byte {
	padding := (512 - len(content)%512) % 512
	return append(append(sum(header(name, kind, len(content), "ustar\x0000")), content...), make([]byte, padding)...)
}

// pax is a header of PAX records, names and values in turn.
func pax(records ...string) []byte {
	var b strings.Builder
	for i := 0; i < len(records); i += 2 {
		line := " " + records[i] + "=" + records[i+1] + "\n"
		n := len(line)
		for n != len(strconv.Itoa(n))+len(line) {
			n = len(strconv.Itoa(n)) + len(line)
		}
		b.WriteString(strconv.Itoa(n) + line)
	}
	return entry("pax", 'x', b.String())
}

// end puts entries together, with the two empty blocks that end a tar.
func end(entries ...[]byte) (data []byte) {
	for _, e := range entries {
		data = append(data, e...)
	}
	return append(data, make([]byte, 1024)...)
}

// Mend corrects the checksums of a tar's headers, so that a reader gets to the rest of them:
// what is changed at random fails at its checksum otherwise.
// Source: POSIX pax, ustar Interchange Format.
func Mend(content []byte) {
	for ; len(content) >= 512; content = content[512:] {
		if block := content[:512]; string(block[257:262]) == "ustar" {
			sum(block)
		}
	}
}
