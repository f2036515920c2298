// Package plain is the yardstick: the server that a good Go programmer would
// write in an afternoon with the standard library, and no broker at all. It
// answers Produce of the public Kafka wire: one goroutine per connection reads
// with package net, checks the batch's CRC and appends it to one file; one
// goroutine calls fdatasync for all that came since its last call, then
// answers. Offsets are counted in memory; there is no index, no recovery, no
// reading back, no validation beyond length, magic and CRC. So it does less
// than a broker must. A broker that is slower pays too much for the rest.
//
// In mode nosync it answers as soon as the file has been written.
package plain
