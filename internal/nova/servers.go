// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	tenantv1alpha1 "hoststatus.dev/hoststatus/api/tenant/v1alpha1"
	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
)

// placed is what is read of a server's custom resource.
type placed struct {
	Metadata struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
		UID       string `json:"uid"`
	} `json:"metadata"`
	Spec struct {
		Host string `json:"host"`
	} `json:"spec"`
}

// listBrief serves GET /servers.
func (c *call) listBrief() (*answer, error) { return c.list("index", false) }

// listDetail serves GET /servers/detail.
func (c *call) listDetail() (*answer, error) { return c.list("detail", true) }

func (c *call) list(policy string, detail bool) (*answer, error) {
	q, err := parseListQuery(c.query, c.version)
	if err != nil {
		return nil, err
	}
	namespace, policy, err := c.scope(q, "os_compute_api:servers:"+policy)
	if err != nil {
		return nil, err
	}
	p := &pager{order: q.order, limit: q.limit}
	if err := c.collect(q, namespace, policy, detail, p); err != nil {
		return nil, err
	}
	page := p.page()
	e := newEncoder(len(page))
	e.begin("", '{')
	e.begin("servers", '[')
	for _, entry := range page {
		if detail {
			entry.detail(e, "", c.version, entry.where, c.links, false)
		} else {
			entry.brief(e, c.links)
		}
	}
	e.end(']')
	if len(page) > 0 && len(page) == q.limit {
		e.begin("servers_links", '[')
		e.begin("", '{')
		e.text("rel", "next")
		e.text("href", c.links.self()+"/"+c.resource+"?"+nextQuery(c.query, page[len(page)-1].Metadata.UID))
		e.end('}')
		e.end(']')
	}
	e.end('}')
	return ok(e.b), nil
}

// scope returns the namespace that a list is of, "" for all, and the policy by which it is
// refused.
func (c *call) scope(q *listQuery, policy string) (namespace, refusedBy string, err error) {
	switch {
	case q.project != "":
		return q.project, policy, nil
	case q.allTenants:
		return "", policy + ":get_all_tenants", nil
	case c.project == "":
		return "", "", noProject()
	}
	return c.project, policy, nil
}

// noProject is the answer to a request that has to be of a project, and is not.
func noProject() *fault {
	return badRequest("The project is not known: name it in the URL, as /v2.1/PROJECT, or use the token of a service account, whose namespace it is.")
}

// collect shows p the servers that q asks for.
func (c *call) collect(q *listQuery, namespace, policy string, detail bool, p *pager) error {
	// What a filter needs, or may not be asked for, is the same whether or not anything
	// matches.
	needsHosts := q.host != "" || q.byHost() || q.deleted
	if needsHosts {
		if err := c.mayReadHosts(namespace, q, policy); err != nil {
			return err
		}
	}
	if q.nothing {
		// Whether the caller may list is asked nevertheless.
		return c.denial(c.probe(tenantServers(namespace)), policy)
	}
	if q.marker != "" {
		after, err := c.findMarker(q, namespace, policy)
		if err != nil {
			return err
		}
		p.after = after
	}
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	hosts := &hostStream{}
	if detail || needsHosts {
		hosts = c.streamHosts(ctx, namespace, q.host)
		defer hosts.wait(cancel)
	}
	to := target{path: tenantServers(namespace), query: q.selector()}
	if !detail && !q.needsStatus() {
		to.accept = acceptMetadata
	}
	err := walk(ctx, c.kube, c.token, to, c.passWarnings, func(s *server) error {
		where, err := hosts.of(s)
		if err != nil {
			return err
		}
		if (q.host == "" || where.host == q.host) && q.match.matches(s) {
			p.offer(entry{s, where})
		}
		return nil
	})
	if q.hostStatus != "" && refused(err, http.StatusForbidden) {
		policy = "os_compute_api:servers:show:host_status"
	}
	return c.denial(err, policy)
}

// needsStatus reports whether more than the metadata of servers decides which are shown, and
// in which order.
func (q *listQuery) needsStatus() bool {
	m := &q.match
	return m.states != nil || m.vmStates != nil || m.taskStates != nil || m.powerStates != nil || m.addresses4 != nil || m.addresses6 != nil ||
		slices.ContainsFunc(q.order, func(k sortKey) bool { return k.name == sortState || k.name == sortPower })
}

// selector is the part of q that the owners' view can select by.
func (q *listQuery) selector() url.Values {
	var terms []string
	if q.uid != "" {
		terms = append(terms, tenantv1alpha1.UIDField+"="+q.uid)
	}
	if q.hostStatus != "" {
		terms = append(terms, tenantv1alpha1.HostStatusField+"="+q.hostStatus)
	}
	if len(terms) == 0 {
		return nil
	}
	return url.Values{"fieldSelector": {strings.Join(terms, ",")}}
}

// probe asks whether a collection may be listed, and for nothing of it.
func (c *call) probe(path []string) error {
	var list struct{}
	_, err := c.kube.read(c.ctx, c.token, target{path: path, query: url.Values{"limit": {"1"}}}, &list)
	return err
}

// mayReadHosts refuses what only callers may ask for who may read where servers are.
func (c *call) mayReadHosts(namespace string, q *listQuery, policy string) error {
	err := c.probe(computeServers(namespace))
	if !refused(err, http.StatusForbidden) {
		return c.denial(err, policy)
	}
	switch {
	case q.host != "":
		return forbidden("Policy doesn't allow os_compute_api:servers:allow_all_filters to be performed: servers cannot be filtered by host without the right to list servers.compute.hoststatus.dev.")
	case q.deleted:
		return forbidden("Only administrators may list deleted instances")
	}
	return forbidden("Only administrators can sort servers by host")
}

// findMarker returns the last server of the page before.
func (c *call) findMarker(q *listQuery, namespace, policy string) (*entry, error) {
	missing := badRequest("marker [%s] not found", q.marker)
	if !isUID(q.marker) {
		return nil, missing
	}
	s, err := c.byUID(namespace, strings.ToLower(q.marker))
	if err != nil {
		return nil, c.denial(err, policy)
	}
	if s == nil {
		return nil, missing
	}
	e := entry{server: s}
	if q.byHost() {
		// As the list does: who may list servers may not always get one.
		query := url.Values{"fieldSelector": {metav1.ObjectNameField + "=" + s.Metadata.Name}}
		err := c.walkHosts(c.ctx, s.Metadata.Namespace, query, nil, func(p *placed) error {
			e.where = placement{readable: true, host: p.Spec.Host}
			return nil
		})
		switch {
		case err != nil:
			return nil, c.denial(err, policy)
		case !e.where.readable:
			return nil, missing // It was deleted since it was read.
		}
	}
	return &e, nil
}

// byUID returns the server of a namespace, or of all if it is "", with this uid, nil if
// there is none.
func (c *call) byUID(namespace, uid string) (*server, error) {
	var list struct {
		Items []server `json:"items"`
	}
	header, err := c.kube.read(c.ctx, c.token, target{
		path: tenantServers(namespace), query: url.Values{"fieldSelector": {tenantv1alpha1.UIDField + "=" + uid}},
	}, &list)
	if err != nil {
		return nil, err
	}
	c.passWarnings(header)
	for i := range list.Items {
		if list.Items[i].Metadata.UID == uid {
			return &list.Items[i], nil
		}
	}
	return nil, nil
}

// show serves GET /servers/ID.
func (c *call) show() (*answer, error) {
	s, err := c.find(c.id)
	if err != nil {
		return nil, err
	}
	where, err := c.placement(s)
	if err != nil {
		return nil, err
	}
	e := &encoder{}
	e.begin("", '{')
	s.detail(e, "server", c.version, where, c.links, true)
	e.end('}')
	return ok(e.b), nil
}

// addresses serves GET /servers/ID/ips.
func (c *call) addresses() (*answer, error) {
	s, err := c.find(c.id)
	if err != nil {
		return nil, err
	}
	e := &encoder{}
	e.begin("", '{')
	s.addresses(e, false)
	e.end('}')
	return ok(e.b), nil
}

// find returns the server with an id that the caller may see: in its project, else in any.
func (c *call) find(id string) (*server, error) {
	missing := notFound("Instance %s could not be found.", id)
	if !isUID(id) {
		return nil, missing
	}
	scopes := []string{""}
	if c.project != "" {
		scopes = []string{c.project, ""}
	}
	for _, namespace := range scopes {
		s, err := c.byUID(namespace, strings.ToLower(id))
		switch {
		case refused(err, http.StatusForbidden):
		case err != nil:
			return nil, c.denial(err, "")
		case s != nil:
			return s, nil
		}
		if err != nil && c.project == "" {
			return nil, noProject()
		}
	}
	return nil, missing
}

// placement reads where a server is.
func (c *call) placement(s *server) (placement, error) {
	var p placed
	path := append(computeServers(s.Metadata.Namespace), s.Metadata.Name)
	_, err := c.kube.read(c.ctx, c.token, target{path: path}, &p)
	switch {
	case refused(err, http.StatusForbidden):
		return placement{}, nil
	case refused(err, http.StatusNotFound), err == nil && p.Metadata.UID != s.Metadata.UID:
		// It was deleted since it was read.
		return placement{}, notFound("Instance %s could not be found.", s.Metadata.UID)
	case err != nil:
		return placement{}, c.denial(err, "")
	}
	return placement{readable: true, host: p.Spec.Host}, nil
}

// hostStream brings where servers are, in the order in which kube-apiserver lists them, the
// same as that of the owners' view. So two lists of any length are joined with one element
// of each in memory.
type hostStream struct {
	rows <-chan *placed
	// begun is closed when it is known whether the caller may read them.
	begun    <-chan struct{}
	readable *bool
	err      *error
	done     *sync.WaitGroup

	last *placed
	// before is the key of the server that was asked for last.
	before string
}

// rowsBuffered is how many rows may wait for the other list.
const rowsBuffered = 64

// streamHosts begins to read where the servers of a namespace are, or only those on host if
// that is not "".
func (c *call) streamHosts(ctx context.Context, namespace, host string) *hostStream {
	rows, begun := make(chan *placed, rowsBuffered), make(chan struct{})
	s := &hostStream{rows: rows, begun: begun, readable: new(bool), err: new(error), done: &sync.WaitGroup{}}
	query := url.Values{}
	if host != "" {
		query.Set("fieldSelector", computev1alpha1.ServerHostField+"="+host)
	}
	s.done.Go(func() {
		defer close(rows)
		var once sync.Once
		begin := func() { once.Do(func() { close(begun) }) }
		defer begin()
		*s.err = c.walkHosts(ctx, namespace, query, func(http.Header) {
			*s.readable = true
			begin()
		}, func(p *placed) error {
			select {
			case rows <- p:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
	})
	return s
}

// The columns of servers.compute that name a server and its host.
var hostColumns = []string{"Name", "Host"}

// walkHosts calls each for each server of a namespace, or of all if it is "", with where it
// is. The table of one namespace has that in a tenth of the bytes, and takes kube-apiserver a
// third of the time; that of all does not name namespaces.
func (c *call) walkHosts(ctx context.Context, namespace string, query url.Values, begun func(http.Header), each func(*placed) error) error {
	to := target{path: computeServers(namespace), query: query}
	if namespace == "" {
		return walk(ctx, c.kube, c.token, to, begun, each)
	}
	to.accept = acceptTable
	query.Set("includeObject", "None")
	return c.kube.pages(ctx, c.token, to, begun, func(body io.Reader) (string, error) {
		return decodeTable(body, hostColumns, func(cells []string) error {
			p := &placed{}
			p.Metadata.Namespace, p.Metadata.Name, p.Spec.Host = namespace, cells[0], cells[1]
			return each(p)
		})
	})
}

// wait ends the stream.
func (h *hostStream) wait(cancel context.CancelFunc) {
	cancel()
	h.done.Wait()
}

var errOrder = errors.New("the lists of servers are not in the same order")

// of returns where a server is. It is asked in the order of the lists.
func (h *hostStream) of(s *server) (placement, error) {
	if h.rows == nil {
		return placement{}, nil
	}
	<-h.begun
	if !*h.readable {
		for range h.rows { // It ends with the error.
		}
		if refused(*h.err, http.StatusForbidden) {
			return placement{}, nil
		}
		return placement{}, *h.err
	}
	key := orderKey(s.Metadata.Namespace, s.Metadata.Name)
	if key < h.before {
		return placement{}, errOrder
	}
	h.before = key
	for h.last == nil || orderKey(h.last.Metadata.Namespace, h.last.Metadata.Name) < key {
		row, more := <-h.rows
		if !more {
			h.last = nil
			return placement{readable: true}, *h.err
		}
		h.last = row
	}
	where := placement{readable: true}
	// A table has no uids. The names are those of the same server, unless it was made again
	// between the two lists.
	if last := &h.last.Metadata; last.UID == s.Metadata.UID || last.UID == "" && orderKey(last.Namespace, last.Name) == key {
		where.host = h.last.Spec.Host
	}
	return where, nil
}

// orderKey is by what etcd, and so kube-apiserver, orders the objects of a kind.
func orderKey(namespace, name string) string { return namespace + "/" + name }
