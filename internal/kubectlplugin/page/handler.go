// SPDX-License-Identifier: Apache-2.0

package page

import (
	"bytes"
	"context"
	"crypto/subtle"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"path"
	"strings"
	"time"

	"k8s.io/client-go/rest"

	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

// shared are the files of all pages, in their folder shared/.
//
//go:embed shared
var shared embed.FS

// frame is what is around the content of each page. The page's own index.html defines that
// content.
//
//go:embed frame.html
var frame string

const (
	// maxOpen is how many requests to the API server may be open at once, by all tabs together.
	// A tab has one watch and two reads at most.
	maxOpen = 32
	// answerTimeout is how long the plugin itself may take to answer.
	answerTimeout = 30 * time.Second
	// indexFile is what the browser opens.
	indexFile = "index.html"
	// apiFolder is what is passed on to the API server.
	apiFolder = "api/"
)

// headers are those of every answer. The page loads nothing from elsewhere, is part of no
// other page, and makes no markup of text.
var headers = map[string]string{
	"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
	"Cache-Control":                "no-store",
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Permissions-Policy":           "camera=(), geolocation=(), microphone=()",
	"Referrer-Policy":              "no-referrer",
	"X-Content-Type-Options":       "nosniff",
	"X-Frame-Options":              "DENY",
}

// contentTypes are those of the files that pages have.
var contentTypes = map[string]string{
	".css":  "text/css; charset=utf-8",
	".html": "text/html; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".json": "application/json",
	".svg":  "image/svg+xml",
}

// handler answers the browser.
type handler struct {
	// prefix is the secret folder of the page, with slashes.
	prefix string
	// hosts are the names by which this machine is addressed.
	hosts map[string]bool
	// files are what is served, by their names in the folder.
	files   map[string][]byte
	answers map[string]Answer
	proxy   *proxy
	// open has a place for each request that is passed on or that the plugin answers.
	open chan struct{}
}

func newHandler(site Site, config *rest.Config, token, address string) (*handler, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("the page's address: %w", err)
	}
	h := &handler{
		prefix: "/" + token + "/", hosts: map[string]bool{"127.0.0.1:" + port: true, "localhost:" + port: true},
		files: map[string][]byte{}, answers: site.Answers, open: make(chan struct{}, maxOpen),
	}
	for _, files := range []fs.FS{shared, site.Assets} {
		if err := h.take(files); err != nil {
			return nil, err
		}
	}
	if h.files[indexFile], err = framed(h.files[indexFile]); err != nil {
		return nil, err
	}
	start := map[string]any{"statuses": statuses()}
	maps.Copy(start, site.Start)
	if h.files["start.json"], err = json.Marshal(start); err != nil {
		return nil, fmt.Errorf("encoding what the page begins with: %w", err)
	}
	h.proxy, err = newProxy(config, site.Reads)
	return h, err
}

// take adds the files that have a content type.
func (h *handler) take(files fs.FS) error {
	return fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || contentTypes[path.Ext(name)] == "" {
			return err
		}
		h.files[name], err = fs.ReadFile(files, name)
		return err
	})
}

// framed is a page with what is around it.
func framed(content []byte) ([]byte, error) {
	page, err := template.New("frame").Parse(frame)
	if err == nil {
		_, err = page.New("content").Parse(string(content))
	}
	var out bytes.Buffer
	if err == nil {
		err = page.Execute(&out, nil)
	}
	if err != nil {
		return nil, fmt.Errorf("making %s: %w", indexFile, err)
	}
	return out.Bytes(), nil
}

// refusal is why a request is not answered.
type refusal struct {
	code int
	why  string
}

// nothingHere is also the answer to a wrong token, and to one that is nearly right.
var nothingHere = &refusal{http.StatusNotFound, "there is nothing here"}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for name, value := range headers {
		w.Header().Set(name, value)
	}
	name, no := h.check(r)
	if no == nil {
		no = h.serve(w, r, name)
	}
	if no == nil {
		return
	}
	if no.code == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", http.MethodGet)
	}
	http.Error(w, no.why, no.code)
}

// check returns what a request is for, as a name in the page's folder, or why it is refused.
func (h *handler) check(r *http.Request) (name string, no *refusal) {
	// A page from elsewhere can have its own name point to this machine, but then it comes with
	// that name.
	if !h.hosts[r.Host] {
		return "", &refusal{http.StatusForbidden, "the page has another address: use the one that kubectl printed"}
	}
	// The path counts as it was sent: what has to be decoded or cleaned first is none of ours.
	sent, _, _ := strings.Cut(r.RequestURI, "?")
	if len(sent) < len(h.prefix) || subtle.ConstantTimeCompare([]byte(sent[:len(h.prefix)]), []byte(h.prefix)) != 1 {
		return "", nothingHere
	}
	name = sent[len(h.prefix):]
	if name == "" {
		name = indexFile
	}
	if r.Method != http.MethodGet {
		return "", &refusal{http.StatusMethodNotAllowed, "only GET is possible: this page reads, and writes nothing"}
	}
	if origin := r.Header.Get("Origin"); origin != "" && origin != "http://"+r.Host {
		return "", &refusal{http.StatusForbidden, "another page may not read here"}
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
	default:
		// A link may lead here, if whoever made it has the address; nothing else may.
		if name != indexFile || r.Header.Get("Sec-Fetch-Mode") != "navigate" || r.Header.Get("Sec-Fetch-Dest") != "document" {
			return "", &refusal{http.StatusForbidden, "another page may not read here"}
		}
	}
	return name, nil
}

// serve answers a request that has the right address.
func (h *handler) serve(w http.ResponseWriter, r *http.Request, name string) *refusal {
	if body, ok := h.files[name]; ok {
		w.Header().Set("Content-Type", contentTypes[path.Ext(name)])
		_, _ = w.Write(body)
		return nil
	}
	resource, passesOn := strings.CutPrefix(name, apiFolder)
	answer := h.answers[name]
	if !passesOn && answer == nil {
		return nothingHere
	}
	select {
	case h.open <- struct{}{}:
		defer func() { <-h.open }()
	default:
		return &refusal{http.StatusServiceUnavailable, "too many requests are open at once; close other tabs of this page"}
	}
	if passesOn {
		return h.proxy.serve(w, r, resource)
	}
	return h.answer(w, r, answer)
}

// answer is what the plugin itself knows.
func (h *handler) answer(w http.ResponseWriter, r *http.Request, answer Answer) *refusal {
	ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
	defer cancel()
	value, err := answer(ctx, r.URL.Query())
	if err != nil {
		return &refusal{codeOf(err), kubectlplugin.CleanLines(err.Error())}
	}
	contentType := "text/plain; charset=utf-8"
	body, isText := value.(string)
	if !isText {
		encoded, err := json.Marshal(value)
		if err != nil {
			return &refusal{http.StatusInternalServerError, fmt.Sprintf("encoding the answer: %v", err)}
		}
		contentType, body = contentTypes[".json"], string(encoded)
	}
	w.Header().Set("Content-Type", contentType)
	_, _ = w.Write([]byte(body))
	return nil
}

// codeOf is the HTTP status that says the same as an exit code.
func codeOf(err error) int {
	switch code := kubectlplugin.CodeOf(err); {
	case errors.Is(err, context.DeadlineExceeded):
		return http.StatusGatewayTimeout
	case code == kubectlplugin.ExitNotFound:
		return http.StatusNotFound
	case code == kubectlplugin.ExitUsage:
		return http.StatusBadRequest
	default:
		return http.StatusBadGateway
	}
}
