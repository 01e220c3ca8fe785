// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"net/http"
	"testing"
)

func TestTheMicroversionIsNegotiated(t *testing.T) {
	for _, c := range []struct {
		name    string
		header  http.Header
		want    microversion
		echo    string
		code    int
		message string
	}{
		{name: "none asked for", want: 1, echo: "2.1"},
		{name: "the header for all services", header: versions("compute 2.16", ""), want: 16, echo: "2.16"},
		{name: "the header of this service", header: versions("", "2.16"), want: 16, echo: "2.16"},
		{name: "both, which differ", header: versions("compute 2.10", "2.16"), want: 10, echo: "2.10"},
		{name: "one of several services", header: versions("volume 3.10, compute 2.16", ""), want: 16, echo: "2.16"},
		{name: "twice, of which the last counts", header: versions("compute 2.10, compute 2.16", ""), want: 16, echo: "2.16"},
		{name: "twice in headers of their own", header: http.Header{"Openstack-Api-Version": {"compute 2.10", "compute 2.16, volume 3.10"}}, want: 16, echo: "2.16"},
		{name: "twice in its own headers", header: http.Header{"X-Openstack-Nova-Api-Version": {"2.10", "2.4, 2.16"}}, want: 16, echo: "2.16"},
		{name: "only another service", header: versions("volume 3.10", ""), want: 1, echo: "2.1"},
		{name: "another service, and the header of this one", header: versions("volume 3.10", "2.4"), want: 4, echo: "2.4"},
		{name: "in capitals", header: versions("COMPUTE 2.16", ""), want: 16, echo: "2.16"},
		{name: "the latest", header: versions("compute latest", ""), want: 93, echo: "2.93"},
		{name: "the latest, by its own header", header: versions("", "Latest"), want: 93, echo: "2.93"},
		{name: "the newest", header: versions("compute 2.93", ""), want: 93, echo: "2.93"},
		{name: "too new", header: versions("compute 2.94", ""), echo: "2.94", code: 406, message: "Version 2.94 is not supported by the API. Minimum is 2.1 and maximum is 2.93."},
		{name: "too old", header: versions("compute 2.0", ""), echo: "2.0", code: 406, message: "Version 2.0 is not supported by the API. Minimum is 2.1 and maximum is 2.93."},
		{name: "another API", header: versions("compute 3.1", ""), echo: "3.1", code: 406, message: "Version 3.1 is not supported by the API. Minimum is 2.1 and maximum is 2.93."},
		{name: "no number", header: versions("compute 2.x", ""), code: 400, message: "API Version String 2.x is of invalid format. Must be of format MajorNum.MinorNum."},
		{name: "a leading zero", header: versions("compute 2.01", ""), code: 400, message: "API Version String 2.01 is of invalid format. Must be of format MajorNum.MinorNum."},
		{name: "empty", header: http.Header{"X-Openstack-Nova-Api-Version": {""}}, code: 400, message: "API Version String  is of invalid format. Must be of format MajorNum.MinorNum."},
		{name: "no version of the service", header: versions("compute", ""), code: 400, message: "API Version String  is of invalid format. Must be of format MajorNum.MinorNum."},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, echo, err := negotiate(c.header)
			code, message := 0, ""
			if err != nil {
				code, message = asFault(err).code, asFault(err).message
			}
			if got != c.want || echo != c.echo || code != c.code || message != c.message {
				t.Errorf("got %d, %q, %d %q; want %d, %q, %d %q", got, echo, code, message, c.want, c.echo, c.code, c.message)
			}
		})
	}
}

// versions are the headers that clients send.
func versions(all, own string) http.Header {
	h := http.Header{}
	if all != "" {
		h.Set(headerVersion, all)
	}
	if own != "" {
		h.Set(headerLegacyVersion, own)
	}
	return h
}
