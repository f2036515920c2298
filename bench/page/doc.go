// Package page makes one HTML file of recordings: percentile curves, latency
// over time, hiccups, what stages took. The file needs nothing but itself: no
// network, no font, no library. It knows recordings (package record), but not what
// made them and, except for its stages' names, not the product.
package page
