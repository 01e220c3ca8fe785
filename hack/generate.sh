#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Writes everything that is generated from the code. See `make generate`.
set -euo pipefail
cd "$(dirname "$0")/.."
controller_gen() { go tool -modfile=hack/tools/go.mod controller-gen "$@"; }
openapi_gen() { go tool -modfile=hack/tools/go.mod openapi-gen "$@"; }
header=hack/boilerplate.go.txt
rm -rf api/v1alpha1/applyconfiguration api/owner/v1alpha1/applyconfiguration
controller_gen object:headerFile=$header applyconfiguration:headerFile=$header paths=./api/v1alpha1
controller_gen object:headerFile=$header applyconfiguration:headerFile=$header paths=./api/owner/v1alpha1
controller_gen object:headerFile=$header paths=./api/agent/v1alpha1
controller_gen crd:crdVersions=v1 'paths={./api/v1alpha1,./api/agent/v1alpha1,./api/owner/v1alpha1}' output:crd:artifacts:config=config/crd
controller_gen rbac:roleName=hoststatus-manager 'paths={./controllers/...,./internal/manager}' output:rbac:artifacts:config=config/rbac
controller_gen object:headerFile=$header paths=./api/tenant/v1alpha1
openapi_gen --go-header-file=$header --output-dir=internal/tenantapi/openapi --output-pkg=hoststatus.dev/hoststatus/internal/tenantapi/openapi \
	--output-file=zz_generated.openapi.go --output-model-name-file=zz_generated.model_name.go \
	--readonly-pkg=k8s.io/apimachinery/pkg/apis/meta/v1 --readonly-pkg=k8s.io/apimachinery/pkg/runtime --readonly-pkg=k8s.io/apimachinery/pkg/version --report-filename=/dev/null \
	./api/tenant/v1alpha1 ./api/v1alpha1 \
	k8s.io/apimachinery/pkg/apis/meta/v1 k8s.io/apimachinery/pkg/runtime k8s.io/apimachinery/pkg/version

# From the table of host statuses: the health checks in config/gitops, the configuration
# of kube-state-metrics in config/prometheus, and the colours for the dashboard.
go run ./hack/gen/statuses

# docs/operate/metrics.md, and in config/prometheus the PrometheusRule.
go run ./hack/gen/observability

# config/prometheus/dashboard.json.
(cd hack/gen/dashboard && go run . ../../..)

# docs/operate/configuration.md: the flags of the binaries.
go run ./hack/gen/configuration

# The chart's templates that come from config/, what its schema has of the notifier, and the
# table of its values.
go run ./hack/gen/chart
