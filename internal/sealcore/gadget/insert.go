package gadget

// Insert puts a node among its siblings at the place that the bits give, the least
// significant first: one bit for one sibling, two for three, or three for seven. The bits
// must be plain variables. Any other number of siblings is a programmer's error.
func (b *Builder) Insert(node Num, place []Bit, siblings []Num) []Num {
	switch {
	case len(place) == 1 && len(siblings) == 1:
		return []Num{
			b.Pick(place[0], siblings[0], node),
			b.Pick(place[0], node, siblings[0]),
		}
	case len(place) == 2 && len(siblings) == 3:
		return b.insert4(node, place, siblings)
	case len(place) == 3 && len(siblings) == 7:
		return b.insert8(node, place, siblings)
	}
	panic("gadget: a node goes among 1, 3 or 7 siblings")
}

// insert4 is insert8 of half the width.
func (b *Builder) insert4(n Num, place []Bit, s []Num) []Num {
	b0, b1 := place[0], place[1]
	var p [4]Num
	t := b.Pick(b0, s[0], n)
	p[0] = b.Pick(b1, s[0], t)

	t = b.Pick(b0, n, s[0])
	p[1] = b.Pick(b1, s[1], t)

	t = b.Pick(b0, s[2], n)
	p[2] = b.Pick(b1, t, s[1])

	t = b.Pick(b0, n, s[2])
	p[3] = b.Pick(b1, t, s[2])
	return p[:]
}

// insert8 settles each position with as few choices as the positions allow:
//
//	place      0 1 2 3 4 5 6 7
//	0 [0 0 0]  N 0 1 2 3 4 5 6
//	1 [1 0 0]  0 N 1 2 3 4 5 6
//	2 [0 1 0]  0 1 N 2 3 4 5 6
//	…
//	7 [1 1 1]  0 1 2 3 4 5 6 N
func (b *Builder) insert8(n Num, place []Bit, s []Num) []Num {
	b0, b1, b2 := place[0], place[1], place[2]
	neither := b.nor(b0, b1)
	both := b.And(b0, b1)

	var p [8]Num
	t := b.Pick(neither, n, s[0])
	p[0] = b.Pick(b2, s[0], t)

	t = b.Pick(b0, n, s[0])
	t = b.Pick(b1, s[1], t)
	p[1] = b.Pick(b2, s[1], t)

	t = b.Pick(b0, s[2], n)
	t = b.Pick(b1, t, s[1])
	p[2] = b.Pick(b2, s[2], t)

	t = b.Pick(both, n, s[2])
	p[3] = b.Pick(b2, s[3], t)

	t = b.Pick(neither, n, s[4])
	p[4] = b.Pick(b2, t, s[3])

	t = b.Pick(b0, n, s[4])
	t = b.Pick(b1, s[5], t)
	p[5] = b.Pick(b2, t, s[4])

	t = b.Pick(b0, s[6], n)
	t = b.Pick(b1, t, s[5])
	p[6] = b.Pick(b2, t, s[5])

	t = b.Pick(both, n, s[6])
	p[7] = b.Pick(b2, t, s[6])
	return p[:]
}
