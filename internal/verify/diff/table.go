package diff

import "encoding/binary"

// functionCount is how many functions a Go program's table says that it has, as debug/gosym
// reads it: in the byte order and with the size of a pointer that the table names, which
// need not be those of the ELF file that it is in.
//
// Source: debug/gosym, (*LineTable).parsePclnTab.
func functionCount(table []byte) uint32 {
	if len(table) < 16 {
		return 0
	}
	var order binary.ByteOrder = binary.LittleEndian
	if table[0] == 0xff { // the magic number is 0xfffffff0 to 0xfffffffb
		order = binary.BigEndian
	}
	if table[7] == 4 {
		return order.Uint32(table[8:])
	}
	return uint32(order.Uint64(table[8:]))
}
