package consume

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"

	"sealfleet/internal/phases"
	"sealfleet/internal/storage"
)

// Node is a storage node as this host reaches it.
type Node struct {
	Name   string
	Dir    string   // a mounted directory, or s3://bucket/prefix
	Weight float64  // how much of what comes it gets, beside its free space; 1 unless given
	Allow  []string // groups that may use it; none: all
	Deny   []string // groups that may not
	// ReadOnly nodes get nothing more; what they hold is still audited and looked at by p6.
	ReadOnly bool
	Limit    int64             // bytes per second of this host's copies to it, 0: none of its own
	Keep     int64             // bytes that stay free
	Quota    int64             // bytes that an s3:// address may hold, 0: boundless
	S3       storage.S3Options // of an s3:// address
}

// IsS3 tells whether the node is an object store and no directory.
func (n Node) IsS3() bool { return storage.IsS3(n.Dir) }

// Nodes is the list of storage nodes: "node1=/mnt/node1,node2=/mnt/node2". After a
// directory attributes may follow, each behind a semicolon:
//
//	node1=/mnt/node1;weight=2;groups=group1|group2;limit=200,old=/mnt/old;readonly,
//	far=s3://sectors/f01000;endpoint=https://s3.example.org;region=eu-1;deny=group3
type Nodes []Node

// UnmarshalText reads the list.
func (n *Nodes) UnmarshalText(text []byte) error {
	var list Nodes
	for entry := range strings.SplitSeq(string(text), ",") {
		node, err := parseNode(strings.TrimSpace(entry))
		if err != nil {
			return fmt.Errorf("entry %q: %w", strings.TrimSpace(entry), err)
		}
		if _, err := list.find(node.Name); err == nil {
			return fmt.Errorf("storage node %s is there twice", node.Name)
		}
		list = append(list, node)
	}
	*n = list
	return nil
}

func parseNode(entry string) (Node, error) {
	parts := strings.Split(entry, ";")
	name, dir, found := strings.Cut(parts[0], "=")
	dir = strings.TrimSpace(dir)
	switch {
	case !found || name == "" || strings.ContainsAny(name, " /\t"):
		return Node{}, errors.New("write name=/directory or name=s3://bucket/prefix")
	case storage.IsS3(dir):
		if err := storage.CheckS3(dir); err != nil {
			return Node{}, err
		}
	case !filepath.IsAbs(dir):
		return Node{}, errors.New("the directory must be an absolute path")
	default:
		dir = filepath.Clean(dir)
	}
	node := Node{Name: name, Dir: dir, Weight: 1}
	seen := map[string]bool{}
	for _, part := range parts[1:] {
		key, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		if key == "" && value == "" {
			continue // a ';' at the end
		}
		if seen[key] {
			return Node{}, fmt.Errorf("%s is there twice", key)
		}
		seen[key] = true
		if err := node.attribute(key, value); err != nil {
			return Node{}, fmt.Errorf("%s: %w", part, err)
		}
	}
	return node, nil
}

func (n *Node) attribute(key, value string) (err error) {
	switch key {
	case "weight":
		if n.Weight, err = strconv.ParseFloat(value, 64); err != nil || !(n.Weight > 0 && n.Weight <= 1000) {
			return errors.New("use a number above 0, at the most 1000")
		}
	case "groups":
		n.Allow, err = parseGroups(value)
	case "deny":
		n.Deny, err = parseGroups(value)
	case "readonly":
		if value != "" && value != "true" {
			return errors.New("write readonly alone")
		}
		n.ReadOnly = true
	case "limit":
		mb, parseErr := strconv.ParseInt(value, 10, 32)
		if parseErr != nil || mb < 1 {
			return errors.New("use a number of MB (10^6 bytes) per second from 1")
		}
		n.Limit = mb * 1e6
	case "keep":
		size, parseErr := humanize.ParseBytes(value)
		if parseErr != nil || size > math.MaxInt64 {
			return errors.New("use a size such as 100GiB")
		}
		n.Keep = int64(size)
	case "quota":
		size, parseErr := humanize.ParseBytes(value)
		if parseErr != nil || size == 0 || size > math.MaxInt64 {
			return errors.New("use a size such as 100TiB")
		}
		if !n.IsS3() {
			return errors.New("only an s3:// node has it: a directory tells how much is free")
		}
		n.Quota = int64(size)
	case "endpoint", "region", "credentials":
		if !n.IsS3() {
			return errors.New("only an s3:// node has it")
		}
		if value == "" {
			return errors.New("give a value")
		}
		return n.S3.Set(key, value)
	default:
		return errors.New("unknown attribute: use weight, groups, deny, readonly, limit, keep; of s3:// also quota, endpoint, region, credentials")
	}
	return err
}

func parseGroups(text string) ([]string, error) {
	var list []string
	for name := range strings.SplitSeq(text, "|") {
		g, err := phases.ParseGroup(strings.TrimSpace(name))
		if err != nil {
			return nil, err
		}
		list = append(list, g)
	}
	return list, nil
}

func (n Nodes) find(name string) (Node, error) {
	names := make([]string, len(n))
	for i, node := range n {
		if node.Name == name {
			return node, nil
		}
		names[i] = node.Name
	}
	known := "none"
	if len(names) > 0 {
		known = strings.Join(names, ", ")
	}
	return Node{}, fmt.Errorf("storage node %q is not among this host's STORAGE_NODES (%s)", name, known)
}

// refuses tells why a node gets nothing of a group, nil if it may.
func (n Node) refuses(group string) error {
	switch {
	case n.ReadOnly:
		return errors.New("read-only")
	case len(n.Allow) > 0 && !slices.Contains(n.Allow, group):
		return fmt.Errorf("not for %s", group)
	case slices.Contains(n.Deny, group):
		return fmt.Errorf("denied to %s", group)
	}
	return nil
}

// room tells how many bytes a node may still take, and how many of a sector lie there
// already, half copied. Tests replace it.
type room func(n Node, sector string) (free, begun int64, err error)

func (q *quotas) roomOf(n Node, sector string) (free, begun int64, err error) {
	switch {
	case !n.IsS3():
		return storage.Room(n.Dir, sector)
	case n.Quota == 0:
		return math.MaxInt64 / 2, 0, nil // a bucket doesn't tell
	}
	free, err = q.free(n, sector)
	return free, 0, err
}

// choose picks p5's storage node for a sector of so many bytes: among those that the group
// may use and that have room, the one where an earlier attempt already left something;
// else one drawn with a probability that goes with weight × free space. The draw hashes
// sector and node, so hosts that know nothing of each other spread alike, and a retry
// meets the same node again as long as the free space is about the same.
//
// (Rendezvous hashing with weights: the least of -ln(h)/w wins, h uniform in (0,1).)
func (n Nodes) choose(group, sector string, bytes int64, room room) (Node, error) {
	var chosen Node
	best, mostBegun := math.Inf(1), int64(0)
	var reasons []string
	full := false
	for _, node := range n {
		err := node.refuses(group)
		var free, begun int64
		if err == nil {
			if free, begun, err = room(node, sector); err != nil {
				err = fmt.Errorf("cannot be reached: %w", err)
			} else if free -= node.Keep; free+begun < bytes {
				err = fmt.Errorf("has room for %s, %s are needed", humanize.IBytes(uint64(max(free, 0))), humanize.IBytes(uint64(bytes)))
				full = true
			}
		}
		if err != nil {
			reasons = append(reasons, fmt.Sprintf("%s: %v", node.Name, err))
			continue
		}
		sum := sha256.Sum256([]byte(sector + "\x00" + node.Name))
		h := (float64(binary.BigEndian.Uint64(sum[:])>>11) + 0.5) / (1 << 53)
		score := -math.Log(h) / (node.Weight * float64(max(free, 1)))
		if begun > mostBegun || begun == mostBegun && score < best {
			chosen, best, mostBegun = node, score, begun
		}
	}
	if chosen.Name != "" {
		return chosen, nil
	}
	code := "storage_away"
	if full {
		code = "no_space"
	}
	if len(reasons) == 0 {
		reasons = []string{"STORAGE_NODES is empty"}
	}
	return Node{}, fail(code, phases.Transient, "no storage node for a sector of %s: %s", group, strings.Join(reasons, "; "))
}
