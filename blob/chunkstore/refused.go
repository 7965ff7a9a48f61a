package chunkstore

import "github.com/celler/celler/blob/chunk"

// refusedKept recipes are remembered because they were refused.
const refusedKept = 1 << 10

// Refused says that a recipe was not accepted because something it names is gone. If
// Write made it: from now on Writes do not take chunks from its packs only because
// this process has uploaded them; they ask the directory, and store again what it does
// not know. If it was found in the index: WasRefused says so from now on, so that the
// next push of the NAR is not told that it is known.
func (s *Store) Refused(r *chunk.Recipe) {
	s.packer.drop(r.Packs())
	s.refused.put(etagOf(r), struct{}{})
}

// WasRefused reports whether Refused was called with the recipe of late. What is gone
// never comes back under the same name.
func (s *Store) WasRefused(r *chunk.Recipe) bool {
	_, refused := s.refused.get(etagOf(r))
	return refused
}
