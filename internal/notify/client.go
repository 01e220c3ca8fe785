// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/go-logr/logr"
)

const (
	// maxAnswer is how much is read of an answer that nobody needs.
	maxAnswer = 16 << 10
	// maxToken is how long a token may be.
	maxToken = 64 << 10
	// idleTimeout is how long a connection is kept that is not used: longer than an
	// Alertmanager goes without a resend by default.
	idleTimeout = 90 * time.Second
	// dialTimeout is how long a connection may take, and a handshake.
	dialTimeout = 5 * time.Second
)

// client asks one sink.
type client struct {
	http      *http.Client
	tokenFile string
	timeout   time.Duration
}

// newClient makes one. The files of s must be good now.
func newClient(s *SinkConfig, userAgent string, log logr.Logger) (*client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: s.TLS.ServerName}
	if s.TLS.CertFile != "" {
		load := func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(s.TLS.CertFile, s.TLS.KeyFile)
			if err != nil {
				return nil, fmt.Errorf("tls.certFile and tls.keyFile: %w", err)
			}
			return &pair, nil
		}
		if _, err := load(); err != nil {
			return nil, err
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	c := &client{tokenFile: s.BearerTokenFile, timeout: time.Duration(s.TimeoutSeconds) * time.Second}
	if _, err := c.token(); err != nil {
		return nil, err
	}
	parallel := 1
	if s.CloudEvents != nil {
		parallel = s.CloudEvents.Parallel
	}
	plain := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    dialTimeout,
		MaxIdleConnsPerHost:    parallel,
		MaxConnsPerHost:        parallel + 1,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxAnswer,
		ForceAttemptHTTP2:      true,
	}
	var transport http.RoundTripper = plain
	if s.TLS.CAFile != "" {
		var err error
		if transport, err = trust(s.TLS.CAFile, plain, log); err != nil {
			return nil, err
		}
	}
	c.http = &http.Client{
		Transport: &agent{userAgent, transport},
		// A token must go nowhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// agent sets the header User-Agent.
type agent struct {
	name string
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (a *agent) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("User-Agent", a.name)
	return a.next.RoundTrip(r)
}

// token reads the token, "" if the sink needs none.
func (c *client) token() (string, error) {
	if c.tokenFile == "" {
		return "", nil
	}
	file, err := os.Open(c.tokenFile)
	if err != nil {
		return "", fmt.Errorf("bearerTokenFile: %w", err)
	}
	defer func() { _ = file.Close() }()
	content, err := io.ReadAll(io.LimitReader(file, maxToken))
	if err != nil {
		return "", fmt.Errorf("bearerTokenFile: %w", err)
	}
	token := strings.TrimSpace(string(content))
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("bearerTokenFile: %s must hold one token and nothing else", c.tokenFile)
	}
	return token, nil
}

// do sends a request, and passes the body of an answer that is a success to read, if it is set.
func (c *client) do(ctx context.Context, request *http.Request, read func(io.Reader) error) error {
	token, err := c.token()
	if err != nil {
		return err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	response, err := c.http.Do(request.WithContext(ctx))
	if err == nil && ctx.Err() != nil {
		// What comes after the deadline is no answer: a server in Go whose handler gives up once
		// its client has gone still sends 200, and the transport may pass that on.
		_ = response.Body.Close()
		err = ctx.Err()
	}
	var withURL *url.Error
	if errors.As(err, &withURL) {
		err = withURL.Err // A URL can hold a secret, as the addresses of many chat services do.
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer within %s", c.timeout)
	case err != nil:
		return err
	}
	defer func() {
		_, _ = io.CopyN(io.Discard, response.Body, maxAnswer) // So that the connection can be used again.
		_ = response.Body.Close()
	}()
	if response.StatusCode >= 200 && response.StatusCode < 300 {
		if read != nil {
			return read(response.Body)
		}
		return nil
	}
	return &answerError{code: response.StatusCode, retryAfter: retryAfter(response.Header)}
}

// answerError is an answer that is no success.
type answerError struct {
	code       int
	retryAfter time.Duration
}

// Error implements error.
func (e *answerError) Error() string {
	switch {
	case e.code >= 300 && e.code < 400:
		return fmt.Sprintf("it answers %d, a redirect, which is not followed: a token must go nowhere else; set the URL that it leads to", e.code)
	case e.code == http.StatusUnauthorized || e.code == http.StatusForbidden:
		return fmt.Sprintf("it answers %d; check bearerTokenFile and tls.certFile", e.code)
	default:
		return fmt.Sprintf("it answers %d %s", e.code, http.StatusText(e.code))
	}
}

// outcomeOf is what an error says of the sink.
func outcomeOf(err error) (what outcome, retryAfter time.Duration) {
	var answer *answerError
	if err == nil {
		return delivered, 0
	}
	if !errors.As(err, &answer) {
		return failed, 0
	}
	switch answer.code {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return refused, 0
	default:
		return failed, answer.retryAfter
	}
}

// retryAfter reads a number of seconds; a date is of the sink's clock, which may be wrong.
func retryAfter(header http.Header) time.Duration {
	seconds, err := strconv.Atoi(header.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return time.Duration(min(seconds, int(longestRetryAfter/time.Second))) * time.Second
}
