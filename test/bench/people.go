// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/test/framework/expect"
)

const (
	viewer       = "hoststatus-server-viewer"
	statusViewer = "hoststatus-host-status-viewer"
	tenantPath   = "/apis/tenant.hoststatus.dev/v1alpha1"
	computePath  = "/apis/compute.hoststatus.dev/v1alpha1"
)

// person is a user of the API.
type person struct {
	url  string
	http *http.Client
}

// startTenantAPI starts the owners' view.
func (w *world) startTenantAPI(ctx context.Context) error {
	if err := w.fleet.StartTenantAPI(ctx); err != nil {
		return err
	}
	return w.fleet.WaitForTenantAPI(ctx)
}

// newPerson makes a user with roles in all namespaces, and returns once the
// tenant API serves it.
func (w *world) newPerson(ctx context.Context, name string, roles ...string) (*person, error) {
	for _, role := range roles {
		_, err := w.leases.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name + "-" + role},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: name}},
		}, metav1.CreateOptions{})
		if err != nil {
			return nil, fmt.Errorf("binding %s: %w", role, err)
		}
	}
	config, err := w.fleet.Cluster.ConfigFor(name)
	if err != nil {
		return nil, err
	}
	p, err := personWith(config)
	if err != nil {
		return nil, err
	}
	return p, expect.Poll(ctx, time.Minute, func() error {
		return p.get(ctx, tenantPath+"/servers?limit=1")
	})
}

// administrator may read the custom resources.
func (w *world) administrator() (*person, error) {
	config, err := w.fleet.Cluster.AdminConfig()
	if err != nil {
		return nil, err
	}
	return personWith(config)
}

func personWith(config *rest.Config) (*person, error) {
	// A dialer of its own gives a person a connection of their own.
	config.Dial = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	c, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	return &person{url: config.Host, http: c}, nil
}

func (p *person) ask(ctx context.Context, path string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+path, nil)
	if err != nil {
		return nil, fmt.Errorf("asking for %s: %w", path, err)
	}
	request.Header.Set("Accept", "application/json")
	response, err := p.http.Do(request)
	if err != nil {
		return nil, fmt.Errorf("asking for %s: %w", path, err)
	}
	if response.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(response.Body)
		_ = response.Body.Close()
		return nil, fmt.Errorf("asking for %s: %s: %.300s", path, response.Status, body)
	}
	return response, nil
}

// get reads an answer whole.
func (p *person) get(ctx context.Context, path string) error {
	response, err := p.ask(ctx, path)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	return nil
}

// seen is what a watch shows of an object with a status of kind S, as much as a benchmark reads.
type seen[S any] struct {
	Type   string `json:"type"`
	Object struct {
		Metadata struct {
			Name            string `json:"name"`
			ResourceVersion string `json:"resourceVersion"`
		} `json:"metadata"`
		Status S `json:"status"`
	} `json:"object"`
}

// seenServer is what a watch of servers shows.
type seenServer = seen[v1alpha1.ServerStatus]

// watchEnded is the type of the event that a watch shows when its connection has ended, which
// kube-apiserver does to watches that it finds slow. It goes on from the last version.
const watchEnded = "ENDED"

// maxLine is how long an event of a watch may be, in bytes.
const maxLine = 64 << 10

// watchPath calls see with each event of a watch from now on, until ctx ends or an error comes.
func watchPath[S any](ctx context.Context, p *person, path string, see func(*seen[S], time.Time)) error {
	return watchLines(ctx, p, path, func(line []byte, at time.Time) {
		e := &seen[S]{}
		if err := json.Unmarshal(line, e); err != nil {
			panic(err) // Each event of a watch is JSON.
		}
		see(e, at)
	})
}

// watchLines calls see with each event of a watch from now on, as it came, until ctx ends or an
// error comes. The next event overwrites it.
func watchLines(ctx context.Context, p *person, path string, see func(line []byte, at time.Time)) error {
	response, err := p.ask(ctx, path+"?limit=1") //nolint:bodyclose // it is closed below
	if err != nil {
		return err
	}
	var list struct {
		Metadata metav1.ListMeta `json:"metadata"`
	}
	err = json.NewDecoder(response.Body).Decode(&list)
	_ = response.Body.Close()
	if err != nil {
		return fmt.Errorf("listing what to watch: %w", err)
	}
	version := list.Metadata.ResourceVersion
	watch := func() (*http.Response, error) { return p.ask(ctx, path+"?watch=true&resourceVersion="+version) }
	if response, err = watch(); err != nil { //nolint:bodyclose // the goroutine closes it
		return err
	}
	go func() {
		var last []byte
		for {
			reader := bufio.NewReaderSize(response.Body, maxLine)
			for {
				line, err := reader.ReadSlice('\n')
				if err != nil {
					break
				}
				see(line, time.Now())
				if textOf(line, "type") == "ERROR" {
					_ = response.Body.Close()
					return
				}
				last = append(last[:0], line...)
			}
			_ = response.Body.Close()
			if ctx.Err() != nil {
				return
			}
			see([]byte(`{"type":"`+watchEnded+`"}`), time.Now())
			if len(last) > 0 {
				version = textOf(last, "resourceVersion")
			}
			if response, err = watch(); err != nil { //nolint:bodyclose // the loop closes it
				return
			}
		}
	}()
	return nil
}

// textOf returns the first text called key in an event, "" if it has none. To decode all of it
// would take as long as to send it.
func textOf(line []byte, key string) string {
	_, after, _ := bytes.Cut(line, []byte(`"`+key+`":"`))
	text, _, _ := bytes.Cut(after, []byte{'"'})
	return string(text)
}
