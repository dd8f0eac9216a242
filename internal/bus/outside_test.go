package bus

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sealfleet/internal/phases"

	"github.com/nats-io/nats-server/v2/server"
)

// A server of somebody else's, with a user for each host that may do exactly what one
// host needs: everything that a host does must work, and nothing of another host's.
func TestAHostWithTheFewestPermissions(t *testing.T) {
	const g, h = "group1", "host1"
	durable := Durable(g, phases.P1)
	ns, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true,
		Users: []*server.User{
			{Username: "admin", Password: "x"},
			{Username: h, Password: "x", Permissions: &server.Permissions{
				Publish: &server.SubjectPermission{Allow: []string{
					"$JS.API.CONSUMER.INFO." + TasksStream + "." + durable,
					"$JS.API.CONSUMER.MSG.NEXT." + TasksStream + "." + durable,
					"$JS.ACK." + TasksStream + "." + durable + ".>", "$JS.ACK.*.*." + TasksStream + "." + durable + ".>",
					"ev." + g + ".*.*." + h,
					"$JS.API.DIRECT.GET." + EventsStream + ".ev." + g + ".>",
				}},
				Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX_" + h + ".>", "ev." + g + ".>"}},
			}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	go ns.Start()
	if !ns.ReadyForConnections(patience) {
		t.Fatal("no server")
	}
	defer ns.Shutdown()
	ctx := testContext(t)
	d := connect(t, Config{URL: ns.ClientURL(), User: "admin", Password: "x"}, "dispatcher-a")
	if _, err := d.Apply(ctx, []string{g}); err != nil {
		t.Fatal(err)
	}
	issued := event(phases.Issued, phases.P1, "dispatcher-a")
	seq, err := d.Append(ctx, issued, 0)
	if err != nil {
		t.Fatal(err)
	}
	tk := task(7)
	tk.IssuedID, tk.IssuedSeq = issued.ID, seq
	if err := d.PublishTask(ctx, tk); err != nil {
		t.Fatal(err)
	}

	host := connect(t, Config{URL: ns.ClientURL(), User: h, Password: "x", Role: RoleHost}, h)
	l, err := host.Fetch(ctx, g, phases.P1, patience)
	if err != nil || l == nil {
		t.Fatalf("fetch: %v", err)
	}
	last, err := host.Last(ctx, g, testSector, phases.P1)
	if err != nil || last == nil || last.ID != issued.ID || last.Seq != seq {
		t.Fatalf("last: %+v, %v", last, err)
	}
	if none, err := host.Last(ctx, g, testSector, phases.P2); none != nil || err != nil {
		t.Fatalf("last of an empty chain: %+v, %v", none, err)
	}
	claim := event(phases.Claimed, phases.P1, h)
	claim.PrevID, claim.ClaimID = issued.ID, "c"
	if claim.Seq, err = host.Append(ctx, claim, seq); err != nil {
		t.Fatal(err)
	}
	late := claim
	late.ID = "late"
	if _, err := host.Append(ctx, late, seq); !errors.Is(err, ErrConflict) {
		t.Fatalf("a second claim: %v", err)
	}
	if err := l.Extend(); err != nil {
		t.Fatal(err)
	}
	if err := l.Ack(ctx); err != nil {
		t.Fatal(err)
	}
	// What is denied looks like an outage.
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if _, err := host.Append(short, event(phases.Claimed, phases.P2, "host2"), 0); !errors.Is(err, ErrUnreachable) {
		t.Fatalf("an event in another's name: %v", err)
	}
}

func TestTheEmbeddedServerWithTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key := certificate(t, dir)
	s, err := StartEmbedded(ServerConfig{Listen: "127.0.0.1:0", StateDir: dir, Cert: cert, Key: key}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx := testContext(t)
	// In another process on this machine, and on another machine with a copy of the seed.
	for name, c := range map[string]Config{
		"local":  {StateDir: dir, CA: cert, Role: RoleHost},
		"remote": {URL: s.ClientURL(), Nkey: s.HostSeed(), CA: cert, Role: RoleHost},
	} {
		b, err := Connect(ctx, c, "host1", testLog(t))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := b.nc.TLSConnectionState(); err != nil {
			t.Errorf("%s: the connection is in clear: %v", name, err)
		}
		b.Close()
	}
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	for name, c := range map[string]Config{
		"unknown authority": {URL: s.ClientURL(), Nkey: s.HostSeed(), Role: RoleHost},
		"no seed":           {URL: s.ClientURL(), CA: cert, Role: RoleHost},
	} {
		if b, err := Connect(short, c, "host1", testLog(t)); err == nil {
			b.Close()
			t.Errorf("%s is let in", name)
		}
	}
}

// certificate makes a self-signed one for 127.0.0.1.
func certificate(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "sealfleet test"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}
