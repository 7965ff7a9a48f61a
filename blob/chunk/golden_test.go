package chunk_test

// Hashes of the cuts of mixed(9, 8<<20); see TestFrozenCuts.
const (
	frozen1k   = "3656755fc84dbeaa"
	frozen16k  = "12e75b3218d74f23"
	frozen64k  = "370e8f4a4311fab9"
	frozen256k = "2430abb52b88f40c"
)
