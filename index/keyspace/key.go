package keyspace

// The prefix byte of every row type. They are durable: a prefix is never given
// to another row type.
const (
	CachePrefix        = 'a'
	BuriedPrefix       = 'b'
	ChunkPrefix        = 'c'
	DestroyedPrefix    = 'd'
	UploadPrefix       = 'e'
	FormerPrefix       = 'f'
	GrowthPrefix       = 'g'
	TouchPrefix        = 'h'
	PinPrefix          = 'i'
	ListingPrefix      = 'j'
	PackPrefix         = 'k'
	LastUsePrefix      = 'l'
	MarkPrefix         = 'm'
	NarPrefix          = 'n'
	UseOrderPrefix     = 'o'
	PathPrefix         = 'p'
	ObjectPrefix       = 'q'
	RecipePrefix       = 'r'
	SecretPrefix       = 's'
	TotalsPrefix       = 't'
	CounterPrefix      = 'u'
	VerifiedPrefix     = 'v'
	UnreferencedPrefix = 'w'
	CondemnedPrefix    = 'x'
	DayPrefix          = 'y'
	RoundPrefix        = 'z'
	SidePrefix         = 'S'
)

// Kind names the row type of key for people; "" if it is none of ours.
func Kind(key []byte) string {
	if len(key) == 0 {
		return ""
	}
	switch key[0] {
	case CachePrefix:
		return "cache"
	case BuriedPrefix:
		return "buried"
	case FormerPrefix:
		return "former"
	case GrowthPrefix:
		return "growth"
	case TouchPrefix:
		return "touch"
	case PinPrefix:
		return "pin"
	case LastUsePrefix:
		return "last-use"
	case MarkPrefix:
		return "mark"
	case NarPrefix:
		return "nar"
	case UseOrderPrefix:
		return "use"
	case ObjectPrefix:
		return "object"
	case TotalsPrefix:
		return "totals"
	case UnreferencedPrefix:
		return "unreferenced"
	case DayPrefix:
		return "day"
	case RoundPrefix:
		return "round"
	case VerifiedPrefix:
		return "verified"
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
	case UploadPrefix:
		return "upload"
	case ListingPrefix:
		return "listing"
	case SidePrefix:
		return "side"
	case '~':
		return "lanes" // the log's, which knows it as wal.LanesKey
	}
	return ""
}
