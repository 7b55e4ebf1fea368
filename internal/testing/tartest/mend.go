package tartest

import "fmt"

// Mend puts the checksums of a tar's headers right, so that what else is in them counts: of
// what is changed at random, a reader sees no more than a wrong checksum.
// Source: POSIX pax, ustar Interchange Format.
func Mend(content []byte) {
	for ; len(content) >= 512; content = content[512:] {
		if block := content[:512]; string(block[257:262]) == "ustar" {
			copy(block[148:156], "        ")
			sum := 0
			for _, c := range block {
				sum += int(c)
			}
			copy(block[148:156], fmt.Sprintf("%06o\x00 ", sum))
		}
	}
}
