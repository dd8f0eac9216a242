package gadget_test

import (
	"crypto/sha256"
	"math/rand/v2"
	"testing"

	"github.com/consensys/gnark-crypto/ecc/bls12-381/fr"
	"pgregory.net/rapid"

	"sealfleet/internal/sealcore"
	"sealfleet/internal/sealcore/field"
	"sealfleet/internal/sealcore/gadget"
	"sealfleet/internal/sealcore/poseidon"
	"sealfleet/internal/sealcore/r1cs"
)

// spoiler checks a circuit after adding one to the value of one auxiliary variable.
type spoiler struct {
	r1cs.Checker
	at, n int
}

func (s *spoiler) AllocAux(value fr.Element) r1cs.Var {
	if s.n == s.at {
		one := fr.One()
		value.Add(&value, &one)
	}
	s.n++
	return s.Checker.AllocAux(value)
}

// enforced checks that a gadget's witness satisfies it, and that no variable that it
// allocates may hold anything else. inputs writes what the gadget reads.
func enforced[T any](t testing.TB, inputs func(b *gadget.Builder) T, write func(b *gadget.Builder, in T)) (constraints int) {
	t.Helper()
	var inputCount, total int
	{
		var c r1cs.Counter
		b := gadget.New(&c)
		in := inputs(b)
		inputCount = c.Aux
		before := c.Constraints
		write(b, in)
		total = c.Aux
		constraints = c.Constraints - before
	}
	for at := inputCount - 1; at < total; at++ {
		s := &spoiler{at: at}
		if at < inputCount {
			s.at = -1 // once without spoiling anything
		}
		b := gadget.New(s)
		write(b, inputs(b))
		failed := s.Unsatisfied()
		if s.at < 0 && len(failed) > 0 {
			t.Fatalf("the witness does not satisfy constraints %v", failed)
		}
		if s.at >= 0 && len(failed) == 0 {
			t.Fatalf("variable %d, the gadget's %d, may hold any value", at, at-inputCount)
		}
	}
	return constraints
}

// bitOf makes a bit of one of six kinds: a constant, a variable or its negation, with
// either value.
func bitOf(b *gadget.Builder, kind int) gadget.Bit {
	value := kind&1 == 1
	switch kind / 2 {
	case 0:
		return gadget.Constant(value)
	case 1:
		return b.AllocBit(value)
	default:
		return b.AllocBit(!value).Not()
	}
}

// TestBitTables tries every operation on every mixture of constants, variables and
// negations.
func TestBitTables(t *testing.T) {
	kinds := []int{0, 1, 2, 3, 4, 5}
	for _, x := range kinds {
		for _, y := range kinds {
			for _, z := range kinds {
				vx, vy, vz := x&1 == 1, y&1 == 1, z&1 == 1
				inputs := func(b *gadget.Builder) [3]gadget.Bit {
					return [3]gadget.Bit{bitOf(b, x), bitOf(b, y), bitOf(b, z)}
				}
				allConstant := x < 2 && y < 2 && z < 2
				for _, op := range []struct {
					name string
					run  func(b *gadget.Builder, in [3]gadget.Bit) gadget.Bit
					want bool
				}{
					{"xor", func(b *gadget.Builder, in [3]gadget.Bit) gadget.Bit { return b.Xor(in[0], in[1]) }, vx != vy},
					{"and", func(b *gadget.Builder, in [3]gadget.Bit) gadget.Bit { return b.And(in[0], in[1]) }, vx && vy},
					{"ch", func(b *gadget.Builder, in [3]gadget.Bit) gadget.Bit { return b.Ch(in[0], in[1], in[2]) }, vx && vy || !vx && vz},
					{"maj", func(b *gadget.Builder, in [3]gadget.Bit) gadget.Bit { return b.Maj(in[0], in[1], in[2]) }, vx && vy || vx && vz || vy && vz},
				} {
					n := enforced(t, inputs, func(b *gadget.Builder, in [3]gadget.Bit) {
						if got := op.run(b, in).Value(); got != op.want {
							t.Errorf("%s of kinds %d, %d, %d is %v", op.name, x, y, z, got)
						}
					})
					if allConstant && n != 0 {
						t.Errorf("%s of constants takes %d constraints", op.name, n)
					}
				}
			}
		}
	}
}

// messageBits makes the bits of a message, most significant first, of the kinds that
// kind picks for them.
func messageBits(b *gadget.Builder, message []byte, kind func(i int) int) []gadget.Bit {
	var bits []gadget.Bit
	for i := range 8 * len(message) {
		value := int(message[i/8] >> (7 - i%8) & 1)
		bits = append(bits, bitOf(b, 2*kind(i)+value))
	}
	return bits
}

func bytesOf(bits []gadget.Bit) []byte {
	out := make([]byte, len(bits)/8)
	for i, bit := range bits {
		if bit.Value() {
			out[i/8] |= 0x80 >> (i % 8)
		}
	}
	return out
}

// TestSHA256 hashes messages of all lengths whose bits are constants, variables and
// negations at random.
func TestSHA256(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		message := rapid.SliceOfN(rapid.Byte(), 0, 130).Draw(t, "message")
		kinds := rapid.SliceOfN(rapid.IntRange(0, 2), 1, 64).Draw(t, "kinds")
		var c r1cs.Checker
		b := gadget.New(&c)
		digest := b.SHA256(messageBits(b, message, func(i int) int { return kinds[i%len(kinds)] }))
		want := sha256.Sum256(message)
		if got := bytesOf(digest); string(got) != string(want[:]) {
			t.Fatalf("SHA-256 of %x is %x, want %x", message, got, want)
		}
		if bad := c.Unsatisfied(); bad != nil {
			t.Fatalf("constraints %v are not satisfied", bad)
		}
	})
}

// TestSHA256Counts compares the number of constraints with that of the reference's own
// tests: for 512 bits, with the second block nearly all constant.
func TestSHA256Counts(t *testing.T) {
	for _, c := range []struct{ kind, want int }{{0, 0}, {1, 44874}} {
		var counter r1cs.Counter
		b := gadget.New(&counter)
		bits := messageBits(b, make([]byte, 64), func(int) int { return c.kind })
		before := counter.Constraints
		b.SHA256(bits)
		if got := counter.Constraints - before; got != c.want {
			t.Errorf("kind %d: %d constraints, want %d", c.kind, got, c.want)
		}
	}
}

func randomElement(r *rand.Rand) fr.Element {
	var x fr.Element
	for i := range x {
		x[i] = r.Uint64()
	}
	x[3] >>= 2 // below the modulus
	return x
}

func seeded(t testing.TB) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// TestPoseidon compares the circuit with the hash, and its size with the reference's
// tests where they tell it.
func TestPoseidon(t *testing.T) {
	r := seeded(t)
	for _, c := range []struct{ arity, constraints int }{{2, 311}, {4, 0}, {8, 0}, {11, 598}} {
		values := make([]fr.Element, c.arity)
		for i := range values {
			values[i] = randomElement(r)
		}
		want := poseidon.For(c.arity).Sum(values)
		n := enforced(t,
			func(b *gadget.Builder) []gadget.Num {
				in := make([]gadget.Num, c.arity)
				for i := range in {
					in[i] = b.AllocNum(values[i])
				}
				return in
			},
			func(b *gadget.Builder, in []gadget.Num) {
				if got := b.Poseidon(in); got.Value != want {
					t.Fatalf("arity %d: %v, want %v", c.arity, got.Value, want)
				}
			})
		if c.constraints != 0 && n != c.constraints {
			t.Errorf("arity %d: %d constraints, want %d", c.arity, n, c.constraints)
		}
	}
}

// TestInsert puts a node at each place among its siblings.
func TestInsert(t *testing.T) {
	r := seeded(t)
	for _, digits := range []int{1, 2, 3} {
		for place := range 1 << digits {
			values := make([]fr.Element, 1<<digits)
			for i := range values {
				values[i] = randomElement(r)
			}
			type input struct {
				node     gadget.Num
				bits     []gadget.Bit
				siblings []gadget.Num
			}
			n := enforced(t,
				func(b *gadget.Builder) (in input) {
					for i := range digits {
						in.bits = append(in.bits, b.AllocBit(place>>i&1 == 1))
					}
					for i, v := range values {
						if i == place {
							in.node = b.AllocNum(v)
						} else {
							in.siblings = append(in.siblings, b.AllocNum(v))
						}
					}
					return in
				},
				func(b *gadget.Builder, in input) {
					for i, got := range b.Insert(in.node, in.bits, in.siblings) {
						if got.Value != values[i] {
							t.Fatalf("place %d of %d: position %d is wrong", place, 1<<digits, i)
						}
					}
				})
			if want := []int{1: 2, 2: 8, 3: 22}[digits]; n != want {
				t.Errorf("%d children take %d constraints, want %d", 1<<digits, n, want)
			}
		}
	}
}

// TestNumBits checks that a number's bits are in the order in which a hash reads its
// bytes, and that packing them as a digest gives the number back.
func TestNumBits(t *testing.T) {
	r := seeded(t)
	for range 20 {
		x := randomElement(r)
		bytes := field.ToDomain(x)
		enforced(t,
			func(b *gadget.Builder) gadget.Num { return b.AllocNum(x) },
			func(b *gadget.Builder, in gadget.Num) {
				bits := b.AppendNumBits(nil, in)
				if got := bytesOf(bits); string(got) != string(bytes[:]) {
					t.Fatalf("bits of %x are %x", bytes, got)
				}
				var low sealcore.Domain
				copy(low[:], bytes[:])
				low[31] &= 0x3f
				if got := field.ToDomain(b.PackDigest(bits).Value); got != low {
					t.Fatalf("packed %x to %x", bytes, got)
				}
			})
	}
}

// TestPublicInputs checks which values become public.
func TestPublicInputs(t *testing.T) {
	var c r1cs.Checker
	b := gadget.New(&c)
	x := b.AllocNum(fr.NewElement(7))
	b.Inputize(x)
	b.PackIntoInput(b.AllocUint64(1<<63 + 5))
	b.Inputize(b.Add(x, b.AllocNum(fr.NewElement(35))))
	want := []fr.Element{fr.NewElement(7), fr.NewElement(1<<63 + 5), fr.NewElement(42)}
	got := c.Inputs()
	if len(got) != len(want) {
		t.Fatalf("%d public inputs, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("public input %d is %v, want %v", i, got[i], want[i])
		}
	}
	if bad := c.Unsatisfied(); bad != nil {
		t.Errorf("constraints %v are not satisfied", bad)
	}
	b.Equal(x, b.AllocNum(fr.NewElement(8)))
	if bad := c.Unsatisfied(); len(bad) != 1 || bad[0] != c.Constraints()-1 {
		t.Errorf("unequal numbers: constraints %v of %d fail, want the last", bad, c.Constraints())
	}
}
