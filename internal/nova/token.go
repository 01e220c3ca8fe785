// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
)

const (
	headerToken        = "X-Auth-Token"
	headerSubjectToken = "X-Subject-Token"
	// maxToken is how long a token may be. A service account's has about a thousand bytes.
	maxToken = 16 << 10
)

// token is a bearer token. It has no String method and no exported fields, so that no log
// and no error prints it.
type token struct{ secret string }

// tokenOf returns the token of a request. ok is false if there is none, more than one, or
// one that cannot be sent on.
func tokenOf(header http.Header, name string) (t token, ok bool) {
	values := header.Values(name)
	if len(values) != 1 || !sendable(values[0]) {
		return token{}, false
	}
	return token{values[0]}, true
}

// sendable reports whether a token can stand in an Authorization header, as one word.
func sendable(secret string) bool {
	if secret == "" || len(secret) > maxToken {
		return false
	}
	return strings.IndexFunc(secret, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}

// hash identifies the caller in what is counted for each of them.
func (t token) hash() [sha256.Size]byte { return sha256.Sum256([]byte(t.secret)) }

// claims are what a token says about itself. Nobody has checked it, so it is a hint: it
// fills in the project that a request does not name, and what the identity API repeats.
// Whether it is true kube-apiserver decides, whenever it is asked with the token.
type claims struct {
	subject   string
	namespace string
	expires   time.Time
	issued    time.Time
}

// claims reads the token if it is a JWT.
func (t token) claims() claims {
	parts := strings.Split(t.secret, ".")
	if len(parts) != 3 {
		return claims{}
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return claims{}
	}
	var content struct {
		Subject    string  `json:"sub"`
		Expires    float64 `json:"exp"`
		Issued     float64 `json:"iat"`
		Kubernetes struct {
			Namespace string `json:"namespace"`
		} `json:"kubernetes.io"`
		// Namespace is that of tokens which are kept in a Secret.
		Namespace string `json:"kubernetes.io/serviceaccount/namespace"`
	}
	if err := json.Unmarshal(payload, &content); err != nil {
		return claims{}
	}
	c := claims{subject: content.Subject, namespace: content.Kubernetes.Namespace, expires: unix(content.Expires), issued: unix(content.Issued)}
	if c.namespace == "" {
		c.namespace = content.Namespace
	}
	if !isProject(c.namespace) {
		c.namespace = ""
	}
	return c
}

// unix returns the time of a claim, zero if it has none, or none that can be written.
func unix(seconds float64) time.Time {
	const yearTenThousand = 253402300800
	if !(seconds > 0 && seconds < yearTenThousand) { // Also if it is no number.
		return time.Time{}
	}
	return time.Unix(int64(seconds), 0).UTC()
}

// isProject reports whether a text can be the name of a namespace.
func isProject(text string) bool { return len(validation.IsDNS1123Label(text)) == 0 }
