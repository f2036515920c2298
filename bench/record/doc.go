// Package record is what a measurement leaves behind: histograms, the log of
// its intervals, and a page about the machine. It knows how two of them are
// compared. It knows neither what measures nor what is measured.
//
// A recording is a directory:
//
//	run.json       what was asked for, of what, on which machine, and what came out
//	latency.hlog   every interval's histograms, in HdrHistogram's log format 1.3
//
// The log is read by HdrHistogram's own tools (HistogramLogAnalyzer,
// HistogramLogProcessor, hdr-plot). Each line has a tag, the series, such as
// produce or end-to-end. Values are nanoseconds; times are seconds since the
// recording's start, which the log has in its head.
//
// Invariants:
//
//   - Percentiles are of pooled histograms: counts are added, then asked. No
//     percentile is ever averaged.
//   - What is above a histogram's top is recorded there, and counted.
package record
