package agent

import (
	"fmt"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
)

// Systemd makes o that of a service: it listens on the socket that systemd passed, or else
// on the queue's own, and tells systemd what systemd asks to be told.
func (o *Options) Systemd() error {
	sockets, err := activation.Listeners()
	if err != nil {
		return fmt.Errorf("take sockets from systemd: %w", err)
	}
	if len(sockets) > 1 {
		return fmt.Errorf("systemd passed %d sockets, expected one", len(sockets))
	}
	o.Listen = NewListener(o.Queue, sockets)
	if o.Watchdog, err = daemon.SdWatchdogEnabled(false); err != nil {
		return fmt.Errorf("read how often systemd wants a sign of life: %w", err)
	}
	logger := o.Logger
	o.Notify = func(state string) {
		if _, err := daemon.SdNotify(false, state); err != nil && logger != nil {
			logger.Warn("systemd could not be notified", "err", err)
		}
	}
	return nil
}
