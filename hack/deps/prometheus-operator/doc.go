// SPDX-License-Identifier: Apache-2.0

// Package prometheusoperator pins the types of the Prometheus operator, whose CRDs a
// test makes from them to check config/prometheus against.
package prometheusoperator

import _ "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1" // for its CRDs
