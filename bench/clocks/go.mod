module github.com/tailbound/tailbound/bench/clocks

go 1.26.0

require (
	github.com/dterei/gotsc v0.0.0-20160722215413-e78f872945c6
	github.com/tailbound/tailbound v0.0.0
	golang.org/x/sys v0.49.0
)

require github.com/HdrHistogram/hdrhistogram-go v1.4.0 // indirect

replace github.com/tailbound/tailbound => ../..
