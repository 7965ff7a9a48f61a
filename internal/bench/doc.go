// Command bench measures celler as its users meet it, each figure beside what bounds it on the same machine in the same run.
//
// It builds nothing and changes nothing outside a scratch directory: "make
// bench" builds the binaries and calls it. Every figure of
// docs/benchmarks.md is printed by this command; with -write it replaces the
// tables there.
//
// The load generator, the peer (nginx), the S3 server (versitygw) and celler
// share the machine's cores, so absolute figures are floors; the ratio of two
// lines of one run is what the targets are stated in.
package main
