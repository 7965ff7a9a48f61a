package node

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/celler/celler/wal"
)

// TestEmptySegment: a segment without entries has a list of none.
func TestEmptySegment(t *testing.T) {
	p, err := newPicker(LogQuery{})
	if err != nil {
		t.Fatal(err)
	}
	out, wanted := p.segment(&wal.Segment{Seq: 7})
	text, err := json.Marshal(out)
	if err != nil || !wanted || !strings.Contains(string(text), `"entries":[]`) {
		t.Errorf("%v %s %v", wanted, text, err)
	}
}
