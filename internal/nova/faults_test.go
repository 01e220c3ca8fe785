// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"errors"
	"testing"
)

func TestFaultsHaveTheBodiesThatClientsRead(t *testing.T) {
	for name, c := range map[string]struct {
		err         error
		body        string
		contentType string
	}{
		"bad request":   {badRequest("no %s", "way"), `{"badRequest":{"code":400,"message":"no way"}}`, contentTypeFault},
		"denied":        {denied("a:b"), `{"forbidden":{"code":403,"message":"Policy doesn't allow a:b to be performed."}}`, contentTypeFault},
		"not found":     {notFound("none"), `{"itemNotFound":{"code":404,"message":"none"}}`, contentTypeFault},
		"over a limit":  {overLimit("later"), `{"overLimit":{"code":429,"message":"later"}}`, contentTypeFault},
		"a version":     {&fault{code: 406, message: "no"}, `{"computeFault":{"code":406,"message":"no"}}`, contentTypeFault},
		"unrouted":      {unrouted(), `{"message":"The resource could not be found.\u003cbr /\u003e\u003cbr /\u003e\n\n\n","code":"404 Not Found","title":"Not Found"}`, contentTypeJSON},
		"too large":     {tooLarge(), `{"message":"The body is too large.","code":"413 Request Entity Too Large","title":"Request Entity Too Large"}`, contentTypeJSON},
		"unauthorized":  {unauthorized("http://h"), `{"error":{"code":401,"message":"The request you have made requires authentication.","title":"Unauthorized"}}`, contentTypeJSON},
		"another error": {errors.New("secret"), `{"serviceUnavailable":{"code":503,"message":"The servers cannot be read or changed just now; try again. The log of nova-api says why."}}`, contentTypeFault},
	} {
		t.Run(name, func(t *testing.T) {
			body, contentType := asFault(c.err).body()
			if string(body) != c.body || contentType != c.contentType {
				t.Errorf("got %s, %s\nwant %s, %s", body, contentType, c.body, c.contentType)
			}
		})
	}
	if got := unauthorized("http://h").header.Get("WWW-Authenticate"); got != `Keystone uri="http://h/identity"` {
		t.Errorf("WWW-Authenticate: %s", got)
	}
}
