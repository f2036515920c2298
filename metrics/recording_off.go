//go:build norecord

package metrics

// Recording says that requests are timed and recorded: not in this build.
const Recording = false
