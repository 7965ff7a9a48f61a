// Package catalog gives the log meaning: it turns operations on caches, paths and pins into effects, commits them, and answers reads from the index.
package catalog
