// SPDX-License-Identifier: Apache-2.0

//go:build !race

package racedetector

// On says whether this was built with the race detector.
const On = false
