package wal

import "time"

// Overlay is the view of a batch in the making.
type Overlay = overlay

// NewOverlay and Apply are what the sequencer does with it.
func NewOverlay(base View) *Overlay { return newOverlay(base) }

// Apply performs entries on the overlay.
func (o *overlay) Apply(entries []Entry) { o.apply(entries) }

// Pace decides when batches begin.
type Pace = pace

// SawForeign, Committed, Arrivals and HoldUntil are its methods.
func (p *pace) SawForeign(w WriterID, now time.Time)              { p.sawForeign(w, now) }
func (p *pace) Committed(now time.Time, d time.Duration, ops int) { p.committed(now, d, ops) }
func (p *pace) Arrivals(now time.Time, n int) bool                { return p.arrivals(now, n) }
func (p *pace) HoldUntil(queued int, oldest time.Time) time.Time  { return p.holdUntil(queued, oldest) }
