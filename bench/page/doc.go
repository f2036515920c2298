// Package page makes one HTML file of recordings: percentile curves, latency
// over time, hiccups, what stages took. The file needs nothing but itself: no
// network, no font, no library. It knows recordings (package record) and
// neither who made them nor, beyond its stages' names, the product.
package page
