// SPDX-License-Identifier: Apache-2.0

// Package kubectlhosts is the kubectl plugin kubectl-hosts: what the people who
// look after hosts read, and what they say about a host. report.go and change.go
// decide, as functions of what was read and the time; the rest asks the API
// server and prints.
package kubectlhosts
