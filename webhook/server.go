// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// serverWarnings warns who writes a Server.
type serverWarnings struct{ Options }

var _ admission.Validator[*v1alpha1.Server] = &serverWarnings{}

// ValidateCreate implements admission.Validator.
func (v *serverWarnings) ValidateCreate(ctx context.Context, server *v1alpha1.Server) (admission.Warnings, error) {
	return v.validate(ctx, nil, server)
}

// ValidateUpdate implements admission.Validator.
func (v *serverWarnings) ValidateUpdate(ctx context.Context, before, after *v1alpha1.Server) (admission.Warnings, error) {
	return v.validate(ctx, before, after)
}

// ValidateDelete implements admission.Validator.
func (*serverWarnings) ValidateDelete(context.Context, *v1alpha1.Server) (admission.Warnings, error) {
	return nil, nil
}

func (v *serverWarnings) validate(ctx context.Context, before, after *v1alpha1.Server) (admission.Warnings, error) {
	if !placed(before, after) {
		return nil, nil
	}
	known, err := v.hostExists(ctx, after.Spec.Host)
	if err != nil {
		return nil, err
	}
	return onPlace(after, known), nil
}

// hostExists asks the API server itself before it says no: who applies a host and
// its servers at once is ahead of any cache.
func (v *serverWarnings) hostExists(ctx context.Context, host string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	for _, reader := range []client.Reader{v.Cache, v.Live} {
		err := reader.Get(ctx, client.ObjectKey{Name: host}, &v1alpha1.ComputeService{})
		if err == nil {
			return true, nil
		}
		if !apierrors.IsNotFound(err) {
			return false, fmt.Errorf("looking for the ComputeService of spec.host: %w", err)
		}
	}
	return false, nil
}

// placed says whether a Server is put on a host by this write.
func placed(before, after *v1alpha1.Server) bool {
	return after.Spec.Host != "" && (before == nil || before.Spec.Host != after.Spec.Host)
}

// onPlace returns what to say to who puts a Server on a host.
func onPlace(after *v1alpha1.Server, known bool) []string {
	if known {
		return nil
	}
	return []string{fmt.Sprintf("spec.host: there is no ComputeService %q, so the server has no host status (HostNotFound) until there is one; see what there is with: kubectl get computeservices", after.Spec.Host)}
}
