package config

import "path/filepath"

// CompleteDirect fills in only what a verb needs that works on a bucket without a
// server: the bucket, and where its index is kept.
func (c *Config) CompleteDirect(env Env, file *File) error {
	if c.CacheDir == "" {
		c.CacheDir = filepath.Join(env.cacheHome(), "celler")
	}
	return c.Buckets.Complete(env, file)
}
