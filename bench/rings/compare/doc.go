// Command compare puts our ring beside giouring, go-uring and blocking system
// calls: one operation at a time, by one thread, in turns. It is a module of its
// own, for the libraries; giouring is behind the build tag giouring, as it links
// only with -ldflags=-checklinkname=0.
//
//	make rings
//
// System calls are counted where they are made: each ring's enters, each blocking
// call. What the Go runtime calls meanwhile is not among them; it shows as
// switches between threads.
package main
