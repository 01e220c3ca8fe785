// SPDX-License-Identifier: Apache-2.0

//go:build !sabotage

package heartbeat

// The rules of this package hold in every build but that with the tag sabotage,
// in which one of them can be switched off, see sabotage.go.
func sabotagedArrival() bool { return false }
func sabotagedSight() bool   { return false }
func sabotagedProof() bool   { return false }
func sabotagedMemory() bool  { return false }
