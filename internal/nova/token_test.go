// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// jwt is a token with these claims, which nobody has signed.
func jwt(claims string) string {
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"none"}`)) + "." + encode([]byte(claims)) + "." + encode([]byte("signature"))
}

func TestWhatATokenSaysIsAHint(t *testing.T) {
	at := time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		secret string
		want   claims
	}{
		"a service account's":            {jwt(fmt.Sprintf(`{"sub":"system:serviceaccount:team-a:ana","exp":%d,"kubernetes.io":{"namespace":"team-a"}}`, at.Unix())), claims{subject: "system:serviceaccount:team-a:ana", namespace: "team-a", expires: at}},
		"one that is kept in a Secret":   {jwt(`{"kubernetes.io/serviceaccount/namespace":"team-a"}`), claims{namespace: "team-a"}},
		"a namespace that cannot be":     {jwt(`{"kubernetes.io":{"namespace":"../kube-system"}}`), claims{}},
		"an end that cannot be written":  {jwt(`{"exp":1e300}`), claims{}},
		"a claim of another type":        {jwt(`{"exp":"soon"}`), claims{}},
		"no JWT":                         {"admin:proj1", claims{}},
		"two dots and nothing else":      {"..", claims{}},
		"claims that are no JSON":        {jwt(`{`), claims{}},
		"claims that are no base64":      {"a.$.c", claims{}},
		"a user's, without a namespace":  {jwt(`{"sub":"ana"}`), claims{subject: "ana"}},
		"a namespace of the wrong shape": {jwt(`{"kubernetes.io":{"namespace":"Team A"}}`), claims{}},
	} {
		if got := (token{c.secret}).claims(); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestATokenIsOneWord(t *testing.T) {
	for name, c := range map[string]struct {
		values []string
		ok     bool
	}{
		"one":             {[]string{"abc.def-ghi"}, true},
		"with a colon":    {[]string{"admin:proj1"}, true},
		"none":            {nil, false},
		"empty":           {[]string{""}, false},
		"two":             {[]string{"a", "b"}, false},
		"a space":         {[]string{"a b"}, false},
		"a line feed":     {[]string{"a\nImpersonate-User: b"}, false},
		"not ASCII":       {[]string{"ä"}, false},
		"too long":        {[]string{strings.Repeat("a", maxToken+1)}, false},
		"as long as ever": {[]string{strings.Repeat("a", maxToken)}, true},
	} {
		header := http.Header{}
		for _, value := range c.values {
			header.Add(headerToken, value)
		}
		if _, ok := tokenOf(header, headerToken); ok != c.ok {
			t.Errorf("%s: %t", name, ok)
		}
	}
}
