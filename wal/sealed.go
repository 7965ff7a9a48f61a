package wal

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// ROOT and FORMAT are JSON, of which many a flipped bit makes other JSON. Their last
// field is therefore a sum: the first 8 bytes of the SHA-256 of the object as it is
// without that field, in hexadecimal digits. An object without it is one that an early
// celler wrote, and is believed.

const (
	sumField = `,"sum":"`
	sumTail  = len(sumField) + 16 + len(`"}`)
)

// seal puts the sum into a JSON object.
func seal(body []byte) []byte {
	sum := DigestOf(body)
	out := append(bytes.Clone(body[:len(body)-1]), sumField...)
	out = hex.AppendEncode(out, sum[:8])
	return append(out, `"}`...)
}

// checkSeal compares the sum of an object, if it has one, with what it says.
func checkSeal(src []byte) error {
	var v struct {
		Sum string `json:"sum"`
	}
	if err := json.Unmarshal(src, &v); err != nil {
		return corrupt(0, "content", "a JSON object", err)
	}
	if v.Sum == "" {
		return nil
	}
	body := bytes.TrimRight(src, "\n")
	if at := len(body) - sumTail; at > 0 && string(body[at:at+len(sumField)]) == sumField {
		want := DigestOf(append(bytes.Clone(body[:at]), '}'))
		if have := hex.EncodeToString(want[:8]); have != v.Sum {
			return corrupt(at, "sum", have, v.Sum)
		}
		return nil
	}
	return corrupt(len(body), "sum", "the last field", fmt.Sprintf("%.40q elsewhere", v.Sum))
}
