// Command asm writes lanes_amd64.s: labels of one to three sectors at once with the SHA
// extensions. It is a module of its own, so that building sealfleet does not need avo. Run it by
// `go generate` in package sdr.
//
// One chain of SHA-256 waits for itself: a pair of rounds takes four cycles, in which the unit
// could do more. So each step of four rounds is written for every lane in turn.
//
// The registers don't hold three message schedules besides three states. But a label hashes its
// 14 (or 6) parents over and over, two to a block: 19 blocks with no more than 8 (or 4) schedules.
// Each is computed once, in memory, with the round constants added; the blocks that repeat only
// load it.
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Offsets of laneArgs, which package sdr fills in; the first four have a pointer for each lane.
const (
	argOut     = 0   // the layer's labels
	argPrev    = 24  // those of the layer before
	argLabel   = 48  // where the first label is written
	argStates  = 72  // SHA-256 behind the prefix
	argParents = 96  // of the first node
	argDegree  = 104 // bytes of a node's parents
	argLast    = 112 // bytes into them: the last one that is hashed
	argRepeat  = 120 // blocks that repeat
	argEnd     = 128 // bytes of labels
	argScratch = 136 // memory, aligned to 16 bytes
)

// Offsets in the table of constants.
const (
	constFlip  = 256 // swaps the bytes of each word
	constField = 272 // clears the two topmost bits
	constPad   = 288 // the last eight words of the message
)

const (
	node     = 32
	schedule = 256 // bytes of 64 words
)

var k = [64]uint32{
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
}

// Registers.
var (
	scratch = reg.RBX
	first   = reg.RCX // offset of a parent's label
	second  = reg.RDX
	args    = reg.RDI
	pair    = reg.RSI // bytes into the node's parents, or a counter
	parents = reg.R8
	bases   = []reg.GPPhysical{reg.R9, reg.R10, reg.R11} // of the lanes' labels
	at      = reg.R12                                    // bytes of labels that are done
	table   = reg.R13                                    // a slot of schedules
	hints   = reg.R14                                    // the next node's parents
	hint    = reg.R15                                    // bytes into them
	// hintBases points to the lanes' labels that the next hint is for.
	hintBases = reg.RAX
	words     = reg.X0 // what SHA256RNDS2 takes
	xmm       = []reg.VecPhysical{reg.X1, reg.X2, reg.X3, reg.X4, reg.X5, reg.X6, reg.X7, reg.X8,
		reg.X9, reg.X10, reg.X11, reg.X12, reg.X13, reg.X14, reg.X15}
)

func mem(base reg.GPPhysical, disp int) Mem { return Mem{Base: base, Disp: disp} }

func arg(offset int) Mem { return mem(args, offset) }

func constant(offset int) Mem { return NewDataAddr(NewStaticSymbol("laneConstants"), offset) }

// lane is the registers and memory of one lane.
type lane struct {
	number     int
	abef, cdgh reg.VecPhysical
	message    [2]reg.VecPhysical // the newest four words, and the next
	temporary  reg.VecPhysical
}

// Scratch memory of n lanes: states, message schedules, then slots of schedules with constants.
func (l lane) saved(n, half int) Mem { return mem(scratch, 32*l.number+16*half) }
func (l lane) word(n, quad int) Mem {
	return mem(scratch, 32*n+schedule*l.number+16*quad)
}
func slots(n int) int            { return 32*n + schedule*n }
func (l lane) slot(quad int) Mem { return mem(table, schedule*l.number+16*quad) }
func (l lane) keep(n int)        { MOVO(l.abef, l.saved(n, 0)); MOVO(l.cdgh, l.saved(n, 1)) }
func (l lane) add(n int)         { PADDD(l.saved(n, 0), l.abef); PADDD(l.saved(n, 1), l.cdgh) }

// rounds does four rounds with the words in a register.
func (l lane) rounds() {
	SHA256RNDS2(words, l.abef, l.cdgh)
	PSHUFD(Imm(0x0e), words, words)
	SHA256RNDS2(words, l.cdgh, l.abef)
}

// roundsOf does four rounds with words from memory. SHA256RNDS2 takes but the lower half of words,
// so two loads do what a load and a shuffle would.
func (l lane) roundsOf(m Mem) {
	MOVQ(m, words)
	SHA256RNDS2(words, l.abef, l.cdgh)
	m.Disp += 8
	MOVQ(m, words)
	SHA256RNDS2(words, l.cdgh, l.abef)
}

// fresh hashes a block whose schedule is not there yet. The last block's other half is padding,
// and its schedule needs no slot.
func fresh(lanes []lane, last bool) {
	n := len(lanes)
	if n == 1 {
		freshOne(lanes[0], last)
		return
	}
	for _, l := range lanes {
		l.keep(n)
	}
	for quad := range 16 {
		for _, l := range lanes {
			newest, next := l.message[quad&1], l.message[1-quad&1]
			switch {
			case quad < 2:
				MOVOU(Mem{Base: bases[l.number], Index: first, Scale: 1, Disp: 16 * quad}, next)
				PSHUFB(constant(constFlip), next)
			case quad < 4 && last:
				MOVO(constant(constPad+16*(quad-2)), next)
			case quad < 4:
				MOVOU(Mem{Base: bases[l.number], Index: second, Scale: 1, Disp: 16 * (quad - 2)}, next)
				PSHUFB(constant(constFlip), next)
			default:
				MOVO(l.word(n, quad-4), next)
				SHA256MSG1(l.word(n, quad-3), next)
				MOVO(newest, l.temporary)
				PALIGNR(Imm(4), l.word(n, quad-2), l.temporary)
				PADDD(l.temporary, next)
				SHA256MSG2(newest, next)
			}
			if quad < 15 {
				MOVO(next, l.word(n, quad))
			}
			MOVO(next, words)
			PADDD(constant(16*quad), words)
			if !last {
				MOVO(words, l.slot(quad))
			}
			l.rounds()
		}
	}
	for _, l := range lanes {
		l.add(n)
	}
}

// freshOne is fresh for one lane, whose schedule fits in registers.
func freshOne(l lane, last bool) {
	m, t := xmm[2:6], xmm[6]
	l.keep(1)
	for quad := range 16 {
		cur, next, prev := m[quad&3], m[(quad+1)&3], m[(quad+3)&3]
		switch {
		case quad < 2:
			MOVOU(Mem{Base: bases[0], Index: first, Scale: 1, Disp: 16 * quad}, cur)
			PSHUFB(constant(constFlip), cur)
		case quad < 4 && last:
			MOVO(constant(constPad+16*(quad-2)), cur)
		case quad < 4:
			MOVOU(Mem{Base: bases[0], Index: second, Scale: 1, Disp: 16 * (quad - 2)}, cur)
			PSHUFB(constant(constFlip), cur)
		}
		MOVO(constant(16*quad), words)
		PADDD(cur, words)
		if !last {
			MOVO(words, l.slot(quad))
		}
		SHA256RNDS2(words, l.abef, l.cdgh)
		if quad > 2 && quad < 15 {
			MOVO(cur, t)
			PALIGNR(Imm(4), prev, t)
			PADDD(t, next)
			SHA256MSG2(cur, next)
		}
		PSHUFD(Imm(0x0e), words, words)
		SHA256RNDS2(words, l.cdgh, l.abef)
		if quad > 0 && quad < 13 {
			SHA256MSG1(cur, prev)
		}
	}
	l.add(1)
}

// repeat hashes a block once more.
func repeat(lanes []lane) {
	n := len(lanes)
	for _, l := range lanes {
		l.keep(n)
	}
	for quad := range 16 {
		for _, l := range lanes {
			l.roundsOf(l.slot(quad))
		}
	}
	for _, l := range lanes {
		l.add(n)
	}
}

// offset loads the offset of a parent's label.
func offset(to reg.GPPhysical, m Mem) {
	MOVL(m, to.As32())
	SHLQ(U8(5), to)
}

// prefetch hints at the labels of one parent of the next node. There is one in each block: where a
// page's address is not in the TLB, a hint waits for a walk through the page tables, and all of a
// node's in a row held up the hashing by a sixth.
func prefetch(name string, n int) {
	CMPQ(hint, arg(argDegree))
	JEQ(LabelRef(name + "None"))
	CMPQ(hint, Imm(24))
	JNE(LabelRef(name + "Same"))
	LEAQ(arg(argPrev), hintBases)
	Label(name + "Same")
	for l := range n {
		offset(first, Mem{Base: hints, Index: hint, Scale: 1})
		ADDQ(mem(hintBases, 8*l), first)
		PREFETCHT0(mem(first, 0))
	}
	ADDQ(Imm(4), hint)
	Label(name + "None")
}

func labels(n int) {
	lanes := make([]lane, n)
	for i := range lanes {
		lanes[i] = lane{i, xmm[2*i], xmm[2*i+1], [2]reg.VecPhysical{xmm[6+2*i], xmm[7+2*i]}, xmm[12+i]}
	}
	name := fmt.Sprintf("labels%d", n)
	TEXT(name, NOSPLIT, "func(args *byte)")
	Doc(fmt.Sprintf("%s writes the labels of nodes in a row for %d sectors; args are laneArgs.", name, n))
	Pragma("noescape")
	Load(Param("args"), args)
	MOVQ(arg(argScratch), scratch)
	MOVQ(arg(argParents), parents)
	XORQ(at, at)

	Label("label")
	MOVQ(arg(argDegree), hints)
	ADDQ(parents, hints)
	XORQ(hint, hint)
	LEAQ(arg(argOut), hintBases)
	for _, l := range lanes {
		MOVQ(arg(argStates+8*l.number), second)
		MOVOU(Mem{Base: second, Index: at, Scale: 1}, l.abef)
		MOVOU(Mem{Base: second, Index: at, Scale: 1, Disp: 16}, l.cdgh)
		MOVQ(arg(argOut+8*l.number), bases[l.number])
	}
	LEAQ(mem(scratch, slots(n)), table)
	XORQ(pair, pair)
	Label("block")
	prefetch("fetch", n)
	offset(first, Mem{Base: parents, Index: pair, Scale: 1})
	offset(second, Mem{Base: parents, Index: pair, Scale: 1, Disp: 4})
	fresh(lanes, false)
	ADDQ(I32(schedule*n), table)
	ADDQ(Imm(8), pair)
	CMPQ(pair, arg(argDegree))
	JEQ(LabelRef("again"))
	CMPQ(pair, Imm(24))
	JNE(LabelRef("block"))
	for l := range n {
		MOVQ(arg(argPrev+8*l), bases[l])
	}
	JMP(LabelRef("block"))

	Label("again")
	MOVQ(table, second) // the end of the slots
	LEAQ(mem(scratch, slots(n)), table)
	MOVQ(arg(argRepeat), pair)
	Label("repeat")
	prefetch("fetchMore", n)
	repeat(lanes)
	ADDQ(I32(schedule*n), table)
	CMPQ(table, second)
	JNE(LabelRef("next"))
	LEAQ(mem(scratch, slots(n)), table)
	Label("next")
	DECQ(pair)
	JNE(LabelRef("repeat"))

	MOVQ(arg(argLast), pair)
	offset(first, Mem{Base: parents, Index: pair, Scale: 1})
	fresh(lanes, true)

	// From (A B E F), (C D G H) to A … H, big-endian, without the two topmost bits.
	for _, l := range lanes {
		t := l.temporary
		PSHUFD(Imm(0x1b), l.abef, l.abef) // F E B A, lowest word last
		PSHUFD(Imm(0xb1), l.cdgh, l.cdgh) // D C H G
		MOVO(l.abef, t)
		PBLENDW(Imm(0xf0), l.cdgh, l.abef) // D C B A
		PALIGNR(Imm(8), t, l.cdgh)         // H G F E
		PSHUFB(constant(constFlip), l.abef)
		PSHUFB(constant(constFlip), l.cdgh)
		PAND(constant(constField), l.cdgh)
		MOVQ(arg(argLabel+8*l.number), second)
		MOVOU(l.abef, Mem{Base: second, Index: at, Scale: 1})
		MOVOU(l.cdgh, Mem{Base: second, Index: at, Scale: 1, Disp: 16})
	}
	ADDQ(arg(argDegree), parents)
	ADDQ(Imm(node), at)
	CMPQ(at, arg(argEnd))
	JNE(LabelRef("label"))
	RET()
}

func main() {
	ConstraintExpr("!purego")
	GLOBL("laneConstants", RODATA|NOPTR)
	for i, c := range k {
		DATA(4*i, U32(c))
	}
	for i, c := range []uint32{
		0x00010203, 0x04050607, 0x08090a0b, 0x0c0d0e0f,
		0xffffffff, 0xffffffff, 0xffffffff, 0x3fffffff,
		0x80000000, 0, 0, 0, 0, 0, 0, 39 * 32 * 8, // a message of prefix and 37 parents
	} {
		DATA(constFlip+4*i, U32(c))
	}
	labels(1)
	labels(2)
	labels(3)
	Generate()
}
