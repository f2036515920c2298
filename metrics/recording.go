//go:build !norecord

package metrics

// Recording says that requests are timed and recorded. Built with the tag
// norecord nothing is: it is what the recorder's cost is measured against.
const Recording = true
