//go:build mutant

package gc

// Mutants breaks single rules of collection, so that simulations can prove that each
// rule is necessary and that they would notice its loss.
type Mutants struct {
	// NoTouchCheck removes what it has marked as dead although something was published,
	// used or pinned since it looked.
	NoTouchCheck bool
	// NoFence goes on although another collector has begun.
	NoFence bool
	// DeleteBeforeGrace deletes objects as soon as nothing in the state needs them,
	// though readers may.
	DeleteBeforeGrace bool
	// SameKey rewrites an object under the name it had. (I7)
	SameKey bool
	// CondemnUnchecked condemns chunks without looking again for recipes that name them.
	CondemnUnchecked bool
}

func (m Mutants) noTouchCheck() bool      { return m.NoTouchCheck }
func (m Mutants) noFence() bool           { return m.NoFence }
func (m Mutants) deleteBeforeGrace() bool { return m.DeleteBeforeGrace }
func (m Mutants) sameKey() bool           { return m.SameKey }
func (m Mutants) condemnUnchecked() bool  { return m.CondemnUnchecked }
