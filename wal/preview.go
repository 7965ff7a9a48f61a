package wal

// Preview is a state together with effects upon it that are not committed, for an
// operation that is made of several, each of which is to see those before it.
type Preview struct{ *overlay }

// NewPreview returns base without any effects yet.
func NewPreview(base View) *Preview { return &Preview{newOverlay(base)} }

// Apply adds effects.
func (p *Preview) Apply(entries []Entry) { p.apply(entries) }

var _ View = (*Preview)(nil)
