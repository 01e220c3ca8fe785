// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"fmt"

	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"hoststatus.dev/hoststatus/api/v1alpha1"
)

// hostIndex is the name of the index of Servers by their host.
const hostIndex = "hoststatus-host"

// ByHost finds the Servers on a host. Its index is the informer's own, because an
// index of the cache has two entries for each Server, one of them by namespace, which
// takes more memory than a fifth of the Server.
type ByHost struct {
	informer toolscache.SharedIndexInformer
}

// NewByHost adds the index to the informer of Servers in c, before it starts.
func NewByHost(ctx context.Context, c cache.Cache) (*ByHost, error) {
	informer, err := c.GetInformer(ctx, &v1alpha1.Server{}, cache.BlockUntilSynced(false))
	if err != nil {
		return nil, fmt.Errorf("making the informer of servers: %w", err)
	}
	indexed, ok := informer.(toolscache.SharedIndexInformer)
	if !ok {
		return nil, fmt.Errorf("indexing servers by host: the informer is a %T, which has no index", informer)
	}
	if err := indexed.AddIndexers(toolscache.Indexers{hostIndex: indexByHost}); err != nil {
		return nil, fmt.Errorf("indexing servers by host: %w", err)
	}
	return &ByHost{informer: indexed}, nil
}

// Keys returns the keys, namespace/name, of the Servers on a host that are known so far.
func (b *ByHost) Keys(host string) ([]string, error) {
	return b.informer.GetIndexer().IndexKeys(hostIndex, host)
}

// Count returns how many Servers name a host. It is an error before they have been
// listed.
func (b *ByHost) Count(host string) (int, error) {
	if !b.informer.HasSynced() {
		return 0, errors.New("the servers have not been listed yet")
	}
	keys, err := b.Keys(host)
	return len(keys), err
}

// OnHost returns the Servers on a host that are known so far. They must not be changed.
func (b *ByHost) OnHost(host string) ([]*v1alpha1.Server, error) {
	objects, err := b.informer.GetIndexer().ByIndex(hostIndex, host)
	if err != nil {
		return nil, err
	}
	servers := make([]*v1alpha1.Server, 0, len(objects))
	for _, obj := range objects {
		if server, ok := obj.(*v1alpha1.Server); ok {
			servers = append(servers, server)
		}
	}
	return servers, nil
}

// Get returns the Server with a key, namespace/name, or nil. It must not be changed.
func (b *ByHost) Get(key string) (*v1alpha1.Server, error) {
	obj, _, err := b.informer.GetIndexer().GetByKey(key)
	server, _ := obj.(*v1alpha1.Server)
	return server, err
}

// AddEventHandler calls handler with every change of a Server.
func (b *ByHost) AddEventHandler(handler toolscache.ResourceEventHandler) (toolscache.ResourceEventHandlerRegistration, error) {
	return b.informer.AddEventHandler(handler)
}

// indexByHost returns the key of a Server in the index.
func indexByHost(obj any) ([]string, error) {
	if server, ok := obj.(*v1alpha1.Server); ok && server.Spec.Host != "" {
		return []string{server.Spec.Host}, nil
	}
	return nil, nil
}
