//go:build !linux

package fileblob_test

import "errors"

var errNoMount = errors.New("mounting is not allowed")

func smallChild(string) error { return errNoMount }
