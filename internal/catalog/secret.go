package catalog

import (
	"bytes"
	"context"
	"fmt"

	"github.com/celler/celler/index/keyspace"
	"github.com/celler/celler/wal"
)

// Secret returns the secret called name, which all nodes of the bucket share. If
// there is none yet it commits what mk returns; created says that it was ours
// that the log kept.
func (c *Catalog) Secret(ctx context.Context, name string, mk func() ([]byte, error)) (secret []byte, created bool, err error) {
	key := keyspace.AppendSecretKey(nil, name)
	row, ok, err := lookup(ctx, c, "look up a secret", key, keyspace.DecodeSecret)
	if ok || err != nil {
		return row.Value, false, err
	}
	value, err := mk()
	if err != nil {
		return nil, false, fmt.Errorf("make secret %q: %w", name, err)
	}
	row = keyspace.Secret{Name: name, Value: value, Created: c.timestamp()}
	if err := row.Valid(); err != nil {
		return nil, false, invalid(err)
	}
	_, err = c.wal.Commit(ctx, wal.Op{Name: "create secret", Cost: len(value) + 64, Build: func(v wal.View) ([]wal.Entry, error) {
		if _, exists, err := v.Get(key); exists || err != nil {
			return nil, err // somebody else was faster
		}
		return []wal.Entry{set(key, keyspace.AppendSecret(nil, &row))}, nil
	}})
	if err != nil {
		return nil, false, fmt.Errorf("create secret %q: %w", name, err)
	}
	kept, ok, err := local(c, key, keyspace.DecodeSecret)
	if err == nil && !ok {
		err = fmt.Errorf("create secret %q: it is not there after it was committed", name)
	}
	return kept.Value, bytes.Equal(kept.Value, value), err
}
