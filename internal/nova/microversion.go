// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// microversion is the second number of a version of the compute API, whose first is 2. The
// constants name what each version brought, as far as it matters here.
type microversion int

const (
	minVersion = microversion(1)
	maxVersion = microversion(93)

	withExtendedAttributes = microversion(3)
	withLocked             = microversion(9)
	withForcedDown         = microversion(11)
	withHostStatus         = microversion(16)
	withDescription        = microversion(19)
	withTags               = microversion(26)
	withCPUInfoObject      = microversion(28)
	withHypervisorPages    = microversion(33)
	withoutImages          = microversion(36)
	withStrictStatus       = microversion(38)
	withEmbeddedFlavor     = microversion(47)
	withServiceUUIDs       = microversion(53)
	withTrustedImages      = microversion(63)
	withServerGroups       = microversion(71)
	withLockedReason       = microversion(73)
	withStrictQueries      = microversion(75)
	withoutHypervisorSizes = microversion(88)
	withHostnameForAll     = microversion(90)
)

// String returns the version as it is written in headers.
func (v microversion) String() string { return "2." + strconv.Itoa(int(v)) }

const (
	headerVersion       = "OpenStack-API-Version"
	headerLegacyVersion = "X-OpenStack-Nova-API-Version"
	serviceCompute      = "compute"
	versionLatest       = "latest"
)

var versionPattern = regexp.MustCompile(`^([1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,4})$`)

// negotiate returns the microversion that the headers of a request ask for. echo is what
// the answer's headers name; it is empty if what was asked for has no form of a version.
func negotiate(header http.Header) (v microversion, echo string, err error) {
	asked, ok := askedVersion(header)
	switch {
	case !ok:
		return minVersion, minVersion.String(), nil
	case strings.EqualFold(asked, versionLatest):
		return maxVersion, maxVersion.String(), nil
	}
	parts := versionPattern.FindStringSubmatch(asked)
	if parts == nil {
		return 0, "", &fault{code: http.StatusBadRequest, message: fmt.Sprintf("API Version String %s is of invalid format. Must be of format MajorNum.MinorNum.", asked)}
	}
	minor, err := strconv.Atoi(parts[2])
	if err != nil || parts[1] != "2" || microversion(minor) < minVersion || microversion(minor) > maxVersion {
		return 0, asked, &fault{code: http.StatusNotAcceptable, message: fmt.Sprintf("Version %s is not supported by the API. Minimum is %s and maximum is %s.", asked, minVersion, maxVersion)}
	}
	return microversion(minor), asked, nil
}

// askedVersion returns what a request asks for. The header for all services comes before
// the one of this service alone. Of several values the last counts, as in Nova.
func askedVersion(header http.Header) (string, bool) {
	pairs := strings.Split(strings.Join(header.Values(headerVersion), ","), ",")
	for _, pair := range slices.Backward(pairs) {
		service, version, _ := strings.Cut(strings.TrimSpace(pair), " ")
		if strings.EqualFold(service, serviceCompute) {
			return strings.TrimSpace(version), true
		}
	}
	lines := header.Values(headerLegacyVersion)
	if len(lines) == 0 {
		return "", false
	}
	last := lines[len(lines)-1]
	return strings.TrimSpace(last[strings.LastIndexByte(last, ',')+1:]), true
}
