// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"sync"

	"github.com/go-logr/logr"
)

// maxAuthorities is how large a file of authorities may be: no ConfigMap is larger.
const maxAuthorities = 1 << 20

// authorities is a transport that trusts those authorities that a file has at the time of a
// request. client-go does the same for its own connections, but looks every five minutes, and a
// sink that is not reached for so long is one that pages nobody.
type authorities struct {
	file string
	log  logr.Logger

	mu        sync.Mutex
	transport *http.Transport
	// seen is the file that was read last, nil if there was none.
	seen os.FileInfo
	// problem is what was logged last, "" while the file is good.
	problem string
}

// trust makes one of a transport. The file must be good now.
func trust(file string, transport *http.Transport, log logr.Logger) (*authorities, error) {
	a := &authorities{file: file, log: log, transport: transport}
	pool, err := a.changed()
	transport.TLSClientConfig.RootCAs = pool
	return a, err
}

// RoundTrip implements http.RoundTripper.
func (a *authorities) RoundTrip(r *http.Request) (*http.Response, error) {
	return a.current().RoundTrip(r)
}

// current is the transport that trusts what the file has, or had while it was good.
func (a *authorities) current() *http.Transport {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch pool, err := a.changed(); {
	case err != nil && err.Error() == a.problem:
	case err != nil:
		a.problem = err.Error()
		a.log.Error(err, "The authorities of the sink cannot be read, and those from before stay trusted; put certificates in PEM into the file, no restart is needed")
	case pool == nil:
	case !pool.Equal(a.transport.TLSClientConfig.RootCAs):
		a.problem = ""
		before := a.transport
		a.transport = before.Clone()
		a.transport.TLSClientConfig.RootCAs = pool
		before.CloseIdleConnections() // They may lead to a sink that is not trusted any more.
		a.log.Info("The authorities of the sink have changed, and the new ones are trusted", "tls.caFile", a.file)
	case a.problem != "":
		a.problem = ""
		a.log.Info("The authorities of the sink can be read again", "tls.caFile", a.file)
	}
	return a.transport
}

// changed reads the file if it is not the one that was read last, else there is no pool.
func (a *authorities) changed() (*x509.CertPool, error) {
	info, err := os.Stat(a.file)
	if err != nil {
		a.seen = nil
		return nil, fmt.Errorf("tls.caFile: %w", err)
	}
	if a.seen != nil && os.SameFile(info, a.seen) && info.ModTime().Equal(a.seen.ModTime()) && info.Size() == a.seen.Size() {
		return nil, nil
	}
	a.seen = info
	if info.Size() > maxAuthorities {
		return nil, fmt.Errorf("tls.caFile: %s has more than 1 MiB", a.file)
	}
	content, err := os.ReadFile(a.file)
	if err != nil {
		a.seen = nil
		return nil, fmt.Errorf("tls.caFile: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(content) {
		return nil, fmt.Errorf("tls.caFile: %s holds no certificate in PEM", a.file)
	}
	return pool, nil
}
