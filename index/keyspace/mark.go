package keyspace

import (
	"encoding/binary"

	"github.com/celler/celler/nix"
)

// Mark is the collection that is running, if one is. There is one row.
type Mark struct {
	Generation uint32 // grows with each collection
	Running    bool
	Touches    uint32 // touch rows of this generation: serials 1 to Touches
}

// AppendMarkKey appends the key of the only row there is.
func AppendMarkKey(dst []byte) []byte { return append(dst, MarkPrefix) }

// AppendMark appends the value of m.
func AppendMark(dst []byte, m *Mark) []byte {
	dst = append(dst, rowVersion)
	dst = binary.AppendUvarint(dst, uint64(m.Generation))
	dst = append(dst, flagIf(m.Running, 1))
	return binary.AppendUvarint(dst, uint64(m.Touches))
}

// DecodeMark decodes the row.
func DecodeMark(key, value []byte) (Mark, error) {
	if len(key) != 1 || key[0] != MarkPrefix {
		return Mark{}, keyError("mark", key)
	}
	d := decoder[[]byte]{what: "mark", src: value}
	d.version()
	m := Mark{Generation: d.uint32("generation")}
	m.Running = d.flags(1) != 0
	m.Touches = d.uint32("number of touches")
	if err := d.end(); err != nil {
		return Mark{}, err
	}
	return m, nil
}

// Touch is something that came to life, or was used, while a collection was running
// that had looked before.
type Touch struct {
	Generation uint32 // of the key
	Serial     uint32 // of the key

	Cache    CacheID // of the path; 0: no path
	HashPart nix.HashPart
	Recipe   bool // the recipe of NarHash was written
	NarHash  [32]byte
}

// AppendTouchKey appends the key of a touch.
func AppendTouchKey(dst []byte, generation, serial uint32) []byte {
	return binary.BigEndian.AppendUint32(AppendTouchPrefix(dst, generation), serial)
}

// AppendTouchPrefix appends what the keys of a generation begin with.
func AppendTouchPrefix(dst []byte, generation uint32) []byte {
	return binary.BigEndian.AppendUint32(append(dst, TouchPrefix), generation)
}

const (
	flagTouchedPath   = 1 << 0
	flagTouchedRecipe = 1 << 1
)

// AppendTouch appends the value of t.
func AppendTouch(dst []byte, t *Touch) []byte {
	dst = append(dst, rowVersion, flagIf(t.Cache != 0, flagTouchedPath)|flagIf(t.Recipe, flagTouchedRecipe))
	if t.Cache != 0 {
		dst = binary.BigEndian.AppendUint32(dst, uint32(t.Cache))
		dst = append(dst, t.HashPart[:]...)
	}
	if t.Recipe {
		dst = append(dst, t.NarHash[:]...)
	}
	return dst
}

// DecodeTouch decodes the row of one touch.
func DecodeTouch(key, value []byte) (Touch, error) {
	rest, ok := cutPrefix(key, TouchPrefix, 4+4)
	if !ok {
		return Touch{}, keyError("touch", key)
	}
	t := Touch{Generation: binary.BigEndian.Uint32(rest), Serial: binary.BigEndian.Uint32(rest[4:])}
	d := decoder[[]byte]{what: "touch", src: value}
	d.version()
	flags := d.flags(flagTouchedPath | flagTouchedRecipe)
	if flags&flagTouchedPath != 0 {
		var id [4]byte
		d.fill(id[:])
		if t.Cache = CacheID(binary.BigEndian.Uint32(id[:])); t.Cache == 0 {
			d.fail("there is no cache 0")
		}
		d.fill(t.HashPart[:])
	}
	if t.Recipe = flags&flagTouchedRecipe != 0; t.Recipe {
		d.fill(t.NarHash[:])
	}
	if err := d.end(); err != nil {
		return Touch{}, err
	}
	return t, nil
}
