// SPDX-License-Identifier: Apache-2.0

//go:build sabotage

package heartbeat

import "os"

// sabotage names a rule that is switched off, to show that test/chaos notices
// it. No binary that is shipped has this file in it.
var sabotage = os.Getenv("HOSTSTATUS_SABOTAGE")

// sabotagedArrival: a heartbeat counts from the moment that the host's clock
// gives, not from its arrival.
func sabotagedArrival() bool { return sabotage == "arrival" }

// sabotagedSight: time in which we saw nothing counts like any other.
func sabotagedSight() bool { return sabotage == "sight" }

// sabotagedProof: a deadline that passes is a verdict, without an echo.
func sabotagedProof() bool { return sabotage == "proof" }

// sabotagedMemory: a new process does not know what was said before it.
func sabotagedMemory() bool { return sabotage == "memory" }
