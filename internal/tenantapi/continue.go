// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// tokens seals the tokens with which lists are continued. The custom resource's have the
// resourceVersion of the list in them, in clear. All replicas have one key, so that each
// can open what another has sealed.
type tokens struct{ seals cipher.AEAD }

// newTokens makes the key for tokens from that of the host ids.
func newTokens(hostIDKey []byte) *tokens {
	mac := hmac.New(sha256.New, hostIDKey)
	mac.Write([]byte("continue tokens"))
	block, err := aes.NewCipher(mac.Sum(nil))
	if err != nil {
		panic(err) // The key has the length that it has to have.
	}
	seals, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return &tokens{seals}
}

// versionBytes is the length of the resourceVersion in a token.
const versionBytes = 8

// seal returns the caller's token for the custom resource's token of a list. told is the
// resourceVersion that the caller got for the list, 0 if none yet.
func (t *tokens) seal(next string, told uint64) string {
	if next == "" {
		return ""
	}
	open := append(binary.BigEndian.AppendUint64(nil, told), next...)
	return base64.RawURLEncoding.EncodeToString(t.seals.Seal(nil, nil, open, nil))
}

// open returns what seal was given.
func (t *tokens) open(token string) (next string, told uint64, err error) {
	if token == "" {
		return "", 0, nil
	}
	sealed, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(sealed) < t.seals.Overhead()+versionBytes {
		return "", 0, apierrors.NewBadRequest("continue: this is no token that a list of servers was answered with; list from the beginning")
	}
	open, err := t.seals.Open(nil, nil, sealed, nil)
	if err != nil {
		// It is of the release before, or of a key that has changed since.
		return "", 0, apierrors.NewResourceExpired("continue: this token cannot be continued from any more; list from the beginning")
	}
	return string(open[versionBytes:]), binary.BigEndian.Uint64(open), nil
}

// sealError seals the token in an error: a list that has expired can be continued from
// the present.
func (t *tokens) sealError(err error) error {
	var status *apierrors.StatusError
	if errors.As(err, &status) {
		status.ErrStatus.Continue = t.seal(status.ErrStatus.Continue, 0)
	}
	return err
}
