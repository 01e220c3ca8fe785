// SPDX-License-Identifier: Apache-2.0

// Package kubectlplugin has what the kubectl plugins share: how they are run and complain,
// which exit codes they end with, how they print and how they reach the API server. What a
// plugin does is in a package of its own: kubectlhosts and kubectlservers.
package kubectlplugin
