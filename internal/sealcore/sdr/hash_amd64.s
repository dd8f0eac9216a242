//go:build amd64 && !purego

#include "textflag.h"

// SHA-256 with the CPU's SHA extensions, for the one shape of input that a label has. The blocks'
// 32-byte halves are read where the labels lie; nothing is copied.
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

// Bytes of the table of halves: 37 parents and the padding.
#define HALVES 304

// func labelsNI(out, prev *byte, label *byte, parents *uint32, degree uint64, states *[8]uint32, count uint64)
TEXT ·labelsNI(SB), NOSPLIT, $320-56
	MOVQ out+0(FP), DI
	MOVQ prev+8(FP), SI
	MOVQ label+16(FP), R10
	MOVQ parents+24(FP), R8
	MOVQ degree+32(FP), R12
	MOVQ states+40(FP), R9
	MOVQ count+48(FP), R11
	LEAQ constants<>(SB), AX
	MOVOU flip<>(SB), X8
	MOVOU field<>(SB), X11
	LEAQ padding<>(SB), R13

label:
	// Addresses of the parents' labels, and a hint to fetch those of the node after the next,
	// whose parents BX points to.
	LEAQ (R8)(R12*8), BX
	XORQ CX, CX

base:
	MOVL (R8)(CX*4), DX
	SHLQ $5, DX
	ADDQ DI, DX
	MOVQ DX, (SP)(CX*8)
	MOVL (BX)(CX*4), DX
	SHLQ $5, DX
	PREFETCHT0 (DI)(DX*1)
	INCQ CX
	CMPQ CX, $6
	JNE  base
	CMPQ R12, $6
	JEQ  repeat

expander:
	MOVL (R8)(CX*4), DX
	SHLQ $5, DX
	ADDQ SI, DX
	MOVQ DX, (SP)(CX*8)
	MOVL (BX)(CX*4), DX
	SHLQ $5, DX
	PREFETCHT0 (SI)(DX*1)
	INCQ CX
	CMPQ CX, $14
	JNE  expander

repeat:
	// And over again, two by two, up to the padding's half.
	XORQ BX, BX

again:
	MOVOU (SP)(BX*8), X0
	MOVOU X0, (SP)(CX*8)
	ADDQ $2, BX
	ADDQ $2, CX
	CMPQ CX, $38
	JNE  again
	MOVQ R13, 296(SP)

	MOVOU 0(R9), X1
	MOVOU 16(R9), X2
	XORQ BX, BX

block:
	MOVQ (SP)(BX*1), CX
	MOVQ 8(SP)(BX*1), DX
	MOVOU 0(CX), X3
	MOVOU 16(CX), X4
	MOVOU 0(DX), X5
	MOVOU 16(DX), X6
	PSHUFB X8, X3
	PSHUFB X8, X4
	PSHUFB X8, X5
	PSHUFB X8, X6
	COMPRESS
	ADDQ $16, BX
	CMPQ BX, $HALVES
	JNE  block

	// From (A B E F), (C D G H) to A … H, big-endian, without the two topmost bits.
	PSHUFD $0x1b, X1, X1     // F E B A, lowest word last
	PSHUFD $0xb1, X2, X2     // D C H G
	MOVO   X1, X3
	PBLENDW $0xf0, X2, X1    // D C B A
	PALIGNR $8, X3, X2       // H G F E
	PSHUFB X8, X1
	PSHUFB X8, X2
	PAND   X11, X2
	MOVOU  X1, 0(R10)
	MOVOU  X2, 16(R10)

	ADDQ $32, R10
	ADDQ $32, R9
	LEAQ (R8)(R12*4), R8
	DECQ R11
	JNE  label
	RET

// Swaps the bytes of each word.
DATA flip<>+0(SB)/8, $0x0405060700010203
DATA flip<>+8(SB)/8, $0x0c0d0e0f08090a0b
GLOBL flip<>(SB), RODATA|NOPTR, $16

// Clears the two topmost bits of a label in its upper half.
DATA field<>+0(SB)/8, $0xffffffffffffffff
DATA field<>+8(SB)/8, $0x3fffffffffffffff
GLOBL field<>(SB), RODATA|NOPTR, $16

// The end of a message of 1,248 bytes: one bit, zeros, the length in bits (big-endian).
DATA padding<>+0(SB)/8, $0x0000000000000080
DATA padding<>+8(SB)/8, $0
DATA padding<>+16(SB)/8, $0
DATA padding<>+24(SB)/8, $0x0027000000000000
GLOBL padding<>(SB), RODATA|NOPTR, $32

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
