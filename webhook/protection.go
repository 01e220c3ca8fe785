// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// deletionProtection refuses to delete a protected ComputeService while Servers name
// it. It is asked about protected ones only; the configuration sees to that.
type deletionProtection struct {
	serversOn func(host string) (int, error)
	live      client.Reader
}

var _ admission.Validator[*v1alpha1.ComputeService] = &deletionProtection{}

// ValidateCreate implements admission.Validator.
func (*deletionProtection) ValidateCreate(context.Context, *v1alpha1.ComputeService) (admission.Warnings, error) {
	return nil, nil
}

// ValidateUpdate implements admission.Validator.
func (*deletionProtection) ValidateUpdate(_ context.Context, _, _ *v1alpha1.ComputeService) (admission.Warnings, error) {
	return nil, nil
}

// ValidateDelete implements admission.Validator.
func (v *deletionProtection) ValidateDelete(ctx context.Context, service *v1alpha1.ComputeService) (admission.Warnings, error) {
	if !protected(service) {
		return nil, nil
	}
	servers, err := v.serversOn(service.Name)
	if err == nil && servers == 0 {
		servers, err = v.listed(ctx, service.Name)
	}
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("counting the Servers on the host: %w; try again in a moment, or remove the annotation %s", err, v1alpha1.AnnotationDeletionProtection))
	}
	return nil, refuseDelete(service, servers)
}

// listed asks the API server itself how many Servers are on a host, some hundreds at
// most: a replica that is cut off from it may not have heard of them.
func (v *deletionProtection) listed(ctx context.Context, host string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	var servers v1alpha1.ServerList
	if err := v.live.List(ctx, &servers, client.MatchingFields{v1alpha1.ServerHostField: host}, client.Limit(500)); err != nil {
		return 0, fmt.Errorf("listing them: %w", err)
	}
	return len(servers.Items), nil
}

func protected(service *v1alpha1.ComputeService) bool {
	return service.Annotations[v1alpha1.AnnotationDeletionProtection] == "true"
}

// refuseDelete returns why service may not be deleted, nil if it may.
func refuseDelete(service *v1alpha1.ComputeService, servers int) error {
	if servers == 0 || !protected(service) {
		return nil
	}
	return errors.New(stillName(servers) + " in spec.host, and its annotation " + v1alpha1.AnnotationDeletionProtection +
		" protects it; move them first (" + find(service.Name) + "), or remove the annotation")
}
