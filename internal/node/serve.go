package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/celler/celler/httpapi"
	"github.com/celler/celler/internal/telemetry"
)

const (
	// readHeaderTimeout bounds how long a peer may take over the head of a request.
	readHeaderTimeout = 30 * time.Second
	// idleTimeout is longer than what proxies in front keep idle connections for, so
	// that they, and not we, close them: closing first loses the request in flight.
	idleTimeout = 2 * time.Minute
	// maxHeaderBytes has room for Attic's upload description and a long token.
	maxHeaderBytes = 256 << 10
	// maxStreams is how many requests a connection of HTTP/2 carries at once.
	maxStreams = 250
	// sweepEvery is how often what destroyed caches left is looked for.
	sweepEvery = 10 * time.Minute
)

// claim takes the socket that systemd passed, or sees that the configured address can
// be had. It does not keep it: whoever connects to a server that is not ready is to be
// refused at once and not to wait.
func (n *Node) claim(ctx context.Context) error {
	sockets, err := activation.Listeners()
	if err != nil {
		return fmt.Errorf("take sockets from systemd: %w", err)
	}
	for i, socket := range sockets {
		if n.listener == nil && socket != nil {
			n.listener = socket
		} else if socket != nil {
			return fmt.Errorf("systemd passed %d sockets, expected one; socket %d is for another service", len(sockets), i)
		}
	}
	if n.listener != nil {
		n.closeListener()
		return nil
	}
	trial, err := n.take(ctx)
	if err != nil {
		return err
	}
	if err := trial.Close(); err != nil {
		return &ListenError{Addr: n.cfg.Listen, Err: err}
	}
	return nil
}

// listen takes the configured address, unless systemd gave us a socket.
func (n *Node) listen(ctx context.Context) (err error) {
	if n.listener != nil {
		return nil
	}
	if n.listener, err = n.take(ctx); err != nil {
		return err
	}
	n.closeListener()
	return nil
}

func (n *Node) take(ctx context.Context) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", anyFamily(n.cfg.Listen))
	if err != nil {
		return nil, &ListenError{Addr: n.cfg.Listen, Err: err}
	}
	return l, nil
}

func (n *Node) closeListener() {
	n.onClose("listener", func() error {
		if err := n.listener.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
}

// anyFamily lets "[::]:8080" mean every address also where there is no IPv6.
func anyFamily(addr string) string {
	if host, port, err := net.SplitHostPort(addr); err == nil && host == "::" {
		return ":" + port
	}
	return addr
}

// ListenError reports an address that could not be taken.
type ListenError struct {
	Addr string
	Err  error
}

func (e *ListenError) Error() string { return fmt.Sprintf("listen on %s: %v", e.Addr, e.Err) }

// Unwrap returns what the system said.
func (e *ListenError) Unwrap() error { return e.Err }

// serve makes the HTTP server.
func (n *Node) serve() {
	set := n.o.Metrics
	set.GetOrCreateGauge(buildInfo(n.o.Version), func() float64 { return 1 })
	o := httpapi.Options{
		Logger:              n.o.Logger,
		Metrics:             set,
		MetricsHandler:      telemetry.MetricsHandler(set),
		TracerProvider:      n.o.Tracing.Provider(),
		Health:              n.health,
		Now:                 n.o.Now,
		AllowedHosts:        n.cfg.AllowedHosts,
		APIEndpoint:         n.cfg.APIEndpoint,
		SubstituterEndpoint: n.cfg.SubstituterEndpoint,
		MaxUploadInfoBytes:  int(n.cfg.MaxNarInfoSize),
		TrustHashes:         n.cfg.TrustHashes,
		Past:                n.pastText(),
	}
	n.peerOptions(&o)
	n.deltaOptions(&o)
	if n.past == nil {
		n.collectOptions(&o)
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	n.server = &http.Server{
		Protocols: protocols,
		// The deadlines of requests do not reach who reads nothing from the connection.
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams, WriteByteTimeout: idleTimeout},
		Handler:           httpapi.New(n.cat, n.chunks, n.verifier, o),
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(n.o.Logger.Handler(), slog.LevelDebug),
	}
}

// Run serves until ctx ends, then lets requests in flight finish for drain-timeout
// and cuts off the rest. It returns nil if it was told to stop.
func (n *Node) Run(ctx context.Context) error {
	// Background work ends after the server: requests in flight may need it.
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() { n.follow(background) })
	if n.past == nil {
		wg.Go(func() { n.sweep(background) })
	}
	if n.peers != nil {
		wg.Go(func() { n.peers.run(background, n.introduce) })
	}
	if n.past == nil {
		wg.Go(func() { n.recordUses(background) })
	}
	if n.cfg.Maintenance == "on" && n.past == nil {
		wg.Go(func() { n.maintain(background) })
	}
	if n.collects() {
		wg.Go(func() { n.collect(background) })
	}
	if n.scrubs() {
		wg.Go(func() { n.scrub(background) })
	}

	served := make(chan error, 1)
	wg.Go(func() { served <- n.server.Serve(n.listener) })
	n.notify(daemon.SdNotifyReady)
	select {
	case err := <-served:
		return fmt.Errorf("serve on %s: %w", n.Addr(), err)
	case <-ctx.Done():
	}
	n.notify(daemon.SdNotifyStopping)
	n.o.Logger.Info("stopping", "dur", time.Duration(n.cfg.DrainTimeout))
	drain, cancel := context.WithTimeout(background, time.Duration(n.cfg.DrainTimeout))
	defer cancel()
	if err := n.server.Shutdown(drain); err != nil {
		n.o.Logger.Warn("requests were cut off", "err", err)
		return errors.Join(n.server.Close())
	}
	return nil
}

// notify tells systemd how far the node is, if systemd started it and asks.
func (n *Node) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		n.o.Logger.Warn("systemd could not be notified", "err", err)
	}
}

// follow keeps the index up to date. When the log fails for good the node goes on
// answering as long as what it knows is fresh; /readyz says why it should be replaced.
func (n *Node) follow(ctx context.Context) {
	if err := n.log.Run(ctx); err != nil && ctx.Err() == nil {
		n.o.Logger.Error("log failed for good, node is read-only", "err", err)
	}
}

// sweep removes what destroyed caches left behind.
func (n *Node) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		if err := n.cat.Sweep(ctx); err != nil && ctx.Err() == nil {
			n.o.Logger.Warn("sweep of destroyed caches failed", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Handler is the node's HTTP interface, for tests and for embedding.
func (n *Node) Handler() http.Handler { return n.server.Handler }
