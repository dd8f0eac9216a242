package consume

import (
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"sealfleet/internal/phases"
	"sealfleet/internal/settings"
)

func TestWorkers(t *testing.T) {
	for text, want := range map[string]string{
		"10:p1;1:p2,p3;1:p4,p5;4:p6":      "10:p1;1:p2,p3;1:p4,p5;4:p6",
		" 10 : p1 ; 1 : p3 , p2 ;":        "10:p1;1:p2,p3",
		"1:PreCommitPhase1":               "1:p1",
		"2:CommitPhase2,CopyTask":         "2:p4,p5",
		"4:cleantask":                     "4:p6",
		"3:1,2":                           "3:p1,p2", // the old bits
		"1:p5,P4,p6,p1,PreCommitPhase2,4": "1:p1,p2,p3,p4,p5,p6",
		"1:p1;1:p1":                       "1:p1;1:p1",
	} {
		var w Workers
		if err := w.UnmarshalText([]byte(text)); err != nil || w.String() != want {
			t.Errorf("%q: %q, %v; want %q", text, w, err, want)
		}
	}
	for text, want := range map[string]string{
		"":            "number:phase",
		";;":          "number:phase",
		"p1":          "number:phase",
		"0:p1":        "from 1 to",
		"-1:p1":       "from 1 to",
		"x:p1":        "from 1 to",
		"10001:p1":    "from 1 to",
		"1.5:p1":      "from 1 to",
		"1:p7":        `phase "p7" is unknown`,
		"1:":          `phase "" is unknown`,
		"1:p1,":       `phase "" is unknown`,
		"1:p1,p1":     "twice",
		"1:p1,1":      "twice",
		"1:precommit": "unknown",
		"1:p1;2:p9":   `entry "2:p9"`,
		"10:p1,1:p2":  "unknown",
	} {
		w := Workers{{1, []phases.Step{phases.P6}}}
		err := w.UnmarshalText([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
		if w.String() != "1:p6" {
			t.Errorf("%q changed the setting to %q although refused", text, w)
		}
	}
}

func TestWorkersRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var list Workers
		for range rapid.IntRange(1, 5).Draw(t, "entries") {
			w := Worker{Num: rapid.IntRange(1, maxSlots).Draw(t, "num")}
			mask := rapid.IntRange(1, 63).Draw(t, "phases")
			for _, p := range phases.Phases() {
				if mask&p.Bit() != 0 {
					w.Phases = append(w.Phases, p)
				}
			}
			list = append(list, w)
		}
		var got Workers
		if err := got.UnmarshalText([]byte(list.String())); err != nil || !reflect.DeepEqual(got, list) {
			t.Fatalf("%q gives %q, %v", list, got, err)
		}
	})
}

func FuzzWorkers(f *testing.F) {
	f.Add("10:p1;1:p2,p3;1:p4,p5;4:p6")
	f.Fuzz(func(t *testing.T, text string) {
		var w, again Workers
		if w.UnmarshalText([]byte(text)) != nil {
			return
		}
		if err := again.UnmarshalText([]byte(w.String())); err != nil || !reflect.DeepEqual(w, again) {
			t.Errorf("%q is read as %q, and that as %q, %v", text, w, again, err)
		}
	})
}

func TestGroupsAndNodes(t *testing.T) {
	var g Groups
	if err := g.UnmarshalText([]byte("[1, 2]")); err != nil || strings.Join(g, " ") != "group1 group2" {
		t.Errorf("%v, %v", g, err)
	}
	for _, bad := range []string{"", "group.1", "a,,b", "Group1", "1,group1", "*"} {
		if err := g.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("group %q accepted: %v", bad, g)
		}
	}
	var n Nodes
	if err := n.UnmarshalText([]byte("node1=/mnt/node1/, node2=/mnt/node2")); err != nil || !reflect.DeepEqual(n, Nodes{{Name: "node1", Dir: "/mnt/node1", Weight: 1}, {Name: "node2", Dir: "/mnt/node2", Weight: 1}}) {
		t.Errorf("%v, %v", n, err)
	}
	for _, bad := range []string{"node1", "=/x", "node1=", "node1=mnt", "a=/x,a=/y", "a b=/x"} {
		if err := n.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("nodes %q accepted: %v", bad, n)
		}
	}
}

func TestSettingsRefuseBeforeAnyWork(t *testing.T) {
	for name, test := range map[string]struct {
		environ map[string]string
		want    []string
	}{
		"workers":  {map[string]string{"WORKERS": "ten:p1"}, []string{"WORKERS", `"ten:p1"`, `example: WORKERS="10:p1`}},
		"phase":    {map[string]string{"WORKERS": "1:p0"}, []string{`phase "p0" is unknown`, "PreCommitPhase1"}},
		"group":    {map[string]string{"SEAL_GROUPS": "Ü"}, []string{"SEAL_GROUPS", "group"}},
		"nodes":    {map[string]string{"STORAGE_NODES": "/mnt/x"}, []string{"STORAGE_NODES", "name=/directory"}},
		"engine":   {map[string]string{"ENGINE": "cuda"}, []string{"ENGINE", `"cuda"`, "builtin"}},
		"name":     {map[string]string{"HOST_NAME": "a.b"}, []string{"HOST_NAME", "letters"}},
		"reserved": {map[string]string{"HOST_NAME": "dispatcher-a"}, []string{"HOST_NAME", "dispatcher"}},
		"ip":       {map[string]string{"IP": "../x"}, []string{"IP"}},
		"dir":      {map[string]string{"LOCAL_DIR": "sealer"}, []string{"LOCAL_DIR", "absolute"}},
		"wait":     {map[string]string{"FETCH_WAIT": "-1s"}, []string{"FETCH_WAIT"}},
		"limit":    {map[string]string{"COPY_LIMIT_MB_PER_SEC": "-5"}, []string{"COPY_LIMIT_MB_PER_SEC"}},
		"misspelt": {map[string]string{"WOKRERS": "1:p1"}, []string{"WOKRERS", "did you mean WORKERS"}},
	} {
		var c Config
		err := settings.LoadFrom(&c, test.environ)
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		for _, want := range test.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q lacks %q", name, err, want)
			}
		}
	}
	var c Config
	if err := settings.LoadFrom(&c, nil); err != nil {
		t.Error("defaults:", err)
	}
	if c.HostName == "" || c.IP == "" || c.Workers.String() == "" || len(c.Groups) != 1 {
		t.Errorf("defaults: %+v", c)
	}
}
