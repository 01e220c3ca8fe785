// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"net"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// Flag is the path by which an error names a flag.
func Flag(name string) *field.Path { return field.NewPath("--" + name) }

// ValidateNamespace returns what is wrong with the name of a namespace.
func ValidateNamespace(flag *field.Path, namespace string) field.ErrorList {
	return invalid(flag, namespace, validation.IsDNS1123Label(namespace))
}

// ValidateNamespaces returns what is wrong with names of namespaces, of which there
// must be at least one; howToFill is the advice if there is none.
func ValidateNamespaces(flag *field.Path, namespaces []string, howToFill string) field.ErrorList {
	if len(namespaces) == 0 {
		return field.ErrorList{field.Required(flag, howToFill)}
	}
	var errs field.ErrorList
	known := sets.New[string]()
	for i, namespace := range namespaces {
		errs = append(errs, ValidateNamespace(flag.Index(i), namespace)...)
		if known.Has(namespace) {
			errs = append(errs, field.Duplicate(flag.Index(i), namespace))
		}
		known.Insert(namespace)
	}
	return errs
}

// ValidateObjectName returns what is wrong with the name of an object that is a DNS
// subdomain, as those of hosts and Leases are.
func ValidateObjectName(flag *field.Path, name string) field.ErrorList {
	return invalid(flag, name, validation.IsDNS1123Subdomain(name))
}

// ValidateServiceName returns what is wrong with the name of a Service.
func ValidateServiceName(flag *field.Path, name string) field.ErrorList {
	return invalid(flag, name, validation.IsDNS1035Label(name))
}

// ValidatePort returns what is wrong with a port to serve on.
func ValidatePort(flag *field.Path, port int) field.ErrorList {
	return invalid(flag, port, validation.IsValidPortNum(port))
}

// ValidateLeaseDuration returns what is wrong with the time for which a renewal is
// valid: it has to fit into a ComputeService and into a Lease.
func ValidateLeaseDuration(flag *field.Path, d time.Duration) field.ErrorList {
	const shortest, longest = v1alpha1.MinLeaseDurationSeconds * time.Second, v1alpha1.MaxLeaseDurationSeconds * time.Second
	if d < shortest || d > longest || d%time.Second != 0 {
		return field.ErrorList{field.Invalid(flag, d.String(), "must be whole seconds from 3s to 1h")}
	}
	return nil
}

// ValidateAddress returns what is wrong with an address to listen on; "0", which means
// none, is valid.
func ValidateAddress(flag *field.Path, address string) field.ErrorList {
	return validateAddress(flag, address, 0)
}

// ValidateKnownAddress is ValidateAddress for an address that others have to know, so
// the system cannot choose its port.
func ValidateKnownAddress(flag *field.Path, address string) field.ErrorList {
	return validateAddress(flag, address, 1)
}

func validateAddress(flag *field.Path, address string, minPort uint64) field.ErrorList {
	if address == "0" {
		return nil
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return invalid(flag, address, []string{"must be host:port, :port or 0: " + err.Error()})
	}
	if number, err := strconv.ParseUint(port, 10, 16); err != nil || number < minPort {
		return invalid(flag, address, []string{fmt.Sprintf("must end with a port from %d to 65535, not %q", minPort, port)})
	}
	return nil
}

func invalid(flag *field.Path, value any, messages []string) (errs field.ErrorList) {
	for _, message := range messages {
		errs = append(errs, field.Invalid(flag, value, message))
	}
	return errs
}
