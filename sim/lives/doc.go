// Package lives runs the storage, and then the whole broker, through lives in
// the lying world of sim: opened, used at random, ended by a clean stop, a
// power cut or kill -9, opened again. It keeps a book of everything that was
// acknowledged or read and holds each new life against it. It knows engine
// and shard; product code never imports it.
//
// Invariants: one seed is one behaviour; every checker has a planted bug that
// it catches (see Run.Plant).
package lives
