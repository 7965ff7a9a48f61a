package wire

import (
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/celler/celler/nix"
)

// TestHashPartsGolden holds the bytes of a question, and of a sum, as docs/protocol.md has them.
func TestHashPartsGolden(t *testing.T) {
	var hashParts []nix.HashPart
	for _, text := range []string{"zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz", "00bgd045z0d4icpbc2yyz4gx48ak44la"} {
		hashPart, err := nix.ParseHashPart(text)
		if err != nil {
			t.Fatal(err)
		}
		hashParts = append(hashParts, hashPart)
	}
	body := AppendHashParts(nil, hashParts)
	unsorted := slices.Clone(hashParts)
	const second = "0016f68085f81a48b2eb60bdef91fd221532128a"
	if got, want := hex.EncodeToString(body), strings.Repeat("ff", 20)+second; got != want {
		t.Errorf("question %s, want %s", got, want)
	}
	if got, want := hex.EncodeToString(AbsentSum(hashParts)), "279e33a55322a718e82c5d7214770903"; got != want {
		t.Errorf("sum %s, want %s", got, want)
	}
	back, err := ReadHashParts(iotest.OneByteReader(strings.NewReader(string(body))), 2)
	if err != nil || !slices.Equal(back, unsorted) {
		t.Errorf("read as %v, %v", back, err)
	}
	if _, err := ReadHashParts(strings.NewReader(string(body)), 1); !IsTooLong(err) {
		t.Errorf("two paths where one is allowed: %v", err)
	}
	broken := errors.New("broken")
	if _, err := ReadHashParts(iotest.ErrReader(broken), 1); !errors.Is(err, broken) {
		t.Errorf("error %v, want that of the reader", err)
	}
}
