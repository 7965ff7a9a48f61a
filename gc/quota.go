package gc

// fit says how much of order can be kept within limit. weigh returns what keeping one
// more path costs, given those before it. What is pinned, the first pinned paths, is
// kept in any case; after them the first path that does not fit ends it, so that what
// was used later never goes before what was used earlier.
func fit(order []uint32, pinned int, limit int64, weigh func(i uint32) (int64, error)) (kept int, bytes int64, err error) {
	for k, i := range order {
		more, err := weigh(i)
		if err != nil {
			return 0, 0, err
		}
		if k >= pinned && bytes+more > limit {
			return k, bytes, nil
		}
		bytes += more
	}
	return len(order), bytes, nil
}
