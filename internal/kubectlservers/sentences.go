// SPDX-License-Identifier: Apache-2.0

package kubectlservers

import (
	"fmt"

	tenantv1alpha1 "hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
)

// FailOver is whether the server may be started elsewhere.
type FailOver string

// The values of FailOver.
const (
	FailOverYes FailOver = "Yes"
	FailOverNo  FailOver = "No"
	// FailOverNotNeeded: the host is alive, or out of service on purpose.
	FailOverNotNeeded FailOver = "NotNeeded"
	// FailOverCannotTell: the caller may not see enough.
	FailOverCannotTell FailOver = "CannotTell"
)

// sight is what the caller sees of a server's host.
type sight struct {
	namespace string
	grant     Grant
	fields    v1alpha1.HostFields
}

func sightOf(server *tenantv1alpha1.Server, grant Grant) sight {
	return sight{server.Namespace, grant, server.Status.HostFields}
}

// shown is true if the host fields are shown, and what is not there is not there. Whatever
// the API server answers about rights, what is shown is granted.
func (s sight) shown() bool {
	return s.grant == GrantAll || s.fields.HostStatus != nil || s.fields.HostStatusReason != ""
}

// lacks is why host status is not shown.
func (s sight) lacks() string {
	switch s.grant {
	case GrantWhileUnknown:
		return "you may see host status only while it is UNKNOWN, which it is not; to see more, " + asking(s.namespace)
	case GrantNotKnown:
		return "no host status is shown; either there is none yet, or " + lacksHostStatus(s.namespace)
	default:
		return lacksHostStatus(s.namespace)
	}
}

// asking is how to see all of host status.
func asking(namespace string) string {
	return fmt.Sprintf("ask for the ClusterRole %s %s", hostStatusRole, inNamespace(namespace))
}

// hostStatus is how show writes the status.
func (s sight) hostStatus() string {
	switch {
	case !s.shown():
		return "not shown"
	case s.fields.HostStatus == nil:
		return "not known yet"
	case *s.fields.HostStatus == v1alpha1.HostStatusNone:
		return "no host"
	default:
		return string(*s.fields.HostStatus)
	}
}

// meaning is what the status means for the owner, in a sentence or two.
func (s sight) meaning() string {
	if !s.shown() {
		return capital(s.lacks()) + "."
	}
	silent := s.fields.HostReporting == v1alpha1.HostReportingFalse
	switch s.fields.HostStatusReason {
	case v1alpha1.ReasonForcedDown:
		return "The host is off: a person or a fencing tool asserts it. Your server does not run there any more, whatever was reported of it last."
	case v1alpha1.ReasonDisabled:
		return "The host was taken out of service on purpose." + alsoSilent(silent)
	case v1alpha1.ReasonWindowOpen:
		return "The host is in maintenance: its window is open." + alsoSilent(silent)
	case v1alpha1.ReasonLeaseExpired:
		return "The host does not report. It may be off, or only cut off with your server still running: nobody knows. What is reported of your server is from before."
	case v1alpha1.ReasonNeverReported:
		return "The host has never reported, so nothing is known of it, and your server may be running. The platform team has to check the host."
	case v1alpha1.ReasonLeaseNotReadable:
		return "The platform does not read what the host reports, so nothing is known of it, and your server may be running. The platform team has to correct that."
	case v1alpha1.ReasonWaitingForHeartbeat:
		return "The host is new, and its first report may still come. Look again in a minute."
	case v1alpha1.ReasonWindowAnnounced:
		return "The host reports, and maintenance is announced for it."
	case v1alpha1.ReasonReporting:
		return "The host reports, and nothing is announced for it."
	case v1alpha1.ReasonNoHost:
		return "The server is on no host: it is not placed yet, or shelved."
	case v1alpha1.ReasonHostNotFound:
		return "The server is on a host that hoststatus does not know, so nothing is known of it. The platform team has to correct that."
	}
	if s.fields.HostStatus == nil {
		return "There is no host status yet: the platform has not looked at this server so far. If that stays so, ask the platform team."
	}
	if row, known := hoststatus.RowOf(s.fields.HostStatus); known {
		return capital(row.Meaning) + "."
	}
	return "This release of kubectl-servers does not know the value. Ask the platform team what it means, or install a newer one."
}

func alsoSilent(silent bool) string {
	if silent {
		return " It does not report either, so nobody knows what your server does."
	}
	return " Your server may run, pause or stop with it."
}

// failOver is whether the server may be started elsewhere, and why.
func (s sight) failOver() (FailOver, string) {
	if !s.shown() {
		return FailOverCannotTell, "It cannot be told without the host status: only DOWN means that it is safe. Ask the platform team before you start this server elsewhere."
	}
	if s.fields.HostStatus == nil {
		return FailOverNo, "No: nothing is known of the host yet, and your server may be running."
	}
	row, known := hoststatus.RowOf(s.fields.HostStatus)
	silent := s.fields.HostReporting == v1alpha1.HostReportingFalse
	switch status := *s.fields.HostStatus; {
	case known && row.FailOver:
		return FailOverYes, "Yes: the host is off, so this server may be started elsewhere."
	case status == v1alpha1.HostStatusUnknown:
		return FailOverNo, "No, not because of this: your server may still be running, and starting it a second time destroys data. Wait for DOWN or UP, or ask the platform team to make sure that the host is off."
	case status == v1alpha1.HostStatusNone:
		return FailOverNo, "No: find out first where it runs."
	case status == v1alpha1.HostStatusMaintenance && silent:
		return FailOverNo, "No: the host does not report, and your server may still be running. Wait for DOWN or UP, or ask the platform team."
	case status == v1alpha1.HostStatusMaintenance:
		return FailOverNotNeeded, "No, and there is no need: the host is out of service on purpose."
	case status == v1alpha1.HostStatusNeedsMaintenance:
		return FailOverNotNeeded, "No, and there is no need: the host is alive. Move the server in time if the maintenance is in your way."
	case status == v1alpha1.HostStatusUp:
		return FailOverNotNeeded, "No, and there is no need: the host is alive."
	default:
		return FailOverNo, "No: only DOWN means that it is safe."
	}
}

// capital begins a sentence.
func capital(text string) string {
	if text == "" || text[0] < 'a' || text[0] > 'z' {
		return text
	}
	return string(text[0]-'a'+'A') + text[1:]
}
