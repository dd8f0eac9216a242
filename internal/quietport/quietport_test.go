package quietport

import (
	"net"
	"testing"
)

func TestAddressCanBeListenedOn(t *testing.T) {
	address, err := Address()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // it comes again
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if port := l.Addr().(*net.TCPAddr).Port; port < first || port >= last {
			t.Errorf("port %d", port)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
