// SPDX-License-Identifier: Apache-2.0

//go:build !race

// Package racedetector tells tests whether the race detector is on, with which memory
// and times are several times what they are otherwise.
package racedetector

// On says whether this was built with the race detector.
const On = false
