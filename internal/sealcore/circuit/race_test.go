//go:build race

package circuit_test

// raceDetector makes everything some ten times slower; tests of circuits that add nothing
// to what a smaller one shows are left out then.
const raceDetector = true
