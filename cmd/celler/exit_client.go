package main

// explainClient explains what package client returns.
func explainClient(error) (verdict, bool) { return verdict{}, false }
