//go:build amd64 && !purego

#include "textflag.h"

// SHA-256 with the CPU's SHA extensions of the first block of a label.
//
// The state lives in two registers, X1 = (A B E F) and X2 = (C D G H), highest word first, as
// SHA256RNDS2 wants it. X3 to X6 are sixteen words of the message schedule.

// Four rounds with the words in m.
#define ROUNDS(i, m) \
	MOVO   (i*16)(AX), X0 \
	PADDD  m, X0          \
	SHA256RNDS2 X0, X1, X2 \
	PSHUFD $0x0e, X0, X0  \
	SHA256RNDS2 X0, X2, X1

// Four rounds with the words in cur, which also completes the words in next (their first part,
// SHA256MSG1, was done by ROUNDS_EXTEND1 or ROUNDS_EXTEND).
#define ROUNDS_EXTEND2(i, prev, cur, next) \
	MOVO   (i*16)(AX), X0 \
	PADDD  cur, X0        \
	SHA256RNDS2 X0, X1, X2 \
	MOVO   cur, X7        \
	PALIGNR $4, prev, X7  \
	PADDD  X7, next       \
	SHA256MSG2 cur, next  \
	PSHUFD $0x0e, X0, X0  \
	SHA256RNDS2 X0, X2, X1

#define ROUNDS_EXTEND1(i, prev, cur) \
	ROUNDS(i, cur)        \
	SHA256MSG1 cur, prev

#define ROUNDS_EXTEND(i, prev, cur, next) \
	ROUNDS_EXTEND2(i, prev, cur, next) \
	SHA256MSG1 cur, prev

// Sixty-four rounds over X3 to X6; AX points to the round constants.
#define COMPRESS \
	MOVO X1, X9 \
	MOVO X2, X10 \
	ROUNDS(0, X3) \
	ROUNDS_EXTEND1(1, X3, X4) \
	ROUNDS_EXTEND1(2, X4, X5) \
	ROUNDS_EXTEND(3, X5, X6, X3) \
	ROUNDS_EXTEND(4, X6, X3, X4) \
	ROUNDS_EXTEND(5, X3, X4, X5) \
	ROUNDS_EXTEND(6, X4, X5, X6) \
	ROUNDS_EXTEND(7, X5, X6, X3) \
	ROUNDS_EXTEND(8, X6, X3, X4) \
	ROUNDS_EXTEND(9, X3, X4, X5) \
	ROUNDS_EXTEND(10, X4, X5, X6) \
	ROUNDS_EXTEND(11, X5, X6, X3) \
	ROUNDS_EXTEND(12, X6, X3, X4) \
	ROUNDS_EXTEND2(13, X3, X4, X5) \
	ROUNDS_EXTEND2(14, X4, X5, X6) \
	ROUNDS(15, X6) \
	PADDD X9, X1 \
	PADDD X10, X2

// func prefixesNI(states *[8]uint32, replicaID *[8]uint32, layer, node, count uint64)
TEXT ·prefixesNI(SB), NOSPLIT, $0-40
	MOVQ states+0(FP), DI
	MOVQ replicaID+8(FP), SI
	MOVQ layer+16(FP), R8
	MOVQ node+24(FP), R9
	MOVQ count+32(FP), R10
	LEAQ constants<>(SB), AX
	MOVOU initial<>+0(SB), X11
	MOVOU initial<>+16(SB), X12
	MOVOU 0(SI), X13
	MOVOU 16(SI), X14

prefix:
	MOVO X11, X1
	MOVO X12, X2
	MOVO X13, X3
	MOVO X14, X4
	MOVQ R8, X5
	MOVQ R9, R11
	SHRQ $32, R11
	PINSRD $1, R11, X5
	PINSRD $2, R9, X5
	PXOR X6, X6
	COMPRESS
	MOVOU X1, 0(DI)
	MOVOU X2, 16(DI)
	ADDQ $32, DI
	INCQ R9
	DECQ R10
	JNE  prefix
	RET

// SHA-256's initial state as (A B E F), (C D G H), highest word first.
DATA initial<>+0(SB)/4, $0x9b05688c
DATA initial<>+4(SB)/4, $0x510e527f
DATA initial<>+8(SB)/4, $0xbb67ae85
DATA initial<>+12(SB)/4, $0x6a09e667
DATA initial<>+16(SB)/4, $0x5be0cd19
DATA initial<>+20(SB)/4, $0x1f83d9ab
DATA initial<>+24(SB)/4, $0xa54ff53a
DATA initial<>+28(SB)/4, $0x3c6ef372
GLOBL initial<>(SB), RODATA|NOPTR, $32

// SHA-256's round constants. Aligned to 32 bytes, as the linker does it for their size.
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

// func hasSHA() bool
TEXT ·hasSHA(SB), NOSPLIT, $0-1
	MOVL $7, AX
	XORL CX, CX
	CPUID
	SHRL $29, BX
	ANDL $1, BX
	MOVB BX, ret+0(FP)
	RET

// func maxLeaf() uint32
TEXT ·maxLeaf(SB), NOSPLIT, $0-4
	XORL AX, AX
	XORL CX, CX
	CPUID
	MOVL AX, ret+0(FP)
	RET
