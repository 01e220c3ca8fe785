// SPDX-License-Identifier: Apache-2.0

// Package apiserver is how the parts of the agent talk to the API server: each over its
// own connections, so that one never waits for another.
package apiserver

import (
	"errors"
	"net"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/connrotation"
)

// jitter spreads the hosts: a wait is shortened by up to this fraction.
const jitter = 0.1

// WithOwnConnections returns config with separate connections, and a function that drops
// them when they do not answer: otherwise a dead one would be used until TCP gives up.
func WithOwnConnections(config *rest.Config) (own *rest.Config, drop func(), err error) {
	if config.Dial != nil {
		return nil, nil, errors.New("the client configuration has its own dialer")
	}
	own = rest.CopyConfig(config)
	dialer := connrotation.NewDialer((&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext)
	own.Dial = dialer.DialContext
	return own, dialer.CloseAll, nil
}

// IsAnswer reports whether err is an answer of the API server.
func IsAnswer(err error) bool {
	return apierrors.ReasonForError(err) != metav1.StatusReasonUnknown
}

// Shorten returns d or a little less.
func Shorten(d time.Duration) time.Duration {
	return wait.Jitter(time.Duration(float64(d)*(1-jitter)), jitter)
}
