package ui

// SetTerminal makes p believe that a person is watching a screen of that size.
func (p *Printer) SetTerminal(width, height int) {
	p.size = func() (int, int) { return width, height }
}
