module github.com/tailbound/tailbound/bench/rings/compare

go 1.26.0

require (
	github.com/godzie44/go-uring v0.0.0-20220926161041-69611e8b13d5
	github.com/pawelgaczynski/giouring v0.0.0-20230826085535-69588b89acb9
	github.com/tailbound/tailbound v0.0.0
	golang.org/x/sys v0.49.0
)

require (
	github.com/HdrHistogram/hdrhistogram-go v1.4.0 // indirect
	github.com/libp2p/go-sockaddr v0.1.1 // indirect
)

replace github.com/tailbound/tailbound => ../../..
