# Tailbound. `make run` serves, `make test` proves, `make help` lists the rest; see README.md.
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
SEED    ?= 1
export CGO_ENABLED ?= 0

.PHONY: FORCE help lint measure rings blocks clocks isolation peer-kafka rebalance starts peer-jetstream peer-plain peer-broker headline knees build run test test-rooms test-clients test-long test-fast interop compatibility keys schemas sim hashes bench bench-shapes bench-recorder sweeps sweep-inflight sweep-direct sweep-spin sweep-receive fuzz release clean

BUILD    = $(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)"

build: ## bin/tailbound, a static binary
	$(BUILD) -o bin/tailbound ./cmd/tailbound

help: ## this list
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / { printf "%-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: build ## serve from ./data
	./bin/tailbound serve --data-dir ./data --listen 127.0.0.1:9092

# The two halves wait for disks and time-outs more than they compute. Neither measures.
test: lint build ## the whole test suite
	$(MAKE) --no-print-directory --output-sync=target -j2 test-rooms test-clients

test-rooms: # one half: every room, mutated bytes, and clients of a broker whose ring is Linux 5.19's
	$(MAKE) --no-print-directory test-fast fuzz
	$(INTEROP) TAILBOUND_RING_FEATURES=5.19 $(GO) test -count=1 -short -timeout 15m ./...

test-clients: # the other: clients of a broker with all that the kernel has
	$(INTEROP) $(GO) test -count=1 -timeout 20m ./...

# TAILBOUND_TESTS=long: all seeds and rounds, and planted bugs are searched for.
test-long: lint build ## the suite with long bounds and both rings in full, before a release; about an hour
	$(MAKE) hashes
	TAILBOUND_TESTS=long $(GO) test -count=1 -timeout 2h ./...
	TAILBOUND_TESTS=long TAILBOUND_RING_FEATURES=5.19 $(GO) test -count=1 ./ioring ./netring ./shard
	$(MAKE) fuzz FUZZ=20
	$(INTEROP) TAILBOUND_TESTS=long $(GO) test -count=1 -timeout 2h ./...
	$(INTEROP) TAILBOUND_TESTS=long TAILBOUND_RING_FEATURES=5.19 $(GO) test -count=1 -timeout 2h ./...

# staticcheck is a tool of the nested module tools, so that the product's module graph stays without it.
STATICCHECK = $(GO) tool -modfile=$(CURDIR)/tools/go.mod staticcheck
NESTED      = tools bench/peers bench/clocks bench/rings/compare
INTEROP     = cd interop && CGO_ENABLED=1
lint: ## gofmt, go vet, staticcheck, and the rules of docs/ARCHITECTURE.md: what a room may import and call
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "gofmt these:"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...
	$(STATICCHECK) ./...
	@set -e; for d in $(NESTED); do (cd $$d && $(GO) vet ./... && $(STATICCHECK) ./...); done
	$(INTEROP) $(GO) vet ./...
	$(GO) test ./docs

test-fast: ## every room, then the kernel's rings again as Linux 5.19 has them
	$(GO) test ./...
	TAILBOUND_RING_FEATURES=5.19 $(GO) test -count=1 ./ioring ./netring ./shard
	@set -e; for d in bench/peers bench/clocks bench/rings/compare; do (cd $$d && $(GO) test ./...); done

measure: ## figures about the source: the largest types, files and functions, names of one letter, comments, lines of each room
	cd tools && $(GO) run ./measure ..

# FUZZ=1: a few seconds for all; FUZZ=1000 is worth an hour.
FUZZ ?= 1
fuzz: ## mutated inputs, a bounded number for each fuzz target
	@set -e; for t in kafka/FuzzRequest/10000 kafka/FuzzBatch/10000 kafka/FuzzPieces/10000 kafka/FuzzAnswers/10000 cluster/FuzzApply/2000 netring/FuzzFrames/200 engine/FuzzRecover/200 \
		cmd/tailbound/settings/FuzzConfig/1000 cmd/tailbound/settings/FuzzWords/2000 cmd/tailbound/client/FuzzWords/2000 cmd/tailbound/client/FuzzRecordJSON/5000 cmd/tailbound/term/FuzzSize/2000; do \
		r=$${t%/*}; out=$$($(GO) test -run '^$$' -fuzz "^$${r##*/}$$" -fuzztime $$(( $(FUZZ) * $${t##*/} ))x ./$${r%/*} 2>&1) || { echo "$$out"; exit 1; }; \
		echo "$$out" | tail -1; done

interop: build ## real clients over real sockets, and kill -9; librdkafka needs cgo
	$(INTEROP) $(GO) test -count=1 -timeout 20m ./...
	$(INTEROP) TAILBOUND_RING_FEATURES=5.19 $(GO) test -count=1 -short -timeout 15m ./...

compatibility: build ## writes docs/COMPATIBILITY.md from what clients did
	cd interop && CGO_ENABLED=1 TAILBOUND_COMPATIBILITY=write $(GO) test -count=1 -run TestCompatibility ./...

keys: build ## writes docs/KEYS.md: every key and version of the newest Kafka, each served or absent
	cd interop && CGO_ENABLED=1 TAILBOUND_COMPATIBILITY=write $(GO) test -count=1 -run 'TestKeys$$' .

schemas: ## writes the table of what the newest Kafka's classes demand of each response, from its jar
	cd interop && CGO_ENABLED=1 TAILBOUND_SCHEMAS=write $(GO) test -count=1 -run TestSchemas .

sim: ## one simulated life: make sim SEED=n
	$(GO) run ./cmd/sim -seed $(SEED)

hashes: ## compares the traces of 400 seeds of each workload with those committed: behaviour is unchanged
	$(GO) run ./cmd/sim -k -j 2 -seeds $(or $(SEEDS),400) -hashes sim/lives/testdata/hashes

# Each choice beside its neighbours, as more systems of one run: docs/decisions/0015-tuning.md.
SWEEP = $(GO) run ./bench versus --seconds 3 --warmup 1 --rounds $(or $(ROUNDS),3)
sweeps: sweep-inflight sweep-direct sweep-spin sweep-receive ## the effect of the tuning settings on this machine
sweep-inflight: build
	$(SWEEP) --rates 200,sat --systems "tailbound,tailbound:--journal-inflight-max=1,tailbound:--journal-inflight-max=4"
sweep-direct: build
	for n in 1 16 64; do $(SWEEP) --partitions $$n --rates 200,sat --systems "tailbound,tailbound:--direct-bytes=0,tailbound:--direct-bytes=256KiB" || exit 1; done
sweep-spin: build
	$(SWEEP) --rates 50 --small --small-rates 20000 --systems "tailbound,tailbound:--spin=0s,tailbound:--spin=100us"
sweep-receive: build
	$(SWEEP) --rates 200,sat --systems "tailbound,tailbound:--receive-buffer=16KiB,tailbound:--receive-buffer=256KiB"

bench: build ## Tailbound, a plain Go server and a bare ring in one run; go run ./bench versus --help
	$(GO) run ./bench versus $(BENCH)

# bench/peers is a module of its own: what the product is measured beside.
bin/peers: FORCE
	cd bench/peers && $(GO) build -trimpath -o ../../bin/peers .
FORCE:

# One target for each peer: it and Tailbound, in turn, the same load, one core each. BENCH='--rounds 5' adds arguments.
PEER = $(GO) run ./bench versus
peer-kafka: build bin/peers ## Apache Kafka flushing every message, by default, and on all cores
	./bin/peers jars
	$(PEER) --systems tailbound,kafka-flush,kafka,kafka-flush-wide,kafka-wide $(BENCH)
peer-jetstream: build bin/peers ## NATS JetStream syncing always, and by default
	$(PEER) --systems tailbound,jetstream-sync,jetstream $(BENCH)
peer-plain: build ## a plain Go server on net.Conn, with and without syncing
	$(PEER) --systems tailbound,plain,plain-nosync $(BENCH)
rebalance: build bin/peers ## a member of a group of 50 crashes, in both protocols; compared with Apache Kafka on all cores
	./bin/peers jars
	$(GO) run ./bench rebalance $(BENCH)
starts: build ## a start after kill -9 with 100 to 10,000 partitions, compared with one after a clean stop: time, and peak memory against --print-memory
	$(GO) run ./bench starts $(BENCH)
peer-broker: build ## any broker: make peer-broker ADDR=host:9092
	$(PEER) --systems tailbound,broker@$(ADDR) $(BENCH)

rings: ## our ring, giouring, go-uring and blocking calls: NOP, writes, write + fdatasync, echo
	cd bench/rings/compare && $(GO) run -tags giouring -ldflags=-checklinkname=0 . --dir ../../../tmp $(BENCH)
blocks: ## the cost of writing to a block for the first time, on this file system and on the disk below
	mkdir -p tmp && $(GO) run ./bench blocks --dir tmp $(BENCH)
clocks: ## gotsc, our RDTSC, RDTSCP, clock_gettime, time.Now: cost, drift over a minute, across cores
	cd bench/clocks && $(GO) run . $(BENCH)

isolation: ## the same load undisturbed, beside an allocating goroutine, a large heap, a CPU hog; compared with the plain server
	$(GO) build -trimpath -tags disturb -o bin/tailbound-disturb ./cmd/tailbound
	$(PEER) --binary bin/tailbound-disturb --systems tailbound,plain --rates 100 --disturb alloc,heap,hog --rounds 3 $(BENCH)

headline: build bin/peers ## measures the table of docs/BENCHMARKS.md; about an hour
	./bin/peers jars
	$(PEER) --systems tailbound,plain,kafka-flush,jetstream-sync,kafka,jetstream --rates 50,200,400,sat --rounds 3 --into docs/BENCHMARKS.md $(BENCH)
knees: build bin/peers ## the highest durable rate with p99 below 2 ms of each system
	./bin/peers jars
	$(PEER) --systems tailbound,plain,kafka-flush,jetstream-sync,kafka,jetstream --rates 20 --knee 2ms $(BENCH)

bench-shapes: build ## many partitions, single small records, batches of 4 kB; compared with a plain server and the bare ring
	$(PEER) --systems tailbound,probe,probe-new,plain --partitions 64 --small $(BENCH)
	$(PEER) --systems tailbound,probe,probe-new,plain --records 4 --rates 5,20,sat $(BENCH)

bench-recorder: build ## the cost of recording: the broker compared with a build without it; RECORDER adds flags
	$(BUILD) -tags norecord -o bin/tailbound-norecord ./cmd/tailbound
	$(PEER) --systems tailbound,tailbound@bin/tailbound-norecord --small --rounds 5 $(RECORDER)

bench-%: build ## a scenario on a broker of its own: make bench-voice, or with phases in turn make bench-fan-out BENCH='--rounds 3'; bin/tailbound bench run lists them
	./bin/tailbound bench run $* --serve $(BENCH)

# The same commit gives the same bytes: times, owners and order are fixed.
STAMP     = $(shell git log -1 --format=%ct)
RELEASED  = bin/release/tailbound_$(VERSION)_linux_

release: build ## bin/release: static tarballs for amd64 and arm64, with unit, example configuration, completions, bill of materials (CycloneDX), checksums
	rm -rf bin/release && mkdir -p bin/release
	for arch in amd64 arm64; do \
		d=$(RELEASED)$$arch && mkdir -p $$d/completion && \
		GOOS=linux GOARCH=$$arch $(BUILD) -o $$d/tailbound ./cmd/tailbound && \
		cp README.md cmd/tailbound/packaging/tailbound.service $$d/ && \
		./bin/tailbound version --sbom $$d/tailbound > $$d/tailbound.cdx.json && \
		./bin/tailbound config example > $$d/tailbound.yaml && \
		for sh in bash zsh fish powershell; do ./bin/tailbound completion $$sh > $$d/completion/tailbound.$$sh || exit 1; done && \
		tar --sort=name --mtime=@$(STAMP) --owner=0 --group=0 --numeric-owner --mode=u+rw,go+r,go-w -C bin/release -cf - tailbound_$(VERSION)_linux_$$arch | gzip -9n > $$d.tar.gz && \
		rm -rf $$d || exit 1; \
	done
	cd bin/release && sha256sum *.tar.gz > SHA256SUMS && cat SHA256SUMS

clean:
	rm -rf bin
