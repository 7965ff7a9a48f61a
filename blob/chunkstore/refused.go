package chunkstore

import "github.com/celler/celler/blob/chunk"

// Refused says that a recipe of this store was not accepted because something it
// names is gone. Writes from now on do not take chunks from its packs only because
// this process has uploaded them: they ask the directory, and store again what it
// does not know.
func (s *Store) Refused(r *chunk.Recipe) {
	s.packer.drop(r.Packs())
}
