package config

import "time"

// GC says what is removed from the bucket, and when. The first two keys are Attic's.
type GC struct {
	Interval    Span  `toml:"interval" default:"12 hours" env:"CELLER_GARBAGE_COLLECTION_INTERVAL" placeholder:"SPAN" help:"How often a server collects garbage; 0s for never (${default})."`
	Retention   Span  `toml:"default-retention-period" name:"default-retention-period" default:"0s" env:"CELLER_GARBAGE_COLLECTION_DEFAULT_RETENTION_PERIOD" placeholder:"SPAN" help:"How long after its last use a path stays in a cache that does not say so itself; 0s for ever (${default})."`
	Quota       Bytes `toml:"quota" default:"0" env:"CELLER_GARBAGE_COLLECTION_QUOTA" placeholder:"SIZE" help:"Stored bytes that the paths of all caches may take together; what was used least recently goes first; 0 for any number (${default})."`
	NarGrace    Span  `toml:"nar-grace" default:"30 days" env:"CELLER_GARBAGE_COLLECTION_NAR_GRACE" placeholder:"SPAN" help:"How long the NAR of a path that was removed can still be fetched by its URL, which clients remember (${default})."`
	ReaderGrace Span  `toml:"reader-grace" default:"24 hours" env:"CELLER_GARBAGE_COLLECTION_READER_GRACE" placeholder:"SPAN" help:"How long an object stays in the bucket after nothing needs it any more, for downloads and servers that lag behind (${default})."`
}

// minReaderGrace is shorter than any download that matters; it is there for trials.
const minReaderGrace = Span(time.Second)

// Check reports values that cannot be used. logRetention is that of Compact: within
// it a removed path can be restored, for which its NAR must be there.
func (g *GC) Check(logRetention Span) error {
	const section = "garbage-collection."
	switch {
	case g.Interval < 0:
		return &ValueError{section + "interval", g.Interval.String(), "a span that is not negative"}
	case g.Retention < 0:
		return &ValueError{section + "default-retention-period", g.Retention.String(), "a span that is not negative"}
	case g.Quota < 0:
		return &ValueError{section + "quota", g.Quota.String(), "a size that is not negative"}
	case g.ReaderGrace < minReaderGrace:
		return &ValueError{section + "reader-grace", g.ReaderGrace.String(), "at least " + minReaderGrace.String()}
	case g.NarGrace < g.ReaderGrace:
		return &ValueError{section + "nar-grace", g.NarGrace.String(), "at least reader-grace, which is " + g.ReaderGrace.String()}
	case g.NarGrace < logRetention:
		return &ValueError{section + "nar-grace", g.NarGrace.String(), "at least compact.log-retention, which is " + logRetention.String() + ": what was removed can be restored for so long"}
	}
	return nil
}
