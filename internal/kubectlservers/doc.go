// SPDX-License-Identifier: Apache-2.0

// Package kubectlservers is the kubectl plugin kubectl-servers, with which owners of servers
// see what the status of a host means for them, and answer to maintenance. It has the rights
// of its user and no others. sentences.go, maintenance.go and decide.go decide, as functions
// of what was read and the time; the rest calls the API server and prints.
package kubectlservers
