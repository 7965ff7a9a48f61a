//go:build amd64 && !purego

#include "textflag.h"

// Two lanes, a and b, each with two registers of state and four of message words:
//
//	a: X1 = ABEF, X2 = CDGH, X3…X6 = words
//	b: X7 = ABEF, X8 = CDGH, X9…X12 = words
//
// X0 is the implicit operand of SHA256RNDS2, X13 is scratch, and X15 turns big-endian
// words around. Each instruction of a lane waits for the one before it in the same lane;
// what the processor finds to do meanwhile is the other lane. Four rounds of one lane
// and four of the other lie near enough to be in flight together.

// load reads the four words at off and turns them around.
#define load(from, off, m) \
	MOVOU off(from), m; \
	PSHUFB X15, m

// rounds does four rounds with the words cur, which have the constants at k.
#define rounds(k, abef, cdgh, cur) \
	MOVO cur, X0; \
	PADDD k(AX), X0; \
	SHA256RNDS2 X0, abef, cdgh; \
	PSHUFD $0x0e, X0, X0; \
	SHA256RNDS2 X0, cdgh, abef

// finish completes the words next, which begin is done for, from those before them.
#define finish(prev, cur, next) \
	MOVO cur, X13; \
	PALIGNR $4, prev, X13; \
	PADDD X13, next; \
	SHA256MSG2 cur, next

// first are rounds 0 to 15 of a lane, in four parts, and begin the words of the next 16.
#define first0(from, abef, cdgh, m0) \
	load(from, 0, m0); \
	rounds(0, abef, cdgh, m0)

#define first(from, off, abef, cdgh, prev, cur) \
	load(from, off, cur); \
	rounds(off, abef, cdgh, cur); \
	SHA256MSG1 cur, prev

#define first3(from, abef, cdgh, next, prev, cur) \
	load(from, 48, cur); \
	finish(prev, cur, next); \
	rounds(48, abef, cdgh, cur); \
	SHA256MSG1 cur, prev

// middle does four rounds, completes the words of the next four, and begins those of the
// four that will take the place of prev.
#define middle(k, abef, cdgh, next, prev, cur) \
	finish(prev, cur, next); \
	rounds(k, abef, cdgh, cur); \
	SHA256MSG1 cur, prev

// late is middle where no words are left to begin.
#define late(k, abef, cdgh, next, prev, cur) \
	finish(prev, cur, next); \
	rounds(k, abef, cdgh, cur)

// enter makes ABEF and CDGH of the words 0 to 3 and 4 to 7 of a state; leave turns that back.
#define enter(abef, cdgh) \
	PSHUFD $0xb1, abef, abef; \
	PSHUFD $0x1b, cdgh, cdgh; \
	MOVO abef, X13; \
	PALIGNR $8, cdgh, abef; \
	PBLENDW $0xf0, X13, cdgh

#define leave(abef, cdgh) \
	PSHUFD $0x1b, abef, abef; \
	PSHUFD $0xb1, cdgh, cdgh; \
	MOVO abef, X13; \
	PBLENDW $0xf0, cdgh, abef; \
	PALIGNR $8, X13, cdgh

// func blocks(a, b *[8]uint32, p, q *byte, n int)
TEXT ·blocks(SB), NOSPLIT, $64-40
	MOVQ a+0(FP), DI
	MOVQ b+8(FP), SI
	MOVQ p+16(FP), R8
	MOVQ q+24(FP), R9
	MOVQ n+32(FP), CX
	LEAQ constants<>(SB), AX
	MOVOU swap<>(SB), X15

	MOVOU 0(DI), X1
	MOVOU 16(DI), X2
	MOVOU 0(SI), X7
	MOVOU 16(SI), X8
	enter(X1, X2)
	enter(X7, X8)

next:
	TESTQ CX, CX
	JZ done
	MOVOU X1, 0(SP)
	MOVOU X2, 16(SP)
	MOVOU X7, 32(SP)
	MOVOU X8, 48(SP)

	first0(R8, X1, X2, X3)
	first0(R9, X7, X8, X9)
	first(R8, 16, X1, X2, X3, X4)
	first(R9, 16, X7, X8, X9, X10)
	first(R8, 32, X1, X2, X4, X5)
	first(R9, 32, X7, X8, X10, X11)
	first3(R8, X1, X2, X3, X5, X6)
	first3(R9, X7, X8, X9, X11, X12)
	middle(64, X1, X2, X4, X6, X3)
	middle(64, X7, X8, X10, X12, X9)
	middle(80, X1, X2, X5, X3, X4)
	middle(80, X7, X8, X11, X9, X10)
	middle(96, X1, X2, X6, X4, X5)
	middle(96, X7, X8, X12, X10, X11)
	middle(112, X1, X2, X3, X5, X6)
	middle(112, X7, X8, X9, X11, X12)
	middle(128, X1, X2, X4, X6, X3)
	middle(128, X7, X8, X10, X12, X9)
	middle(144, X1, X2, X5, X3, X4)
	middle(144, X7, X8, X11, X9, X10)
	middle(160, X1, X2, X6, X4, X5)
	middle(160, X7, X8, X12, X10, X11)
	middle(176, X1, X2, X3, X5, X6)
	middle(176, X7, X8, X9, X11, X12)
	middle(192, X1, X2, X4, X6, X3)
	middle(192, X7, X8, X10, X12, X9)
	late(208, X1, X2, X5, X3, X4)
	late(208, X7, X8, X11, X9, X10)
	late(224, X1, X2, X6, X4, X5)
	late(224, X7, X8, X12, X10, X11)
	rounds(240, X1, X2, X6)
	rounds(240, X7, X8, X12)

	MOVOU 0(SP), X13
	PADDD X13, X1
	MOVOU 16(SP), X13
	PADDD X13, X2
	MOVOU 32(SP), X13
	PADDD X13, X7
	MOVOU 48(SP), X13
	PADDD X13, X8
	ADDQ $64, R8
	ADDQ $64, R9
	DECQ CX
	JMP next

done:
	leave(X1, X2)
	leave(X7, X8)
	MOVOU X1, 0(DI)
	MOVOU X2, 16(DI)
	MOVOU X7, 0(SI)
	MOVOU X8, 16(SI)
	RET

// func cpuid(leaf, sub uint32) (a, b, c, d uint32)
TEXT ·cpuid(SB), NOSPLIT, $0-24
	MOVL leaf+0(FP), AX
	MOVL sub+4(FP), CX
	CPUID
	MOVL AX, a+8(FP)
	MOVL BX, b+12(FP)
	MOVL CX, c+16(FP)
	MOVL DX, d+20(FP)
	RET

DATA swap<>+0(SB)/8, $0x0405060700010203
DATA swap<>+8(SB)/8, $0x0c0d0e0f08090a0b
GLOBL swap<>(SB), RODATA|NOPTR, $16

// The constants of SHA-256.
DATA constants<>+0(SB)/8, $0x71374491428a2f98
DATA constants<>+8(SB)/8, $0xe9b5dba5b5c0fbcf
DATA constants<>+16(SB)/8, $0x59f111f13956c25b
DATA constants<>+24(SB)/8, $0xab1c5ed5923f82a4
DATA constants<>+32(SB)/8, $0x12835b01d807aa98
DATA constants<>+40(SB)/8, $0x550c7dc3243185be
DATA constants<>+48(SB)/8, $0x80deb1fe72be5d74
DATA constants<>+56(SB)/8, $0xc19bf1749bdc06a7
DATA constants<>+64(SB)/8, $0xefbe4786e49b69c1
DATA constants<>+72(SB)/8, $0x240ca1cc0fc19dc6
DATA constants<>+80(SB)/8, $0x4a7484aa2de92c6f
DATA constants<>+88(SB)/8, $0x76f988da5cb0a9dc
DATA constants<>+96(SB)/8, $0xa831c66d983e5152
DATA constants<>+104(SB)/8, $0xbf597fc7b00327c8
DATA constants<>+112(SB)/8, $0xd5a79147c6e00bf3
DATA constants<>+120(SB)/8, $0x1429296706ca6351
DATA constants<>+128(SB)/8, $0x2e1b213827b70a85
DATA constants<>+136(SB)/8, $0x53380d134d2c6dfc
DATA constants<>+144(SB)/8, $0x766a0abb650a7354
DATA constants<>+152(SB)/8, $0x92722c8581c2c92e
DATA constants<>+160(SB)/8, $0xa81a664ba2bfe8a1
DATA constants<>+168(SB)/8, $0xc76c51a3c24b8b70
DATA constants<>+176(SB)/8, $0xd6990624d192e819
DATA constants<>+184(SB)/8, $0x106aa070f40e3585
DATA constants<>+192(SB)/8, $0x1e376c0819a4c116
DATA constants<>+200(SB)/8, $0x34b0bcb52748774c
DATA constants<>+208(SB)/8, $0x4ed8aa4a391c0cb3
DATA constants<>+216(SB)/8, $0x682e6ff35b9cca4f
DATA constants<>+224(SB)/8, $0x78a5636f748f82ee
DATA constants<>+232(SB)/8, $0x8cc7020884c87814
DATA constants<>+240(SB)/8, $0xa4506ceb90befffa
DATA constants<>+248(SB)/8, $0xc67178f2bef9a3f7
GLOBL constants<>(SB), RODATA|NOPTR, $256
