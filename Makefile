# Tailbound. `make run` serves, `make test` proves; see README.md.
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
SEED    ?= 1
export CGO_ENABLED ?= 0

.PHONY: build run test test-fast interop sim bench fuzz vet clean

build: ## bin/tailbound, static
	$(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/tailbound ./cmd/tailbound

run: build ## serve from ./data
	./bin/tailbound serve --data-dir ./data --listen 127.0.0.1:9092

test: vet test-fast interop ## the whole suite

vet:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "gofmt these:"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...

test-fast: build ## every room, then the kernel's rings again as Linux 5.19 has them
	$(GO) test ./...
	TAILBOUND_RING_FEATURES=5.19 $(GO) test -count=1 ./ioring ./netring ./shard

interop: build ## real clients over real sockets, and kill -9; librdkafka wants cgo
	cd interop && CGO_ENABLED=1 $(GO) vet ./... && CGO_ENABLED=1 $(GO) test -count=1 -timeout 20m ./...
	cd interop && CGO_ENABLED=1 TAILBOUND_RING_FEATURES=5.19 $(GO) test -count=1 -short -timeout 10m ./...

sim: ## one simulated life: make sim SEED=n
	$(GO) run ./cmd/sim -seed $(SEED)

bench: build ## beside a plain Go server and a bare ring, in one run; go run ./bench -h
	$(GO) run ./bench

clean:
	rm -rf bin
