// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// deletionProtection refuses to delete a protected ComputeService while Servers name
// it. It is asked about protected ones only; the configuration sees to that.
type deletionProtection struct {
	serversOn func(host string) (int, error)
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
func (v *deletionProtection) ValidateDelete(_ context.Context, service *v1alpha1.ComputeService) (admission.Warnings, error) {
	if !protected(service) {
		return nil, nil
	}
	servers, err := v.serversOn(service.Name)
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("counting the Servers on the host: %w; try again in a moment, or remove the annotation %s", err, v1alpha1.AnnotationDeletionProtection))
	}
	return nil, refuseDelete(service, servers)
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
