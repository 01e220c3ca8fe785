// SPDX-License-Identifier: Apache-2.0

// Package kubectlhosts is the kubectl plugin kubectl-hosts, with which operators of
// hosts read and set host status. report.go, change.go and schedule.go decide, as
// functions of what was read and the time; the rest calls the API server and prints.
package kubectlhosts
