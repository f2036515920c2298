package main

import "tailbound/bench/record"

func notHeld(c record.Check) bool { return !c.Held }
