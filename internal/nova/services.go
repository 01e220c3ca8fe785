// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"encoding/binary"
	"hash/fnv"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
)

const (
	binaryCompute = "nova-compute"
	// zone stands for the availability zone, which is not known here.
	zone = "nova"

	policyServices = "os_compute_api:os-services:"
)

// service is what is read of a ComputeService, with the words of the compute API.
type service struct{ computev1alpha1.ComputeService }

// disabled reports whether the host takes no servers, and why; "" if nobody has written that.
func (s *service) disabled() (disabled bool, reason string) {
	switch {
	case isTrue(s.Spec.Disabled):
		return true, text(s.Spec.DisabledReason)
	case meta.IsStatusConditionTrue(s.Status.Conditions, computev1alpha1.ConditionWindowOpen):
		if window := s.Spec.MaintenanceWindow; window != nil {
			return true, text(window.Reason)
		}
		return true, ""
	}
	return false, ""
}

func (s *service) forcedDown() bool { return isTrue(s.Spec.ForcedDown) }

// up reports whether the host reports and is not declared to be off. One that is new counts
// as up, until its silence is proven.
func (s *service) up() bool { return !s.forcedDown() && s.reports() }

func (s *service) reports() bool {
	reporting := meta.FindStatusCondition(s.Status.Conditions, computev1alpha1.ConditionReporting)
	return reporting == nil || reporting.Status == metav1.ConditionTrue ||
		reporting.Status == metav1.ConditionUnknown && reporting.Reason == string(computev1alpha1.ReasonWaitingForHeartbeat)
}

func isTrue(b *bool) bool { return b != nil && *b }

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func (s *service) status() string {
	if disabled, _ := s.disabled(); disabled {
		return "disabled"
	}
	return "enabled"
}

func (s *service) state() string {
	if s.up() {
		return "up"
	}
	return "down"
}

// number is the id of a service as long as those were numbers.
func (s *service) number() int64 { return numberOf(string(s.UID)) }

// numberOf makes a number of an id: always the same, of 15 digits, as columns of equal width
// need it, and exact also for clients that take numbers for floating-point ones.
func numberOf(id string) int64 {
	const bits = 48
	hash := fnv.New64a()
	_, _ = hash.Write([]byte(id))
	return int64(binary.BigEndian.Uint64(hash.Sum(nil))>>(64-bits) | 1<<(bits-1))
}

// id appends the id as version v has it.
func (s *service) id(e *encoder, v microversion) {
	if v >= withServiceUUIDs {
		e.text("id", string(s.UID))
		return
	}
	e.number("id", s.number())
}

// encode appends the service for key. seen is when it reported last, zero if that is not
// known.
func (s *service) encode(e *encoder, key string, v microversion, seen time.Time) {
	e.begin(key, '{')
	s.id(e, v)
	e.text("binary", binaryCompute)
	e.text("host", s.Name)
	e.text("zone", zone)
	e.text("status", s.status())
	e.text("state", s.state())
	if seen.IsZero() {
		e.null("updated_at")
	} else {
		e.text("updated_at", seen.UTC().Format("2006-01-02T15:04:05.000000"))
	}
	_, reason := s.disabled()
	e.textOrNull("disabled_reason", reason)
	if v >= withForcedDown {
		e.boolean("forced_down", s.forcedDown())
	}
	e.end('}')
}

// lastSeen is when a host that is silent reported last. While it reports this is not kept up
// to date, so it is not known.
func (s *service) lastSeen() time.Time {
	if s.reports() || s.Status.LastSeenUpTime == nil {
		return time.Time{}
	}
	return s.Status.LastSeenUpTime.Time
}

// listServices serves GET /os-services.
func (c *call) listServices() (*answer, error) {
	host, onlyOne, nothing := "", false, false
	for _, name := range sortedKeys(c.query) {
		// Of several values the last counts, as in Nova.
		switch p := (parameter{name, c.query[name]}); {
		case name == "host":
			host, onlyOne = p.last(), true
		case name == "binary":
			nothing = p.last() != binaryCompute
		case c.version >= withStrictQueries:
			return nil, badRequest("Additional properties are not allowed ('%s' was unexpected)", name)
		}
	}
	e := &encoder{}
	e.begin("", '{')
	e.begin("services", '[')
	query := url.Values{}
	if onlyOne {
		nothing = nothing || len(validation.IsDNS1123Subdomain(host)) > 0
		query.Set("fieldSelector", "metadata.name="+host)
	}
	var err error
	if nothing {
		err = c.probe(computeServices())
	} else {
		err = walk(c.ctx, c.kube, c.token, target{path: computeServices(), query: query}, c.passWarnings, func(s *service) error {
			seen := s.lastSeen()
			if onlyOne {
				seen = c.renewed(s)
			}
			s.encode(e, "", c.version, seen)
			return nil
		})
	}
	if err != nil {
		return nil, c.denial(err, policyServices+"list")
	}
	e.end(']')
	e.end('}')
	return ok(e.b), nil
}

// renewed returns when the host of one service reported last: its Lease says so exactly, if
// the caller may read that.
func (c *call) renewed(s *service) time.Time {
	key := s.HeartbeatLease()
	var lease struct {
		Spec struct {
			RenewTime *metav1.MicroTime `json:"renewTime"`
		} `json:"spec"`
	}
	if _, err := c.kube.read(c.ctx, c.token, target{path: append(leases(key.Namespace), key.Name)}, &lease); err != nil || lease.Spec.RenewTime == nil {
		return s.lastSeen()
	}
	return lease.Spec.RenewTime.Time
}

// findService returns the service with an id, nil if there is none.
func (c *call) findService(id string) (*service, error) {
	var found *service
	err := walk(c.ctx, c.kube, c.token, target{path: computeServices()}, nil, func(s *service) error {
		if string(s.UID) == id {
			found = s
			return errEnough
		}
		return nil
	})
	return found, err
}

// getService returns the service of a host, nil if there is none.
func (c *call) getService(host string) (*service, error) {
	if len(validation.IsDNS1123Subdomain(host)) > 0 {
		return nil, nil
	}
	s := &service{}
	_, err := c.kube.read(c.ctx, c.token, target{path: append(computeServices(), host)}, s)
	if refused(err, http.StatusNotFound) {
		return nil, nil
	}
	return s, err
}

// hasID reports whether id is that of the service in version v.
func (s *service) hasID(id string, v microversion) bool {
	if v >= withServiceUUIDs {
		return string(s.UID) == strings.ToLower(id)
	}
	return strconv.FormatInt(s.number(), 10) == id
}
