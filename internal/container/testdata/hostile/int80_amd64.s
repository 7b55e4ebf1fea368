#include "textflag.h"

// func int80(call, a, b, c, d uintptr) (result uintptr)
TEXT ·int80(SB), NOSPLIT, $0-48
	MOVQ call+0(FP), AX
	MOVQ a+8(FP), BX
	MOVQ b+16(FP), CX
	MOVQ c+24(FP), DX
	MOVQ d+32(FP), SI
	INT  $0x80
	MOVQ AX, result+40(FP)
	RET
