// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
)

// hostIDKeyBytes is the length of the key: that of the hash's output, beyond which
// a longer key adds nothing.
const hostIDKeyBytes = sha256.Size

// hostID shows the owner of a namespace which of its servers share a host. Without the
// key nobody can compute one from a guessed host name; and since the namespace goes into
// it, two tenants on one host cannot find out by comparing. Lengths go first, so that no
// namespace and host can be confused with two others.
func hostID(key []byte, namespace, host string) string {
	if host == "" {
		return ""
	}
	mac := hmac.New(sha256.New, key)
	for _, part := range []string{namespace, host} {
		mac.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part)))) // both are at most 253 bytes long
		mac.Write([]byte(part))
	}
	return hex.EncodeToString(mac.Sum(nil))
}
