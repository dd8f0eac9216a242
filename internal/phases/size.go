package phases

import "fmt"

var sizeNames = []string{"2KiB", "8MiB", "512MiB", "32GiB", "64GiB"}

// SizeName is the sector size of a proof type (0 to 9) as people write it: 32GiB.
func SizeName(proofType int) string {
	if proofType < 0 || proofType >= 2*len(sizeNames) {
		return fmt.Sprintf("type %d", proofType)
	}
	return sizeNames[proofType%len(sizeNames)]
}
