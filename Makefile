# Every target is one line; CONTRIBUTING.md says when to use which.
.PHONY: build test race fuzz lint lint-all fmt gen check deps e2e bench bench-storage soak

export CGO_ENABLED ?= 0

build: ; go build -trimpath -o bin/celler ./cmd/celler
test:  ; scripts/test
race:  ; CGO_ENABLED=1 go test -race -short ./...
fuzz:  ; scripts/fuzz
lint:  ; scripts/test lint
lint-all: bin/golangci-lint ; bin/golangci-lint run ./...
fmt:   bin/gofumpt ; find . -path ./.cache -prune -o -name '*.go' -print0 | xargs -0 bin/gofumpt -w
gen:   ; go test ./internal/repolint ./cmd/celler -count=1 -run 'TestDeps|TestReference' -update
check: test

deps:  ; scripts/deps
e2e:   deps build ; scripts/e2e
bench: deps build ; scripts/bench
bench-storage: deps build ; scripts/bench-storage
soak:  deps build ; scripts/soak

bin/gofumpt bin/staticcheck &: tools/go.mod tools/go.sum ; cd tools && go build -o ../bin/ tool && touch ../bin/gofumpt ../bin/staticcheck
bin/golangci-lint: tools/lint/go.mod tools/lint/go.sum ; cd tools/lint && go build -o ../../bin/ tool && touch ../../bin/golangci-lint
