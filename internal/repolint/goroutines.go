package repolint

// goroutines lists every place outside tests that starts a goroutine, by "folder/file.go
// function", with who waits for it. One that nobody waits for has no line here.
func goroutines() map[string]string {
	return map[string]string{
		"blob/chunkstore/fetch.go round":      "run, before it returns",
		"blob/chunkstore/footers.go ids":      "Store.Close",
		"blob/chunkstore/packer.go seal":      "Store.Close, and the writers whose chunks are in the pack",
		"blob/chunkstore/output.go enqueue":   "Store.Close, and drop",
		"blob/chunkstore/write.go hash":       "hash, before it returns",
		"blob/chunkstore/pipeline.go start":   "the reader's Close",
		"blob/chunkstore/walk.go walk":        "walk, before it returns",
		"blob/probe_race.go race":             "race, before it returns",
		"blob/s3blob/write.go deleteEach":     "deleteEach, before it returns",
		"client/delta.go uploadDelta":         "uploadDelta, before it returns",
		"client/deltacommit.go commit":        "uploadDelta, before it returns",
		"client/deltasend.go send":            "uploadDelta, before it returns",
		"client/log.go sendLogs":              "logs, before it returns",
		"client/push.go upload":               "upload, before it returns",
		"client/upload.go dump":               "narDump.stop, which put always calls",
		"cmd/celler/watch.go Run":             "Run, before it returns",
		"gc/copies.go compare":                "compare, before it returns",
		"httpapi/narbody.go startBody":        "narBody.close, which the handler always calls",
		"index/bootstrap.go fetchTables":      "fetchTables, before it returns",
		"internal/agent/lane.go start":        "Agent.Run, before it returns",
		"internal/agent/protect.go protect":   "Agent.Run, before it returns",
		"internal/agent/socket.go serve":      "Agent.Run, before it returns",
		"internal/node/peer.go run":           "run, before it returns",
		"internal/node/serve.go Run":          "Run, before it returns",
		"internal/recovery/survey.go each":    "each, before it returns",
		"internal/storewatch/watch.go listen": "Run, before it returns",
		"internal/ui/progress.go Progress":    "Progress.Close",
		"nix/nar/dump.go tree":                "tree, before it returns",
		"wal/env.go withDefaults":             "Log.Close, for all that wal spawns",
	}
}
