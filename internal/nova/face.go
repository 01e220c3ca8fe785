// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/utils/clock"

	"hoststatus.dev/hoststatus/internal/fairqueue"
)

// face answers the clients.
type face struct {
	options *Options
	kube    *kube
	queue   *fairqueue.Queue[caller]
	clock   clock.PassiveClock
	log     logr.Logger
	// complaints are the failures that are logged.
	complaints *complaints
	// secure is set if it is reached by TLS.
	secure bool
}

// caller is whose requests are counted together: the hash of a token.
type caller = [sha256.Size]byte

func newFace(options *Options, k *kube, c clock.PassiveClock, log logr.Logger) *face {
	return &face{
		options: options, kube: k, clock: c, log: log, secure: !options.PlainHTTP,
		complaints: &complaints{log: log, clock: c},
		queue: fairqueue.New[caller](fairqueue.Limits{
			Seats: options.MaxRequests, SeatsPerCaller: options.MaxRequestsPerToken,
			WaitingPerCaller: options.MaxWaitingPerToken, MaxWait: options.RequestTimeout,
		}),
	}
}

// reply is an answer on its way out, and what it is counted by.
type reply struct {
	answer *answer
	// route is the path as metrics have it.
	route string
	// version is what the headers name, "" if they name none.
	version  string
	warnings []string
	// anonymous is set for the list of versions, which has no request id.
	anonymous bool
}

// The routes of metrics that are not in routes.
const (
	routeVersions = "versions"
	routeIdentity = "identity"
	routeImage    = "image"
	routeOther    = "other"
)

// ServeHTTP implements http.Handler.
func (f *face) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), f.options.RequestTimeout)
	defer cancel()
	reply, seat := f.reply(ctx, w, r)
	// The seat is kept until the answer is sent: an answer can be large, and its client slow.
	defer seat.Release()
	a := reply.answer
	header := w.Header()
	if !reply.anonymous {
		id := "req-" + string(uuid.NewUUID())
		header.Set("X-Openstack-Request-Id", id)
		header.Set("X-Compute-Request-Id", id)
	}
	if reply.version != "" {
		header.Set(headerVersion, serviceCompute+" "+reply.version)
		header.Set(headerLegacyVersion, reply.version)
		header.Add("Vary", headerVersion)
		header.Add("Vary", headerLegacyVersion)
	}
	for name, values := range a.header {
		for _, value := range values {
			header.Add(name, value)
		}
	}
	for _, warning := range reply.warnings {
		header.Add(headerWarning, warning)
	}
	if a.contentType != "" {
		header.Set("Content-Type", a.contentType)
	}
	header.Set("Content-Length", strconv.Itoa(len(a.body)))
	w.WriteHeader(a.code)
	if r.Method != http.MethodHead {
		send(w, a.body, seat)
	}
	version := reply.version
	if a.code == http.StatusNotAcceptable || version == "" {
		version = noVersion // What clients ask for has no bounds.
	}
	requests.WithLabelValues(reply.route, strconv.Itoa(a.code), version).Inc()
}

// send sends a body. A client that takes it slowly loses it when another caller waits for its
// seat: the clients of a few tokens could hold all seats by not reading.
func send(w http.ResponseWriter, body []byte, seat *fairqueue.Seat[caller]) {
	sent := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		look := time.NewTicker(slowAfter)
		defer look.Stop()
		for {
			select {
			case <-sent:
				return
			case <-look.C:
			}
			if seat.Wanted() {
				cutAnswers.WithLabelValues().Inc()
				_ = http.NewResponseController(w).SetWriteDeadline(time.Now()) // Write fails.
				return
			}
		}
	})
	_, _ = w.Write(body) // Whoever has gone needs no answer.
	close(sent)
	watching.Wait()
}

// reply makes the answer to a request, whose seat is nil if it needs none.
func (f *face) reply(ctx context.Context, w http.ResponseWriter, r *http.Request) (out *reply, seat *fairqueue.Seat[caller]) {
	out = &reply{route: routeOther}
	fail := func(err error) {
		problem := asFault(err)
		out.answer = &answer{code: problem.code, header: problem.header}
		out.answer.body, out.answer.contentType = problem.body()
		if problem.form == formUnrouted || problem.form == formSize {
			out.version = ""
		}
	}
	succeed := func(a *answer, err error) {
		if err != nil {
			fail(err)
			return
		}
		out.answer = a
		if a.contentType == "" && len(a.body) > 0 {
			a.contentType = contentTypeJSON
		}
	}
	body, err := f.readBody(w, r)
	if err != nil {
		fail(err)
		return out, nil
	}
	base := f.base(r)
	path, ok := elements(r.URL)
	if !ok {
		fail(unrouted())
		return out, nil
	}
	switch "/" + path[0] {
	case "/":
		if len(path) > 1 {
			fail(unrouted())
			return out, nil
		}
		out.route, out.anonymous = routeVersions, true
		succeed(&answer{code: http.StatusOK, body: versionList(base)}, nil)
		return out, nil
	case pathIdentity:
		out.route = routeIdentity
		succeed(f.serveIdentity(r, base, path[1:], body))
		return out, nil
	case pathImage:
		out.route = routeImage
		succeed(f.serveImage(r, base, path[1:]))
		return out, nil
	}
	at, ok := locate(path)
	if !ok {
		fail(unrouted())
		return out, nil
	}
	c := &call{face: f, ctx: ctx, request: r, body: body, links: links{base: base, version: at.version.element, project: at.project}}
	if len(at.rest) == 0 {
		succeed(c.serveVersion(at, out))
		return out, nil
	}
	if c.token, ok = tokenOf(r.Header, headerToken); !ok {
		fail(unauthorized(base))
		return out, nil
	}
	found, id, ok := find(r.Method, at.rest)
	switch {
	case !ok && r.Method == http.MethodOptions && known(at.rest):
		out.anonymous = true
		succeed(&answer{code: http.StatusOK}, nil)
		return out, nil
	case !ok:
		fail(unrouted())
		return out, nil
	}
	out.route = found.path
	c.route, c.id, c.resource = found.path, id, joined(at.rest)
	if c.version, out.version, err = at.version.negotiate(r.Header); err != nil {
		fail(err)
		return out, nil
	}
	if c.query, err = url.ParseQuery(r.URL.RawQuery); err != nil {
		fail(badRequest("The query of the URL is malformed."))
		return out, nil
	}
	if c.project = at.project; c.project == "" && f.options.ProjectOfServiceAccount {
		c.project = c.token.claims().namespace
	}
	if seat, err = f.queue.Acquire(ctx, c.token.hash()); err != nil {
		fail(busy(err))
		return out, nil
	}
	succeed(found.serve(c))
	out.warnings = c.warnings
	return out, seat
}

// busy is the answer to a request that got no turn.
func busy(err error) *fault {
	if errors.Is(err, fairqueue.ErrFull) {
		return overLimit("Too many requests with this token at once; wait for the answers to some of them.")
	}
	return overLimit("Too many requests at once; try again.")
}

// negotiate does so for one version of the API: only the newer one has microversions.
func (a apiVersion) negotiate(header http.Header) (v microversion, echo string, err error) {
	if a.legacy {
		return minVersion, "", nil
	}
	return negotiate(header)
}

// serveVersion serves the document of a version. Below a project there is none, as far as
// clients know; but a token of just that project is answered, which saves its client the
// way back.
func (c *call) serveVersion(at place, out *reply) (*answer, error) {
	out.route = routeVersions
	if c.request.Method != http.MethodGet && c.request.Method != http.MethodHead {
		return nil, unrouted()
	}
	if t, ok := tokenOf(c.request.Header, headerToken); ok && at.project != "" && t.claims().namespace != at.project {
		return nil, unrouted()
	}
	var err error
	if _, out.version, err = at.version.negotiate(c.request.Header); err != nil {
		return nil, err
	}
	return &answer{code: http.StatusOK, body: at.version.document(c.links.base)}, nil
}

// readBody reads the body of a request that may have one, before it takes a turn, so that a
// slow client keeps nobody waiting.
func (f *face) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.Method != http.MethodPut && r.Method != http.MethodPost {
		return nil, nil
	}
	limit := int64(f.options.MaxBodyBytes)
	if r.ContentLength > limit {
		w.Header().Set("Connection", "close") // Nobody reads it.
		return nil, tooLarge()
	}
	content, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, tooLarge()
	case err != nil:
		return nil, badRequest("The body has not arrived in time, or not whole.")
	}
	return content, nil
}

// hostPattern is what a Host header may be, since links repeat it.
var hostPattern = regexp.MustCompile(`^(\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z._-]{1,253})(:[0-9]{1,5})?$`)

// base returns the URL of this server as the client knows it, without a slash at its end.
func (f *face) base(r *http.Request) string {
	if f.options.PublicURL != "" {
		return f.options.PublicURL
	}
	scheme := "http"
	if f.secure {
		scheme = "https"
	}
	if !hostPattern.MatchString(r.Host) {
		return ""
	}
	return scheme + "://" + r.Host
}

// joined returns elements of a path as they stand in links.
func joined(elements []string) string {
	var out []byte
	for i, element := range elements {
		if i > 0 {
			out = append(out, '/')
		}
		out = append(out, url.PathEscape(element)...)
	}
	return string(out)
}
