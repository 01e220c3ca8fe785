// SPDX-License-Identifier: Apache-2.0

// Package report keeps the HostReport of a host: what its driver knows about the servers
// on it.
package report

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"

	agentv1alpha1 "hoststatus.dev/hoststatus/api/agent/v1alpha1"
	"hoststatus.dev/hoststatus/internal/agent/apiserver"
	"hoststatus.dev/hoststatus/internal/agent/driver"
)

const (
	// quiet is how long the driver must have brought nothing new before a report is
	// written, so that fifty VMs that change together are one write.
	quiet = 200 * time.Millisecond
	// longestDelay is how long a change waits at most while others follow.
	longestDelay = time.Second
	// confirmAfter is when a report that has not changed is sent once more, in case it was
	// deleted or an old one was restored. If not, the API server writes nothing.
	confirmAfter = 5 * time.Minute
	// firstBackOff and lastBackOff bound how soon a report that failed is tried again.
	firstBackOff = time.Second
	lastBackOff  = 10 * time.Second
	// requestTimeout ends a request that hangs.
	requestTimeout = 10 * time.Second

	fieldManager = "hoststatus-agent"
	resource     = "hostreports"
	// onlyMetadata makes the API server leave everything but the metadata, of which the
	// version is needed, out of its answer.
	onlyMetadata = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
)

// Reporter keeps the HostReport of a host. An agent may not read it: an update needs the
// version that the answer to the last write gave, and without one the Reporter deletes
// the report and creates it.
type Reporter struct {
	// Name of the host, and of its HostReport.
	Name string
	// Client speaks the group agent.hoststatus.dev: see NewClient.
	Client rest.Interface
	// Logger takes a line when reporting begins to fail and when it works again, and when
	// something is left out of a report.
	Logger logr.Logger
	// OnConnectionFailure, if set, is called after a request that got no answer, so that
	// the next request can use a fresh connection.
	OnConnectionFailure func()
	// OnHealth, if set, is called after each try with what is wrong, or nil.
	OnHealth func(error)

	mu     sync.Mutex
	latest []driver.VM
	wake   chan struct{}

	// What follows is used by Run alone.

	// wanted is what the driver knows, and written what the API server has accepted as
	// that. version is that of the HostReport, "" if it is not known.
	wanted, written agentv1alpha1.HostReportSpec
	version         string
	failures        int
	// notes list what is not in wanted, and logged is what was logged of them last.
	notes  []string
	logged string
}

// New returns a Reporter.
func New(name string, client rest.Interface, log logr.Logger) *Reporter {
	return &Reporter{Name: name, Client: client, Logger: log, wake: make(chan struct{}, 1)}
}

// NewClient returns a client of the group agent.hoststatus.dev, which needs no discovery.
func NewClient(config *rest.Config) (rest.Interface, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(agentv1alpha1.AddToScheme(scheme), metav1.AddMetaToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("registering the kinds: %w", err)
	}
	metav1.AddToGroupVersion(scheme, metav1.Unversioned)
	config = rest.CopyConfig(config)
	config.APIPath = "/apis"
	config.QPS = -1 // It makes one request at a time.
	config.GroupVersion = &agentv1alpha1.SchemeGroupVersion
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("making the client for reports: %w", err)
	}
	return client, nil
}

// Know takes what the driver knows now. It does not wait.
func (r *Reporter) Know(vms []driver.VM) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.latest = vms
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run reports until ctx ends. It writes nothing before the first call of Know.
func (r *Reporter) Run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	// changed is when the oldest change came that has not been sent yet, notBefore when the
	// next try is allowed after one that failed, and confirm when one that did not is
	// repeated.
	var changed, notBefore, confirm time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
			if !r.take() {
				// A change that was taken back is none.
				changed = time.Time{}
				timer.Reset(time.Until(confirm))
				continue
			}
			now := time.Now()
			if changed.IsZero() {
				changed = now
			}
			due := now.Add(quiet)
			if last := changed.Add(longestDelay); due.After(last) {
				due = last
			}
			if due.Before(notBefore) {
				due = notBefore
			}
			timer.Reset(time.Until(due))
		case <-timer.C:
			err := r.send(ctx)
			if ctx.Err() != nil {
				return // Cut short; that shows nothing.
			}
			r.logOutcome(err)
			changed, notBefore = time.Time{}, time.Time{}
			if err == nil {
				r.failures = 0
				confirm = time.Now().Add(apiserver.Shorten(confirmAfter))
				timer.Reset(time.Until(confirm))
				continue
			}
			notBefore = time.Now().Add(apiserver.Shorten(min(firstBackOff<<min(r.failures, 8), lastBackOff)))
			r.failures++
			timer.Reset(time.Until(notBefore))
		}
	}
}

// take reads what the driver knows, and reports whether it has to be sent: also if the API
// server has it, but has refused what came in between, so that the error does not stand.
func (r *Reporter) take() bool {
	r.mu.Lock()
	vms := r.latest
	r.mu.Unlock()
	r.wanted, r.notes = recordOf(vms)
	return r.version == "" || r.failures > 0 || !reflect.DeepEqual(r.wanted, r.written)
}

// send brings the HostReport to what is wanted.
func (r *Reporter) send(ctx context.Context) error {
	err := r.write(ctx, r.wanted)
	notes, refusal := r.notes, ""
	if less := bare(r.wanted); unfit(err) && !reflect.DeepEqual(less, r.wanted) {
		// The API server has a rule that we do not know, or the report is too large. Send at
		// least what matters most.
		if r.write(ctx, less) == nil {
			notes, refusal = append(slices.Clone(notes), "sent without networks and task states"), err.Error()
			err = nil
		}
	}
	if err == nil {
		r.written = r.wanted
	}
	r.logNotes(notes, refusal)
	return err
}

// unfit reports whether the API server refused a request for its content.
func unfit(err error) bool {
	return apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsRequestEntityTooLargeError(err) || tooLargeForEtcd(err)
}

// tooLargeForEtcd reports whether etcd did not take a request, or kube-apiserver's client of
// etcd did not send it. kube-apiserver itself reads larger ones, and then answers with what
// they say.
func tooLargeForEtcd(err error) bool {
	return err != nil && (strings.Contains(err.Error(), "etcdserver: request is too large") ||
		strings.Contains(err.Error(), "trying to send message larger than max"))
}

// write updates the HostReport, or replaces it if its version is not known.
func (r *Reporter) write(ctx context.Context, record agentv1alpha1.HostReportSpec) error {
	if r.version != "" {
		err := r.request(ctx, r.Client.Put().Name(r.Name), &record)
		// A refusal of the content leaves the version as it was.
		if err == nil || unfit(err) {
			return err
		}
		r.version = ""
		if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return fmt.Errorf("updating the HostReport: %w", err)
		}
	}
	if err := r.request(ctx, r.Client.Delete().Name(r.Name), nil); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("deleting the former HostReport: %w", err)
	}
	err := r.request(ctx, r.Client.Post(), &record)
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("creating the HostReport: the API server does not know this kind; install the custom resource definition %s.%s: %w",
			resource, agentv1alpha1.SchemeGroupVersion.Group, err)
	}
	if err != nil {
		return fmt.Errorf("creating the HostReport: %w", err)
	}
	return nil
}

// request sends a request, with a HostReport of this record if there is one, and keeps
// the version that it is answered with.
func (r *Reporter) request(ctx context.Context, request *rest.Request, record *agentv1alpha1.HostReportSpec) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	// It is tried again here, and not by the client, which would wait as long as the answer asks.
	request = request.Resource(resource).MaxRetries(0).SetHeader("Accept", onlyMetadata)
	if record != nil {
		body, err := json.Marshal(&agentv1alpha1.HostReport{
			TypeMeta:   metav1.TypeMeta{APIVersion: agentv1alpha1.SchemeGroupVersion.String(), Kind: "HostReport"},
			ObjectMeta: metav1.ObjectMeta{Name: r.Name, ResourceVersion: r.version},
			Spec:       *record,
		})
		if err != nil {
			return fmt.Errorf("encoding the HostReport: %w", err)
		}
		request = request.Param("fieldManager", fieldManager).SetHeader("Content-Type", runtime.ContentTypeJSON).Body(body)
	}
	result := request.Do(ctx)
	if err := result.Error(); err != nil {
		if !apiserver.IsAnswer(err) && r.OnConnectionFailure != nil {
			r.OnConnectionFailure()
		}
		return err
	}
	if record == nil {
		return nil
	}
	var written metav1.PartialObjectMetadata
	if err := result.Into(&written); err != nil {
		return fmt.Errorf("decoding the answer: %w", err)
	}
	r.version = written.ResourceVersion
	return nil
}

// logOutcome logs when reporting begins to fail and when it works again.
func (r *Reporter) logOutcome(err error) {
	if r.OnHealth != nil {
		r.OnHealth(err)
	}
	switch {
	case err == nil && r.failures > 0:
		r.Logger.Info("Report accepted again")
	case err != nil && r.failures == 0:
		r.Logger.Error(err, "Report failed; the Servers keep what was last reported; retrying")
	}
}

// logNotes logs what is left out of a report, when that changes, and why the API server
// refused it, if it did.
func (r *Reporter) logNotes(notes []string, refusal string) {
	joined := strings.Join(notes, "; ")
	if joined == r.logged {
		return
	}
	r.logged = joined
	if joined != "" {
		r.Logger.Info("Some of what the driver reports cannot be sent; sending the rest", "notes", notes, "refusal", refusal)
	}
}
