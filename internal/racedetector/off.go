// SPDX-License-Identifier: Apache-2.0

//go:build !race

// Package racedetector reports to tests whether the race detector is on, which multiplies
// the memory and the time that they take.
package racedetector

// On reports whether this was built with the race detector.
const On = false
