// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/utils/clock"
)

const (
	// cachePatience is how long a list waits for the feed to bring the versions
	// that it names, which takes milliseconds, before it reads them.
	cachePatience = 250 * time.Millisecond
)

// storage serves servers. It keeps nothing: a get reads the custom resource, a list
// asks it for names and resourceVersions and takes the bodies from the feed.
type storage struct {
	upstream *upstream
	feed     *feed
	grants   *grants
	canaries *canaries
	tokens   *tokens
	limits   *limits
	shared   *sharing
	// gather is gatherInterval, or shorter in tests.
	gather time.Duration
	clock  clock.WithTicker
	log    logr.Logger
	tableConvertor
}

// statusStorage serves servers/status: the whole server, as Kubernetes does, to callers
// that the generic server's authorization allows to get the subresource.
type statusStorage struct{ servers *storage }

var (
	_ rest.Storage              = &storage{}
	_ rest.Scoper               = &storage{}
	_ rest.Getter               = &storage{}
	_ rest.Lister               = &storage{}
	_ rest.Watcher              = &storage{}
	_ rest.TableConvertor       = &storage{}
	_ rest.SingularNameProvider = &storage{}
	_ rest.Storage              = statusStorage{}
	_ rest.Getter               = statusStorage{}
	_ rest.TableConvertor       = statusStorage{}
)

// New implements rest.Storage.
func (s *storage) New() runtime.Object { return &view{} }

// NewList implements rest.Lister.
func (s *storage) NewList() runtime.Object { return &viewList{} }

// Destroy implements rest.Storage.
func (s *storage) Destroy() {}

// NamespaceScoped implements rest.Scoper.
func (s *storage) NamespaceScoped() bool { return true }

// GetSingularName implements rest.SingularNameProvider.
func (s *storage) GetSingularName() string { return "server" }

// New implements rest.Storage.
func (s statusStorage) New() runtime.Object { return &view{} }

// Destroy implements rest.Storage.
func (s statusStorage) Destroy() {}

// Get implements rest.Getter.
func (s statusStorage) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	return s.servers.Get(ctx, name, options)
}

// ConvertToTable implements rest.TableConvertor.
func (s statusStorage) ConvertToTable(ctx context.Context, object, options runtime.Object) (*metav1.Table, error) {
	return s.servers.ConvertToTable(ctx, object, options)
}

// Get implements rest.Getter.
func (s *storage) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	u, namespace, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	var granted grant
	var grantErr error
	var asking sync.WaitGroup
	asking.Go(func() { granted, grantErr = s.grants.of(ctx, u, namespace, name) })
	var resourceVersion string
	if options != nil {
		resourceVersion = options.ResourceVersion
	}
	server, err := s.readOne(ctx, namespace, name, resourceVersion)
	asking.Wait()
	if err != nil {
		return nil, err
	}
	r, err := s.feed.projector.record(server)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	r = s.recognise(ctx, r, granted)
	decided("get", granted, grantErr)
	if grantErr != nil && ctx.Err() == nil {
		s.log.Error(grantErr, "Checking a grant failed; host status is hidden", "namespace", namespace)
	}
	v := viewOf(r, granted, r.shownAt[granted])
	v.hostColumn = v.hostShown
	if granted == grantUnknown && !v.hostShown {
		// The weaker grant changes nothing in this object, but a table has an empty cell,
		// which means that the host is not UNKNOWN, and that may be out of date, too.
		v.lateHostColumn = func(ctx context.Context) bool {
			s.warn(ctx, true)
			return true
		}
	}
	s.warn(ctx, v.hostShown)
	return &v, nil
}

// List implements rest.Lister.
func (s *storage) List(ctx context.Context, options *metainternalversion.ListOptions) (runtime.Object, error) {
	u, namespace, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	var granted grantSet
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		granted = s.grantsFor(ctx, u, namespace, "list")
	}()
	selected := newSelectors(options)
	page, err := s.read(ctx, namespace, options, selected)
	if err := seatOf(ctx).await(ctx, asked); err != nil {
		return nil, explainSeat(err)
	}
	// A refusal does not depend on which servers exist, so it comes first.
	if err := selected.admit(granted.wide()); err != nil {
		return nil, err
	}
	if err != nil {
		return nil, err
	}
	if page.cached {
		s.warnOfFeed(ctx)
	}
	if err := s.askForNew(ctx, u, granted, page.records); err != nil {
		return nil, err
	}
	place := s.place(ctx, namespace, options.ResourceVersion, granted, page)
	page.meta.ResourceVersion = strconv.FormatUint(place, 10)
	page.meta.Continue = s.tokens.seal(page.meta.Continue, place)
	list := &viewList{ListMeta: page.meta, Items: make([]view, 0, len(page.records)), hostColumn: granted.column}
	for i, r := range page.records {
		if err := ended(ctx, i); err != nil {
			return nil, err
		}
		if g := granted.in(r.known.namespace); selected.matches(r, g) {
			// What is known of the server may be newer than the page.
			item := viewOf(r, g, min(r.shownAt[g], place))
			item.hostColumn = granted.column
			list.Items = append(list.Items, item)
		}
	}
	s.warn(ctx, granted.column)
	return list, nil
}

// Watch implements rest.Watcher.
func (s *storage) Watch(ctx context.Context, options *metainternalversion.ListOptions) (watch.Interface, error) {
	u, namespace, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	if !s.feed.hasSynced() {
		return nil, apierrors.NewServiceUnavailable("the servers have not been listed yet; try again")
	}
	if err := checkResourceVersion(options.ResourceVersion); err != nil {
		return nil, err
	}
	if strings.Trim(options.ResourceVersion, "0") == "" && options.ResourceVersion != "" {
		options.ResourceVersion = "0" // "00" is read as 0 elsewhere, too.
	}
	release, err := s.limits.startWatch(ctx)
	if err != nil {
		return nil, err
	}
	runs := false
	defer func() {
		if !runs {
			release()
		}
	}()
	checked := s.clock.Now()
	granted := s.grantsFor(ctx, u, namespace, "watch")
	selected := newSelectors(options)
	if err := selected.admit(granted.wide()); err != nil {
		return nil, err
	}
	name := nameOf(ctx)
	w := &watcher{
		name: name,
		feed: s.feed,
		ask: func(ctx context.Context) (grantSet, error) {
			return s.grants.set(ctx, u, namespace, name, s.feed.namespaces)
		},
		askOne: func(ctx context.Context, namespace string) (grant, error) {
			return s.grants.of(ctx, u, namespace, name)
		},
		clock:     s.clock,
		log:       s.log,
		namespace: namespace,
		selectors: selected,
		bookmarks: options.AllowWatchBookmarks,
		grants:    granted,
		checked:   checked,
		shared:    s.shared,
		gather:    s.gather,
		result:    make(chan watch.Event, watchBuffer),
	}
	if err := s.begin(ctx, u, w, options); err != nil {
		w.seat.Release()
		return nil, err
	}
	s.warn(ctx, granted.column)
	s.warnOfFeed(ctx)
	ctx, w.cancel = context.WithCancel(ctx)
	open := watches.WithLabelValues()
	open.Inc()
	runs = true
	go func() {
		defer release()
		defer open.Dec()
		defer w.seat.Release()
		w.run(ctx)
	}()
	return w, nil
}

// begin finds where a watch starts, and what it sends first.
func (s *storage) begin(ctx context.Context, u user.Info, w *watcher, options *metainternalversion.ListOptions) error {
	legacy := options.SendInitialEvents == nil && (options.ResourceVersion == "" || options.ResourceVersion == "0")
	explicit := options.SendInitialEvents != nil && *options.SendInitialEvents
	switch {
	case legacy || explicit:
		var err error
		// The watch begins with a list, and what it sends first is the answer to that.
		if w.seat, err = s.limits.startList(ctx); err != nil {
			return explainSeat(err)
		}
		ctx := withSeat(ctx, w.seat)
		page, err := s.read(ctx, w.namespace, &metainternalversion.ListOptions{
			ResourceVersion: options.ResourceVersion,
			LabelSelector:   options.LabelSelector,
			FieldSelector:   options.FieldSelector,
		}, w.selectors)
		if err != nil {
			return err
		}
		if err := s.askForNew(ctx, u, w.grants, page.records); err != nil {
			return err
		}
		w.initial, w.initialEnd = page.records, explicit && options.AllowWatchBookmarks
		w.joined, w.owes = page.at, !page.complete
		w.rv, w.told = page.rv, s.place(ctx, w.namespace, options.ResourceVersion, w.grants, page)
	case options.ResourceVersion == "":
		page, err := s.upstream.list(ctx, w.namespace, metav1.ListOptions{Limit: 1})
		if err != nil {
			return err
		}
		if w.rv, err = parseResourceVersion(page.ResourceVersion); err != nil {
			return apierrors.NewInternalError(err)
		}
		w.joined = s.feed.version()
		w.told = s.feed.place(w.namespace, w.name, w.grants, w.rv)
	case options.ResourceVersion == "0":
		w.rv = s.feed.version()
		w.joined = w.rv
		w.told = s.feed.place(w.namespace, w.name, w.grants, w.rv)
	default:
		rv, err := parseResourceVersion(options.ResourceVersion)
		if err != nil {
			return apierrors.NewBadRequest(err.Error())
		}
		w.rv, w.told, w.joined, w.owes = rv, rv, rv, true
	}
	var err error
	w.cursor, err = s.feed.open(w.rv)
	return err
}

// page is what a list reads, before what the caller may see of it.
type page struct {
	records []*record
	meta    metav1.ListMeta
	// rv is the resourceVersion of the list of custom resources, which callers are not
	// shown. told is the one that earlier pages reported to the caller, 0 if there were
	// none.
	rv, told uint64
	// at is the version up to which hosts have been taken in. It is rv at most, and if the
	// page is not complete, because the feed was behind, not known.
	at       uint64
	complete bool
	// cached is set if it comes from the feed, and is as old.
	cached bool
}

// read reads the servers that options ask for.
func (s *storage) read(ctx context.Context, namespace string, options *metainternalversion.ListOptions, selected selectors) (page, error) {
	if fromCache(options) && s.feed.hasSynced() {
		records, rv := s.cached(namespace, selected)
		return page{records: records, rv: rv, at: rv, complete: true, cached: true}, nil
	}
	if options.Continue != "" && options.ResourceVersion != "" && options.ResourceVersion != "0" {
		return page{}, apierrors.NewBadRequest("resourceVersion: leave it out with continue, which says by itself as of when")
	}
	next, told, err := s.tokens.open(options.Continue)
	if err != nil {
		return page{}, err
	}
	if err := checkResourceVersion(options.ResourceVersion); err != nil {
		return page{}, err
	}
	labelSelector, fieldSelector, none := selected.upstream(s.feed.projector)
	if selected.uid != "" && options.Continue == "" {
		// The custom resources cannot be selected by uid. Where the feed knows whose it is, that
		// server is asked for by its name, as of now; else all of the namespace are looked
		// through, also if it is in another one, so that the time taken does not reveal that.
		if r, _ := s.feed.byUID(namespace, selected.uid); r != nil {
			namespace = r.known.namespace
			fieldSelector = fields.AndSelectors(fieldSelector, fields.OneTermEqualSelector(fieldName, r.known.name))
		}
	}
	upstreamOptions := metav1.ListOptions{
		LabelSelector:        labelSelector.String(),
		FieldSelector:        fieldSelector.String(),
		ResourceVersion:      options.ResourceVersion,
		ResourceVersionMatch: options.ResourceVersionMatch,
		Limit:                options.Limit,
		Continue:             next,
	}
	if none {
		// Only the resourceVersion is asked for.
		upstreamOptions.Limit = 1
	}
	atLeast, err := notOlderThan(options)
	if err != nil {
		return page{}, err
	}
	if atLeast != 0 {
		upstreamOptions.ResourceVersion, upstreamOptions.ResourceVersionMatch = "", ""
	}
	list, err := s.upstream.list(ctx, namespace, upstreamOptions)
	if err != nil {
		return page{}, s.tokens.sealError(err)
	}
	p := page{told: told}
	if p.rv, err = parseResourceVersion(list.ResourceVersion); err != nil {
		return page{}, apierrors.NewInternalError(err)
	}
	if p.rv < atLeast {
		return page{}, tooNew()
	}
	if none {
		p.at, p.complete = min(p.rv, s.feed.version()), true
		return p, nil
	}
	p.meta = metav1.ListMeta{Continue: list.Continue, RemainingItemCount: list.RemainingItemCount}
	if selected.onHost || selected.uid != "" {
		// How many remain of those that the caller selects is not known.
		p.meta.RemainingItemCount = nil
	}
	if p.records, p.at, err = s.bodies(ctx, namespace, list, p.rv, upstreamOptions); err != nil {
		return page{}, err
	}
	if p.complete = p.at != 0; !p.complete {
		p.at = p.rv
	}
	return p, nil
}

// cached returns the servers of namespace that can have been selected, as the feed has them,
// and the resourceVersion that they are of.
func (s *storage) cached(namespace string, selected selectors) ([]*record, uint64) {
	if selected.uid == "" {
		return s.feed.list(namespace)
	}
	r, rv := s.feed.byUID(namespace, selected.uid)
	if r == nil {
		return nil, rv
	}
	return []*record{r}, rv
}

// fromCache reports whether the caller accepts any version.
func fromCache(options *metainternalversion.ListOptions) bool {
	return options.ResourceVersion == "0" && options.Continue == "" && options.ResourceVersionMatch != metav1.ResourceVersionMatchExact
}

// bodies returns the servers that list names, in those versions, and up to which version,
// not newer than rv, hosts have been taken in. If the feed does not have one in time,
// because its watch lags or the page is older than its history, all are read as of the
// list, which is slower and as exact, and that version is 0.
func (s *storage) bodies(ctx context.Context, namespace string, list *metav1.PartialObjectMetadataList, rv uint64, options metav1.ListOptions) ([]*record, uint64, error) {
	versions := make([]uint64, len(list.Items))
	for i := range list.Items {
		var err error
		if versions[i], err = parseResourceVersion(list.Items[i].ResourceVersion); err != nil {
			return nil, 0, apierrors.NewInternalError(err)
		}
	}
	found, at, err := s.find(ctx, versions, rv)
	if err != nil {
		return nil, 0, err
	}
	for i, r := range found {
		// Versions are used again where etcd was restored: never hand out another server.
		if item := &list.Items[i]; r != nil && (r.known != key{item.Namespace, item.Name} || r.base.UID != item.UID) {
			found[i] = nil
		}
	}
	if !slices.Contains(found, nil) {
		return found, at, nil
	}
	if options.Continue == "" { // A continue token has the version in it.
		options.ResourceVersion, options.ResourceVersionMatch = list.ResourceVersion, metav1.ResourceVersionMatchExact
	}
	servers, err := s.upstream.listWhole(ctx, namespace, options)
	if err != nil {
		return nil, 0, s.tokens.sealError(err)
	}
	records := make([]*record, len(servers.Items))
	for i := range servers.Items {
		if err := ended(ctx, i); err != nil {
			return nil, 0, err
		}
		if records[i], err = s.feed.projector.record(&servers.Items[i]); err != nil {
			return nil, 0, apierrors.NewInternalError(err)
		}
		records[i], _ = s.feed.recognise(records[i], grantNone)
	}
	return records, 0, nil
}

// grantsFor asks what the caller may see. An error of the authorizer hides.
func (s *storage) grantsFor(ctx context.Context, u user.Info, namespace, verb string) grantSet {
	granted, err := s.grants.set(ctx, u, namespace, nameOf(ctx), s.feed.namespaces)
	decidedSet(verb, granted, err)
	if err != nil && ctx.Err() == nil {
		s.log.Error(err, "Checking grants failed; host status is hidden where they are unknown")
	}
	return granted
}

// find waits for the feed to have versions, for a moment, without the seat. See feed.find.
func (s *storage) find(ctx context.Context, versions []uint64, asOf uint64) (found []*record, at uint64, err error) {
	found = make([]*record, len(versions))
	at, wake := s.feed.find(versions, asOf, found)
	if at != 0 {
		return found, at, nil
	}
	seat := seatOf(ctx)
	seat.Yield()
	patience, cancel := context.WithTimeout(ctx, cachePatience)
	defer cancel()
	for at == 0 && patience.Err() == nil {
		select {
		case <-wake:
			at, wake = s.feed.find(versions, asOf, found)
		case <-patience.Done():
		}
	}
	if err := seat.Resume(ctx); err != nil {
		return nil, 0, explainSeat(err)
	}
	return found, at, nil
}

// askForNew asks for the grants in namespaces whose first server is newer than the
// feed.
func (s *storage) askForNew(ctx context.Context, u user.Info, granted grantSet, records []*record) error {
	missing := sets.New[string]()
	for i, r := range records {
		if err := ended(ctx, i); err != nil {
			return err
		}
		if _, ok := granted.lookup(r.known.namespace); !ok {
			missing.Insert(r.known.namespace)
		}
	}
	if missing.Len() == 0 {
		return nil
	}
	seat := seatOf(ctx)
	seat.Yield()
	answers, err := s.grants.ofNamespaces(ctx, u, sets.List(missing), nameOf(ctx))
	if err != nil && ctx.Err() == nil {
		s.log.Error(err, "Checking grants failed; host status is hidden where they are unknown")
	}
	for namespace := range missing {
		granted.byNamespace[namespace] = answers[namespace]
	}
	if err := seat.Resume(ctx); err != nil {
		return explainSeat(err)
	}
	return nil
}

// endedInterval is how many servers are processed between two checks of whether the
// request has ended.
const endedInterval = 64

// ended returns an error if the request has ended, so that nothing more is done for it.
// i counts what has been done.
func ended(ctx context.Context, i int) error {
	if i%endedInterval != 0 || ctx.Err() == nil {
		return nil
	}
	return apierrors.NewTimeoutError("the request has ended before its servers were read; try again", 1)
}

// checkResourceVersion refuses what cannot be one.
func checkResourceVersion(resourceVersion string) error {
	if resourceVersion == "" {
		return nil
	}
	if _, err := parseResourceVersion(resourceVersion); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	return nil
}

// warn warns a caller that is shown host status if it may be out of date.
func (s *storage) warn(ctx context.Context, shown bool) {
	if !shown {
		return
	}
	if message := s.canaries.stale(); message != "" {
		warning.AddWarning(ctx, "", message)
	}
}

// warnOfFeed warns a caller that is answered from the feed if it may be out of date.
func (s *storage) warnOfFeed(ctx context.Context) {
	if message := s.feed.stale(); message != "" {
		warning.AddWarning(ctx, "", message)
	}
}

// caller returns the user that a request is from, and the namespace that it is for.
func caller(ctx context.Context) (user.Info, string, error) {
	u, ok := request.UserFrom(ctx)
	if !ok {
		return nil, "", apierrors.NewInternalError(errors.New("the request has no user"))
	}
	namespace := request.NamespaceValue(ctx)
	if problems := validation.IsDNS1123Label(namespace); namespace != "" && len(problems) > 0 {
		// Such as "..", which would be another path on the way to the custom resources.
		return nil, "", apierrors.NewBadRequest(fmt.Sprintf("the namespace %q cannot be: %s", namespace, strings.Join(problems, "; ")))
	}
	return u, namespace, nil
}

// nameOf returns the name of the one server that a request is for, as Kubernetes
// authorizes it: a list or watch of one name is a request for that name.
func nameOf(ctx context.Context) string {
	if info, ok := request.RequestInfoFrom(ctx); ok {
		return info.Name
	}
	return ""
}
