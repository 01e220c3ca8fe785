// SPDX-License-Identifier: Apache-2.0

package kubectlservers

import "testing"

func TestKrewInstallsAndRemovesThePlugin(t *testing.T) { env.KrewInstallsAndRemoves(t, "servers") }
