// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import "testing"

func TestKrewInstallsAndRemovesThePlugin(t *testing.T) { env.KrewInstallsAndRemoves(t, "hosts") }
