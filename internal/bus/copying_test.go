package bus

import (
	"encoding/json"
	"testing"
	"time"
)

func TestLimitOfAControl(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		control Control
		want    int64
		bad     bool
	}{
		{Control{On: true, Value: json.RawMessage("500000000")}, 500e6, false},
		{Control{On: false, Value: json.RawMessage("500000000")}, 0, false},
		{Control{On: true, Value: json.RawMessage("5"), Until: now.Add(-time.Second)}, 0, false},
		{Control{On: true, Value: json.RawMessage(`"fast"`)}, 0, true},
		{Control{On: true, Value: json.RawMessage("0")}, 0, true},
		{Control{On: true}, 0, true},
	} {
		if got, err := c.control.CopyLimit(now); got != c.want || (err != nil) != c.bad {
			t.Errorf("%+v: %d, %v", c.control, got, err)
		}
	}
}
