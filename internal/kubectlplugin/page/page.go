// SPDX-License-Identifier: Apache-2.0

// Package page serves a page of a plugin to the browser of whoever runs the plugin, on this
// machine only, and reads from the API server for it with that person's rights. It passes on
// what the page needs and nothing else, it writes nothing, and no credential leaves it.
package page

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"

	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

const (
	// maxPort is the highest TCP port.
	maxPort = 65535
	// headerTimeout is how long a browser may take to send a request.
	headerTimeout = 5 * time.Second
	// maxHeader is how many bytes a request's header may have.
	maxHeader = 32 << 10
	// idleTimeout is how long a connection without a request is kept.
	idleTimeout = time.Minute
	// tokenBytes is how much chance is in the address: nobody guesses it.
	tokenBytes = 32
)

// Options are the flags of the verb page.
type Options struct {
	// Port is that of the page on 127.0.0.1; 0 is any free one.
	Port int
	// Open opens the page in the browser.
	Open bool
}

// AddFlags adds the flags to a verb.
func (o *Options) AddFlags(cmd *cobra.Command) {
	cmd.Flags().IntVar(&o.Port, "port", 0, "Port of 127.0.0.1 on which the page is; 0 means any free one.")
	cmd.Flags().BoolVar(&o.Open, "open", false, "Open the page in your browser. The address is printed in any case.")
}

// Validate returns an error that names the flag.
func (o *Options) Validate() error {
	if o.Port < 0 || o.Port > maxPort {
		return kubectlplugin.UsageError("--port: %d is not a port; use 1 to %d, or 0 for any free one", o.Port, maxPort)
	}
	return nil
}

// Read is a resource of the API server that a page may list and watch.
type Read struct {
	Group, Version, Resource string
	// Namespace is the one whose objects are read; empty for all.
	Namespace string
}

// Path is that of the resource, at the API server as below api/ of the page.
func (r Read) Path() string {
	path := "apis/" + r.Group + "/" + r.Version
	if r.Namespace != "" {
		path += "/namespaces/" + r.Namespace
	}
	return path + "/" + r.Resource
}

// Answer is what the plugin itself knows: a text, or a value that becomes JSON. An error goes
// to the page with the status that fits its exit code.
type Answer func(ctx context.Context, query url.Values) (any, error)

// Site is a page, and what it may read.
type Site struct {
	// Assets are the files of the page, besides those that all pages share; index.html has
	// what goes into their frame, and is what the browser opens.
	Assets fs.FS
	// Start is what the page knows from the beginning, beside the table of statuses. It is
	// served as start.json.
	Start map[string]any
	// Reads are what is passed on to the API server.
	Reads []Read
	// Answers are the plugin's own, by their names in the page's folder.
	Answers map[string]Answer
}

// Serve serves a site until ctx ends, which is no error. It prints the page's address as the
// only line of standard output.
func Serve(ctx context.Context, p *kubectlplugin.Plugin, config *rest.Config, site Site, o *Options) error {
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(o.Port)))
	if err != nil {
		return fmt.Errorf("--port: the page cannot be served on port %d of 127.0.0.1; name another port, or 0 for any free one (%w)", o.Port, err)
	}
	defer func() { _ = listener.Close() }()
	token, err := newToken()
	if err != nil {
		return err
	}
	handler, err := newHandler(site, config, token, listener.Addr().String())
	if err != nil {
		return err
	}
	address := "http://" + listener.Addr().String() + "/" + token + "/"
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		// What a browser does wrong is answered to it, and is no news for a terminal.
		ErrorLog: log.New(io.Discard, "", 0),
		// A watch ends with the plugin.
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	_, _ = fmt.Fprintln(p.Out, address)
	_, _ = fmt.Fprintln(p.ErrOut, "The page is there until Ctrl-C. Keep its address to yourself: whoever on this machine has it reads with your rights.")
	if o.Open {
		remove, err := openBrowser(ctx, address)
		if err != nil {
			p.Warn("--open: no browser was opened; open the address yourself (%v)", err)
		}
		defer remove()
	}
	select {
	case err = <-served:
	case <-ctx.Done():
		err = server.Close()
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// newToken is the secret part of an address.
func newToken() (string, error) {
	random := make([]byte, tokenBytes)
	if _, err := rand.Read(random); err != nil {
		return "", fmt.Errorf("making the page's address: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(random), nil
}
