// SPDX-License-Identifier: Apache-2.0

package nova

import (
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/util/uuid"
)

// Clients that are configured with a cloud ask an identity service first: what is served
// here hands them back the token that they bring, with the address of the compute API
// beside it. It checks no token, and keeps none: whether one is good kube-apiserver decides
// when it is used.

const (
	pathIdentity = "/identity"
	pathImage    = "/image"

	identityVersion = "v3.14"
	identityUpdated = "2020-04-07T00:00:00Z"
	// opaqueLifetime is for how long clients keep a token that does not say when it expires.
	opaqueLifetime = time.Hour
	// timeFormat is that of the identity API.
	timeFormat = "2006-01-02T15:04:05.000000Z"
	region     = "RegionOne"
)

// serveIdentity serves what is below /identity; rest are the elements of the path after it.
func (f *face) serveIdentity(r *http.Request, base string, rest []string, body []byte) (*answer, error) {
	if len(rest) > 1 && rest[len(rest)-1] == "" {
		rest = rest[:len(rest)-1]
	}
	tokens := []string{"v3", "auth", "tokens"}
	switch {
	case len(rest) == 0 || rest[0] == "":
		a := ok(identityVersions(base))
		a.code = http.StatusMultipleChoices
		return a, nil
	case r.Method == http.MethodGet && slices.Equal(rest, tokens[:1]):
		return ok(identityDocument(base)), nil
	case r.Method == http.MethodPost && slices.Equal(rest, tokens):
		return f.issueToken(base, body)
	case (r.Method == http.MethodGet || r.Method == http.MethodHead) && slices.Equal(rest, tokens):
		return f.describeToken(r.Header, base)
	case rest[0] != "v3":
		return nil, &fault{code: http.StatusNotFound, message: "The resource could not be found.", form: formIdentity}
	}
	// Clients that look a project up by its name take the name itself where they may not.
	return nil, &fault{code: http.StatusForbidden, message: "You are not authorized to perform the requested action: only tokens are handed out here.", form: formIdentity}
}

func identityLinks(e *encoder, base string) {
	e.text("id", identityVersion)
	e.text("status", "stable")
	e.text("updated", identityUpdated)
	e.begin("links", '[')
	selfLink(e, base+pathIdentity+"/v3/")
	e.end(']')
	e.begin("media-types", '[')
	e.begin("", '{')
	e.text("base", contentTypeJSON)
	e.text("type", "application/vnd.openstack.identity-v3+json")
	e.end('}')
	e.end(']')
}

func identityVersions(base string) []byte {
	e := &encoder{}
	e.begin("", '{')
	e.begin("versions", '{')
	e.begin("values", '[')
	e.begin("", '{')
	identityLinks(e, base)
	e.end('}')
	e.end(']')
	e.end('}')
	e.end('}')
	return e.b
}

func identityDocument(base string) []byte {
	e := &encoder{}
	e.begin("", '{')
	e.begin("version", '{')
	identityLinks(e, base)
	e.end('}')
	e.end('}')
	return e.b
}

// authRequest is the body of POST /v3/auth/tokens, as far as it matters.
type authRequest struct {
	Auth struct {
		Identity struct {
			Methods  []string `json:"methods"`
			Password struct {
				User struct {
					Password string `json:"password"`
				} `json:"user"`
			} `json:"password"`
			Token struct {
				ID string `json:"id"`
			} `json:"token"`
			ApplicationCredential struct {
				Secret string `json:"secret"`
			} `json:"application_credential"`
		} `json:"identity"`
		// Scope is an object, or the text unscoped.
		Scope json.RawMessage `json:"scope"`
	} `json:"auth"`
}

// The ways to bring a token.
const (
	methodPassword              = "password"
	methodToken                 = "token"
	methodApplicationCredential = "application_credential"
)

// parseAuth returns the token that a client brings, how it does so, and the project that it
// asks for, "" if it asks for none.
func parseAuth(content []byte) (t token, method, project string, err error) {
	var request authRequest
	if err := json.Unmarshal(content, &request); err != nil {
		return t, "", "", identityFault("the body must be the JSON of an authentication request")
	}
	identity := &request.Auth.Identity
	if len(identity.Methods) != 1 {
		return t, "", "", identityFault("auth.identity.methods: name one of password, token and application_credential")
	}
	method = identity.Methods[0]
	switch method {
	case methodPassword:
		t.secret = identity.Password.User.Password
	case methodToken:
		t.secret = identity.Token.ID
	case methodApplicationCredential:
		t.secret = identity.ApplicationCredential.Secret
	default:
		return t, "", "", identityFault("auth.identity.methods: use password, token or application_credential, with a Kubernetes bearer token as the password, the token or the secret")
	}
	var scope struct {
		Project struct {
			ID   string `json:"id"`
			Name string `json:"name"`
		} `json:"project"`
	}
	_ = json.Unmarshal(request.Auth.Scope, &scope) // Any other scope has no project.
	project = scope.Project.ID
	if project == "" {
		project = scope.Project.Name
	}
	if project != "" && !isProject(project) {
		return t, "", "", identityFault("auth.scope.project: a project is a namespace, and no namespace can have this name")
	}
	return t, method, project, nil
}

func identityFault(message string) *fault {
	return &fault{code: http.StatusBadRequest, message: message, form: formIdentity}
}

func (f *face) issueToken(base string, body []byte) (*answer, error) {
	t, method, project, err := parseAuth(body)
	if err != nil {
		return nil, err
	}
	if !sendable(t.secret) {
		return nil, unauthorized(base)
	}
	if words.Has(project) && (!f.options.ProjectOfServiceAccount || t.claims().namespace != project) {
		return nil, identityFault("auth.scope.project: a URL cannot name this project, since the name is a word of the compute API; bring a token of a service account of that namespace")
	}
	a := f.tokenAnswer(base, t, method, project)
	a.code = http.StatusCreated
	return a, nil
}

func (f *face) describeToken(header http.Header, base string) (*answer, error) {
	if _, ok := tokenOf(header, headerToken); !ok {
		return nil, unauthorized(base)
	}
	subject, ok := tokenOf(header, headerSubjectToken)
	if !ok {
		return nil, identityFault("X-Subject-Token: name one token")
	}
	return f.tokenAnswer(base, subject, methodToken, ""), nil
}

// tokenAnswer describes a token to the client that has brought it.
func (f *face) tokenAnswer(base string, t token, method, project string) *answer {
	says := t.claims()
	if project == "" && f.options.ProjectOfServiceAccount {
		project = says.namespace
	}
	now := f.clock.Now().UTC()
	if says.expires.IsZero() {
		says.expires = now.Add(opaqueLifetime)
	}
	if says.issued.IsZero() {
		says.issued = now
	}
	user := says.subject
	if user == "" {
		user = "unknown"
	}
	e := &encoder{}
	e.begin("", '{')
	e.begin("token", '{')
	e.begin("methods", '[')
	e.text("", method)
	e.end(']')
	named(e, "user", user, true)
	if project != "" {
		named(e, "project", project, true)
		e.begin("roles", '[')
		named(e, "", "member", false)
		e.end(']')
	}
	e.boolean("is_domain", false)
	e.begin("audit_ids", '[')
	e.text("", string(uuid.NewUUID()))
	e.end(']')
	e.text("issued_at", says.issued.Format(timeFormat))
	e.text("expires_at", says.expires.Format(timeFormat))
	catalog(e, base, project)
	e.end('}')
	e.end('}')
	a := ok(e.b)
	a.header = http.Header{headerSubjectToken: {t.secret}, "Cache-Control": {"no-store"}, "Vary": {headerToken}}
	return a
}

// named appends something that has its name as its id.
func named(e *encoder, key, name string, inDomain bool) {
	e.begin(key, '{')
	e.text("id", name)
	e.text("name", name)
	if inDomain {
		e.begin("domain", '{')
		e.text("id", "default")
		e.text("name", "Default")
		e.end('}')
	}
	e.end('}')
}

// catalog appends where the services are. Clients want one of images before they show a
// server.
func catalog(e *encoder, base, project string) {
	compute := base + "/" + v21.element
	if project != "" && !words.Has(project) { // A word is not read as a project: the token names it.
		compute += "/" + project
	}
	e.begin("catalog", '[')
	for _, service := range []struct{ kind, name, url string }{
		{serviceCompute, "nova", compute},
		{"identity", "keystone", base + pathIdentity},
		{"image", "glance", base + pathImage},
	} {
		e.begin("", '{')
		e.text("id", service.kind)
		e.text("type", service.kind)
		e.text("name", service.name)
		e.begin("endpoints", '[')
		for _, kind := range []string{"public", "internal", "admin"} {
			e.begin("", '{')
			e.text("id", service.kind+"-"+kind)
			e.text("interface", kind)
			e.text("region", region)
			e.text("region_id", region)
			e.text("url", service.url)
			e.end('}')
		}
		e.end(']')
		e.end('}')
	}
	e.end(']')
}

// serveImage serves what is below /image: an image service without images.
func (f *face) serveImage(r *http.Request, base string, rest []string) (*answer, error) {
	if len(rest) > 1 && rest[len(rest)-1] == "" {
		rest = rest[:len(rest)-1]
	}
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
	case len(rest) == 0 || rest[0] == "":
		a := ok(imageVersions(base))
		a.code = http.StatusMultipleChoices
		return a, nil
	case slices.Equal(rest, []string{"v2"}):
		return ok(imageVersions(base)), nil
	case slices.Equal(rest, []string{"v2", "images"}):
		if _, ok := tokenOf(r.Header, headerToken); !ok {
			return nil, unauthorized(base)
		}
		return ok([]byte(`{"images":[],"first":"/v2/images","schema":"/v2/schemas/images"}`)), nil
	}
	return nil, unrouted()
}

func imageVersions(base string) []byte {
	e := &encoder{}
	e.begin("", '{')
	e.begin("versions", '[')
	e.begin("", '{')
	e.text("id", "v2.9")
	e.text("status", statusCurrent)
	e.begin("links", '[')
	selfLink(e, base+pathImage+"/v2/")
	e.end(']')
	e.end('}')
	e.end(']')
	e.end('}')
	return e.b
}
