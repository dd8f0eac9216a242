package chaos

// skewVariable tells a program that was built with SkewedTime by how many seconds its
// clock is wrong.
const skewVariable = "SEALFLEET_CHAOS_SKEW"
