package keyspace

// The prefix byte of every row type. They are durable: a prefix is never given
// to another row type.
const (
	CachePrefix     = 'a'
	ChunkPrefix     = 'c'
	DestroyedPrefix = 'd'
	PackPrefix      = 'k'
	PathPrefix      = 'p'
	RecipePrefix    = 'r'
	SecretPrefix    = 's'
	CounterPrefix   = 'u'
	CondemnedPrefix = 'x'
)

// Kind names the row type of key for people; "" if it is none of ours.
func Kind(key []byte) string {
	if len(key) == 0 {
		return ""
	}
	switch key[0] {
	case CachePrefix:
		return "cache"
	case ChunkPrefix:
		return "chunk"
	case DestroyedPrefix:
		return "destroyed"
	case PackPrefix:
		return "pack"
	case PathPrefix:
		return "path"
	case RecipePrefix:
		return "recipe"
	case SecretPrefix:
		return "secret"
	case CounterPrefix:
		return "counter"
	case CondemnedPrefix:
		return "condemned"
	}
	return ""
}
