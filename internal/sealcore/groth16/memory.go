package groth16

// MemoryNeed estimates how many bytes a proof takes at its peak, for a domain and a
// number of auxiliary variables as the parameters have them. See the package comment for
// where they go; an eighth of the variables are taken to be neither 0 nor 1, which is more
// than Filecoin's circuits have. Mapped parameters are not counted.
func MemoryNeed(domain, aux, threads int) uint64 {
	n, v := uint64(domain), uint64(aux)
	witness := 6*v + 32*v/8
	buckets := uint64((threads+15)/16)<<26 + uint64(threads)*24<<20
	return witness + max(96*n, 32*n+buckets, 5*v+buckets) + 200<<20
}
