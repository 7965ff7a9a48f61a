package node

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/nix"
)

// bookKeyName spells out the key of a row that counts, dates or marks; ok is false if it
// is none, or not as long as it should be.
func bookKeyName(key []byte) (name string, ok bool) {
	rest := key[1:]
	number := func(at int) uint32 { return binary.BigEndian.Uint32(rest[at:]) }
	switch row := key[0]; {
	case row == keyspace.PinPrefix:
		cache, pin, revision, err := keyspace.DecodePinKey(key)
		name = fmt.Sprintf("cache %d %s", cache, pin)
		if revision > 0 {
			name += fmt.Sprintf(" revision %d", revision)
		}
		return name, err == nil
	case (row == keyspace.NarPrefix || row == keyspace.UnreferencedPrefix) && len(rest) == 32:
		return hex.EncodeToString(rest), true
	case (row == keyspace.ObjectPrefix || row == keyspace.BuriedPrefix || row == keyspace.VerifiedPrefix) && len(rest) == 12:
		return chunk.PackID{Epoch: number(0), Rand: binary.BigEndian.Uint64(rest[4:])}.String(), true
	case row == keyspace.UploadPrefix && len(rest) == 4+32:
		return fmt.Sprintf("cache %d file %x", number(0), rest[4:]), true
	case row == keyspace.ListingPrefix && len(rest) == 32:
		return hex.EncodeToString(rest), true
	case row == keyspace.SidePrefix && len(rest) > 6:
		return fmt.Sprintf("cache %d kind %d %q", number(0), rest[4], rest[5:len(rest)-1]), true
	case row == keyspace.FormerPrefix && len(rest) == 32+4+20:
		return fmt.Sprintf("%x cache %d %v", rest[:32], number(32), nix.HashPart(rest[36:])), true
	case row == keyspace.LastUsePrefix && len(rest) == 4+20:
		return fmt.Sprintf("cache %d %v", number(0), nix.HashPart(rest[4:])), true
	case row == keyspace.UseOrderPrefix && len(rest) == 4+4+20:
		return fmt.Sprintf("cache %d day %d %v", number(0), number(4), nix.HashPart(rest[8:])), true
	case row == keyspace.TotalsPrefix && len(rest) == 4:
		return cacheOrStore(number(0)), true
	case row == keyspace.GrowthPrefix && len(rest) == 8:
		return fmt.Sprintf("day %d %s", number(0), cacheOrStore(number(4))), true
	case row == keyspace.TouchPrefix && len(rest) == 8:
		return fmt.Sprintf("collection %d number %d", number(0), number(4)), true
	case row == keyspace.DayPrefix && len(rest) == 4:
		return fmt.Sprint(number(0)), true
	case (row == keyspace.MarkPrefix || row == keyspace.RoundPrefix) && len(rest) == 0:
		return "of collections", true
	}
	return "", false
}

func cacheOrStore(id uint32) string {
	if id == 0 {
		return "all caches"
	}
	return fmt.Sprintf("cache %d", id)
}

// describeBooks decodes the value of such a row.
func describeBooks(out *LogEntry, key, value []byte) (ok bool, err error) {
	switch key[0] {
	case keyspace.PinPrefix:
		return true, describePin(out, key, value)
	case keyspace.NarPrefix:
		n, err := keyspace.DecodeNar(key, value)
		out.fill(fmt.Sprintf("%d paths, %d bytes, served %d", n.Paths, n.NarSize, n.ServedSize), "paths", n.Paths, "nar_bytes", n.NarSize, "served_bytes", n.ServedSize)
		return true, err
	case keyspace.UnreferencedPrefix:
		u, err := keyspace.DecodeUnreferenced(key, value)
		out.fill(fmt.Sprintf("since day %d", u.Day), "day", u.Day, "purge", u.Purge, "now", u.Now)
		return true, err
	case keyspace.ObjectPrefix:
		o, err := keyspace.DecodeObject(key, value)
		out.fill(fmt.Sprintf("%d bytes of %d packs", o.Bytes, len(o.Packs)), "bytes", o.Bytes, "packs", len(o.Packs))
		return true, err
	case keyspace.BuriedPrefix:
		b, err := keyspace.DecodeBuried(key, value)
		out.fill(fmt.Sprintf("%d bytes, since day %d", b.Bytes, b.Day), "bytes", b.Bytes, "day", b.Day)
		return true, err
	case keyspace.FormerPrefix:
		f, err := keyspace.DecodeFormer(key, value)
		out.fill(fmt.Sprintf("until day %d", f.Day), "day", f.Day)
		return true, err
	case keyspace.UploadPrefix:
		u, err := keyspace.DecodeUpload(key, value)
		out.fill(fmt.Sprintf("NAR %x of %d bytes, %s", u.NarHash, u.NarSize, u.Compression), "nar_hash", hex.EncodeToString(u.NarHash[:]), "nar_bytes", u.NarSize, "file_bytes", u.FileSize, "compression", u.Compression, "claimed", u.Claimed)
		return true, err
	case keyspace.ListingPrefix:
		l, err := keyspace.DecodeListing(key, value)
		out.fill(fmt.Sprintf("%d bytes", len(l.Zstd)), "bytes", len(l.Zstd))
		return true, err
	case keyspace.SidePrefix:
		s, err := keyspace.DecodeSide(key, value)
		out.fill(fmt.Sprintf("%d bytes", s.Size), "bytes", s.Size, "stored", s.Stored)
		return true, err
	case keyspace.LastUsePrefix:
		u, err := keyspace.DecodeLastUse(key, value)
		out.fill(fmt.Sprintf("day %d", u.Day), "day", u.Day)
		return true, err
	case keyspace.UseOrderPrefix:
		_, err := keyspace.DecodeUseOrder(key, value)
		return true, err
	case keyspace.TotalsPrefix:
		t, err := keyspace.DecodeTotals(key, value)
		out.fill(fmt.Sprintf("%d paths, %d bytes, served %d", t.Paths, t.NarBytes, t.ServedBytes), "paths", t.Paths, "nar_bytes", t.NarBytes, "served_bytes", t.ServedBytes)
		return true, err
	case keyspace.GrowthPrefix:
		g, err := keyspace.DecodeGrowth(key, value)
		out.fill(fmt.Sprintf("%d paths came, %d went", g.AddedPaths, g.RemovedPaths),
			"added_paths", g.AddedPaths, "added_bytes", g.AddedBytes, "removed_paths", g.RemovedPaths, "removed_bytes", g.RemovedBytes)
		return true, err
	case keyspace.TouchPrefix:
		t, err := keyspace.DecodeTouch(key, value)
		out.fill(fmt.Sprintf("cache %d %v", t.Cache, t.HashPart), "cache", uint32(t.Cache), "hash_part", t.HashPart.String(), "recipe", t.Recipe)
		return true, err
	case keyspace.MarkPrefix:
		m, err := keyspace.DecodeMark(key, value)
		out.fill(fmt.Sprintf("number %d, running %v, %d touches", m.Generation, m.Running, m.Touches), "generation", m.Generation, "running", m.Running, "touches", m.Touches)
		return true, err
	case keyspace.DayPrefix:
		d, err := keyspace.DecodeDay(key, value)
		text := "over"
		if !d.Ended.IsZero() {
			text = "ended " + d.Ended.UTC().Format(time.RFC3339)
		}
		out.fill(text, "ended", d.Ended.UTC(), "slot", d.Slot)
		return true, err
	case keyspace.VerifiedPrefix:
		v, err := keyspace.DecodeVerified(key, value)
		out.fill(fmt.Sprintf("read back %s, damaged %v", v.At.UTC().Format(time.RFC3339), v.Damaged), "at", v.At.UTC(), "damaged", v.Damaged)
		return true, err
	case keyspace.RoundPrefix:
		r, err := keyspace.DecodeRound(key, value)
		out.fill("ended "+r.Ended.UTC().Format(time.RFC3339), "ended", r.Ended.UTC(), "summary", string(r.Summary))
		return true, err
	}
	return false, nil
}

func describePin(out *LogEntry, key, value []byte) error {
	_, _, revision, err := keyspace.DecodePinKey(key)
	if err != nil {
		return err
	}
	if revision > 0 {
		r, err := keyspace.DecodePinRevision(key, value)
		if err != nil {
			return err
		}
		out.fill(fmt.Sprintf("%v, by %s", r.StorePath, r.By), "store_path", r.StorePath.String(), "by", r.By, "at", r.At.UTC())
		return nil
	}
	p, err := keyspace.DecodePin(key, value)
	out.fill(fmt.Sprintf("newest revision %d, keeps %d revisions, %d days, forever %v", p.Newest, p.Policy.KeepRevisions, p.Policy.KeepDays, p.Policy.KeepForever),
		"newest", p.Newest, "keep_revisions", p.Policy.KeepRevisions, "keep_days", p.Policy.KeepDays, "keep_forever", p.Policy.KeepForever)
	return err
}
