package recovery

import (
	"context"
	"fmt"

	"github.com/celler/celler/blob/chunk"
	"github.com/celler/celler/blob/pack"
)

// profilePacks is how many packs are asked for the size of their chunks.
const profilePacks = 16

// profile returns the chunk profile of a FORMAT that is made anew. Chunks do not say by
// which they were cut, but the largest of them tells which it cannot have been. A wrong
// one costs space, because the same bytes are cut in other places, and nothing else.
func (x *examiner) profile(ctx context.Context) (string, error) {
	if x.o.Profile != "" {
		p, err := chunk.ParseProfile(x.o.Profile)
		return p.Name, err
	}
	largest, packs := uint32(0), 0
	for info, err := range x.data.List(ctx, pack.Prefix, "") {
		if err != nil {
			return "", fmt.Errorf("list packs: %w", err)
		}
		id, err := pack.ParseKey(info.Key)
		if err != nil {
			continue
		}
		f, err := pack.ReadFooter(ctx, x.data, id, info.Size)
		if err != nil {
			continue // it only serves to guess
		}
		for i := range f.Sections {
			for _, fr := range f.Sections[i].Frames {
				for _, e := range fr.Entries {
					largest = max(largest, e.Size)
				}
			}
		}
		if packs++; packs == profilePacks {
			break
		}
	}
	standard, err := chunk.ParseProfile(chunk.DefaultProfile)
	if err != nil || int(largest) <= standard.Max && int(largest) > standard.Max/2 || largest == 0 {
		return standard.Name, err
	}
	for kib := 1; kib <= 256; kib *= 2 {
		p, err := chunk.ParseProfile(fmt.Sprintf("fast2016-%dk", kib))
		if err != nil {
			return "", err
		}
		if int(largest) <= p.Max {
			// Few bytes are often cut far below the largest chunk there may be.
			if p.Max < standard.Max {
				return standard.Name, nil
			}
			return p.Name, nil
		}
	}
	return standard.Name, nil
}
