// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

func codecs() (serializer.CodecFactory, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return serializer.CodecFactory{}, fmt.Errorf("registering the kinds: %w", err)
	}
	metav1.AddToGroupVersion(scheme, v1alpha1.SchemeGroupVersion)
	return serializer.NewCodecFactory(scheme), nil
}

func mustJSON(v any) []byte {
	out, err := json.Marshal(v)
	if err != nil {
		panic(err) // Our own types can be encoded.
	}
	return out
}

// follow calls see with every change of a kind from now on, as it arrives. kube-apiserver
// ends a watch whose client is too slow for it; then it begins again, with what there is.
func follow[T client.Object](ctx context.Context, w *world, list client.ObjectList, see func(T, time.Time)) error {
	ctx, stop := context.WithCancel(ctx)
	w.trial.later(stop)
	// An empty page tells the version to watch from.
	stream, err := watchAfter(ctx, w, list, client.Limit(1))
	if err != nil {
		return err
	}
	go func() {
		for {
			for e := range stream.ResultChan() {
				if obj, ok := e.Object.(T); ok {
					see(obj, time.Now())
				}
			}
			if stream, err = watchAfter(ctx, w, list); err != nil {
				return // It has ended, or what waits for this says what it lacks.
			}
			_ = meta.EachListItem(list, func(obj runtime.Object) error {
				if obj, ok := obj.(T); ok {
					see(obj, time.Now())
				}
				return nil
			})
		}
	}()
	return nil
}

// watchAfter lists, and watches from there.
func watchAfter(ctx context.Context, w *world, list client.ObjectList, options ...client.ListOption) (watch.Interface, error) {
	if err := w.admin.List(ctx, list, options...); err != nil {
		return nil, fmt.Errorf("listing what to watch: %w", err)
	}
	stream, err := w.admin.Watch(ctx, list, &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: list.GetResourceVersion()}})
	if err != nil {
		return nil, fmt.Errorf("watching: %w", err)
	}
	return stream, nil
}

// requests returns how many requests of a method a process has sent.
func requests(address, method string) (float64, error) {
	body, err := fetch("http://" + address + "/metrics")
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "rest_client_requests_total{") && strings.Contains(line, `method="`+method+`"`) {
			var v float64
			if _, err := fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &v); err != nil {
				return 0, fmt.Errorf("reading the count of requests: %w", err)
			}
			sum += v
		}
	}
	return sum, nil
}
