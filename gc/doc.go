// Package gc decides which paths and chunks are dead under pins and retention, explains why, and removes them in that order.
package gc
