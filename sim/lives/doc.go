// Package lives runs the storage, the network layer and the whole broker through lives
// in the simulated world of sim. In a life the product is opened, used at random, and
// ended by a clean stop, a power cut or kill -9; the next life opens it again. Oracles
// record everything that was acknowledged or read and compare each life with it. The
// package knows the product's rooms; product code never imports it.
//
// Invariants: one seed is one behaviour; every checker catches a planted bug (see
// Run.Plant).
package lives
