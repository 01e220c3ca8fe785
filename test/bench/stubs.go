// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
)

var growth, tenantAPI, large = scenario{name: "growth"}, scenario{name: "tenantapi"}, scenario{name: "large"}

func runShort(context.Context, options) error { return errors.New("no") }
