package main

//go:noescape
func rdtsc() uint64

//go:noescape
func rdtscp() uint64
