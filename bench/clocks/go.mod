module tailbound/bench/clocks

go 1.26.0

require (
	github.com/dterei/gotsc v0.0.0-20160722215413-e78f872945c6
	golang.org/x/sys v0.49.0
	tailbound v0.0.0
)

require github.com/HdrHistogram/hdrhistogram-go v1.4.0 // indirect

replace tailbound => ../..
