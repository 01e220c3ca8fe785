// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/labels"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/hoststatus"
)

// The bounds of a configuration.
const (
	maxConfigBytes = 1 << 20
	maxSinks       = 16
	maxRoutes      = 64
	maxNamespaces  = 64
	maxName        = utilvalidation.DNS1123LabelMaxLength
	maxMinSeconds  = 86400
	maxSeverity    = 63
	maxParallel    = 32

	maxTimeoutSeconds = 60
	minResendSeconds  = 5
	maxResendSeconds  = 3600
	maxExpireSeconds  = 86400
)

// The defaults of a configuration.
const (
	defaultSource         = "/hoststatus/notifier"
	defaultTimeoutSeconds = 10
	defaultParallel       = 4
	defaultResendSeconds  = 60
	// As with Prometheus, an alert outlives three resends that fail.
	defaultExpireSeconds = 4 * defaultResendSeconds
)

// allNamespaces stands for all of them, in one watch.
const allNamespaces = "*"

// Config is the configuration file.
type Config struct {
	// Namespaces are those that are watched, each with a watch of its own; "*" alone is all of
	// them in one watch. By default the namespace of the service account.
	Namespaces []string `json:"namespaces,omitempty"`
	// Source begins the source of events; the name of the route follows. By default
	// /hoststatus/notifier. Set it where several clusters tell one sink.
	Source string `json:"source,omitempty"`
	// GeneratorURL is where alerts link to, with {namespace} and {server} replaced; for the
	// servers of one host {server} is replaced by nothing. By default there is no link.
	GeneratorURL string `json:"generatorURL,omitempty"`
	// Sinks are who is told, and Routes what.
	Sinks  []SinkConfig  `json:"sinks"`
	Routes []RouteConfig `json:"routes"`
}

// SinkConfig is a sink: CloudEvents or Alertmanager is set.
type SinkConfig struct {
	// Name is its name in routes, logs and metrics.
	Name string `json:"name"`
	// CloudEvents is set for a receiver of CloudEvents over HTTP, Alertmanager for an
	// Alertmanager.
	CloudEvents  *CloudEventsConfig  `json:"cloudEvents,omitempty"`
	Alertmanager *AlertmanagerConfig `json:"alertmanager,omitempty"`
	// TLS is about https.
	TLS TLSConfig `json:"tls,omitempty"`
	// BearerTokenFile has the token that is sent. It is read again for each request.
	BearerTokenFile string `json:"bearerTokenFile,omitempty"`
	// TimeoutSeconds is how long a request may take, 1 to 60; 10 by default.
	TimeoutSeconds int `json:"timeoutSeconds,omitempty"`
}

// Mode is how an event is written into a request.
type Mode string

// The modes of CloudEvents over HTTP.
const (
	// ModeStructured: the body is the whole event, as JSON.
	ModeStructured Mode = "Structured"
	// ModeBinary: the body is the data, the attributes are headers.
	ModeBinary Mode = "Binary"
)

var modes = []Mode{ModeStructured, ModeBinary}

// CloudEventsConfig is a receiver of CloudEvents.
type CloudEventsConfig struct {
	// URL is where events are posted.
	URL string `json:"url"`
	// Mode is Structured, by default, or Binary.
	Mode Mode `json:"mode,omitempty"`
	// Parallel is how many events are sent at once, 1 to 32; 4 by default. Those of one
	// server never are.
	Parallel int `json:"parallel,omitempty"`
}

// AlertmanagerConfig is an Alertmanager.
type AlertmanagerConfig struct {
	// URL is that of the Alertmanager, without /api/v2.
	URL string `json:"url"`
	// ResendSeconds is how often an alert that goes on is sent again, 5 to 3600; 60 by default.
	ResendSeconds int `json:"resendSeconds,omitempty"`
	// ExpireSeconds is after how long Alertmanager gives an alert up that is not sent again, at
	// least twice ResendSeconds and at most 86400; four times ResendSeconds by default.
	ExpireSeconds int `json:"expireSeconds,omitempty"`
}

// TLSConfig is how a sink is known, and how it knows the notifier.
type TLSConfig struct {
	// CAFile has the certificates of the authorities, in PEM, read again when it changes. By
	// default those of the system.
	CAFile string `json:"caFile,omitempty"`
	// CertFile and KeyFile are a client certificate, read again for each connection.
	CertFile string `json:"certFile,omitempty"`
	KeyFile  string `json:"keyFile,omitempty"`
	// ServerName is the name in the sink's certificate, by default the host of its URL.
	ServerName string `json:"serverName,omitempty"`
}

// RouteConfig is what one sink is told.
type RouteConfig struct {
	// Name is in the source of events and a label of alerts. Routes to one sink have different
	// names.
	Name string `json:"name"`
	// Sink is the name of the sink.
	Sink string `json:"sink"`
	// Namespaces are those of the servers, by default all that are watched.
	Namespaces []string `json:"namespaces,omitempty"`
	// Selector is a selector of labels, as with kubectl -l.
	Selector string `json:"selector,omitempty"`
	// HostStatuses are those that matter. An event is sent when a host status becomes or was
	// one of them; by default all. An alert lasts while it is one of them, by default DOWN,
	// UNKNOWN, MAINTENANCE and NEEDS_MAINTENANCE.
	HostStatuses []v1alpha1.HostStatus `json:"hostStatuses,omitempty"`
	// MinSeconds is how long a host status must last before it counts, 0 to 86400.
	MinSeconds float64 `json:"minSeconds,omitempty"`
	// GroupByHost makes one message for all servers of a namespace on one host.
	GroupByHost bool `json:"groupByHost,omitempty"`
	// Severity replaces the label severity of alerts: by default critical for DOWN, warning
	// for UNKNOWN, info for the two of maintenance.
	Severity string `json:"severity,omitempty"`
}

// alerting are the host statuses that can be an alert.
var alerting = []v1alpha1.HostStatus{
	v1alpha1.HostStatusDown, v1alpha1.HostStatusUnknown, v1alpha1.HostStatusMaintenance, v1alpha1.HostStatusNeedsMaintenance,
}

// LoadConfig reads a configuration file, fills in the defaults, and checks it whole. Relative
// paths in it are relative to its folder. ownNamespace is that of the service account, "" if
// there is none.
func LoadConfig(path, ownNamespace string) (*Config, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	if len(content) > maxConfigBytes {
		return nil, fmt.Errorf("reading the configuration: %s has %d bytes, and may have %d", path, len(content), maxConfigBytes)
	}
	config := &Config{}
	if err := yaml.UnmarshalStrict(content, config); err != nil {
		return nil, fmt.Errorf("reading the configuration %s: %w", path, err)
	}
	config.complete(filepath.Dir(path), ownNamespace)
	if errs := config.Validate(); len(errs) > 0 {
		return nil, fmt.Errorf("the configuration %s: %w", path, errs.ToAggregate())
	}
	return config, nil
}

// complete fills in the defaults.
func (c *Config) complete(dir, ownNamespace string) {
	if len(c.Namespaces) == 0 && ownNamespace != "" {
		c.Namespaces = []string{ownNamespace}
	}
	c.Source = cmp.Or(c.Source, defaultSource)
	for i := range c.Sinks {
		s := &c.Sinks[i]
		s.TimeoutSeconds = cmp.Or(s.TimeoutSeconds, defaultTimeoutSeconds)
		if s.CloudEvents != nil {
			s.CloudEvents.Mode = cmp.Or(s.CloudEvents.Mode, ModeStructured)
			s.CloudEvents.Parallel = cmp.Or(s.CloudEvents.Parallel, defaultParallel)
		}
		if a := s.Alertmanager; a != nil {
			a.ResendSeconds = cmp.Or(a.ResendSeconds, defaultResendSeconds)
			a.ExpireSeconds = cmp.Or(a.ExpireSeconds, defaultExpireSeconds/defaultResendSeconds*a.ResendSeconds)
		}
		for _, file := range []*string{&s.BearerTokenFile, &s.TLS.CAFile, &s.TLS.CertFile, &s.TLS.KeyFile} {
			if *file != "" && !filepath.IsAbs(*file) {
				*file = filepath.Join(dir, *file)
			}
		}
	}
}

// Validate returns everything that is wrong with a configuration whose defaults are filled in.
func (c *Config) Validate() field.ErrorList {
	var errs field.ErrorList
	errs = append(errs, c.validateNamespaces()...)
	if _, err := url.Parse(c.Source); err != nil {
		errs = append(errs, field.Invalid(field.NewPath("source"), c.Source, "must be a URI, or the path of one: "+err.Error()))
	}
	if c.GeneratorURL != "" {
		errs = append(errs, validateURL(field.NewPath("generatorURL"), strings.NewReplacer("{namespace}", "n", "{server}", "s").Replace(c.GeneratorURL))...)
	}
	sinks := field.NewPath("sinks")
	errs = append(errs, count(sinks, len(c.Sinks), maxSinks)...)
	kinds := map[string]bool{} // by name, whether it is an Alertmanager
	for i := range c.Sinks {
		s, at := &c.Sinks[i], sinks.Index(i)
		errs = append(errs, s.validate(at)...)
		if _, twice := kinds[s.Name]; twice {
			errs = append(errs, field.Duplicate(at.Child("name"), s.Name))
		}
		kinds[s.Name] = s.Alertmanager != nil
	}
	routes := field.NewPath("routes")
	errs = append(errs, count(routes, len(c.Routes), maxRoutes)...)
	names := map[routeKey]bool{}
	for i := range c.Routes {
		r, at := &c.Routes[i], routes.Index(i)
		isAlertmanager, known := kinds[r.Sink]
		errs = append(errs, r.validate(at, isAlertmanager)...)
		if !known {
			errs = append(errs, field.Invalid(at.Child("sink"), r.Sink, "must be the name of one of sinks"))
		}
		if names[routeKey{r.Sink, r.Name}] {
			errs = append(errs, field.Duplicate(at.Child("name"), r.Name))
		}
		names[routeKey{r.Sink, r.Name}] = true
		for j, namespace := range r.Namespaces {
			if !slices.Contains(c.Namespaces, namespace) && !slices.Contains(c.Namespaces, allNamespaces) {
				errs = append(errs, field.Invalid(at.Child("namespaces").Index(j), namespace, "is not watched; add it to namespaces at the top"))
			}
		}
	}
	return errs
}

func (c *Config) validateNamespaces() (errs field.ErrorList) {
	at := field.NewPath("namespaces")
	if len(c.Namespaces) == 0 {
		return field.ErrorList{field.Required(at, `name the namespaces to watch, or "*" for all of them; only within a pod there is a default`)}
	}
	errs = append(errs, count(at, len(c.Namespaces), maxNamespaces)...)
	for i, namespace := range c.Namespaces {
		switch {
		case namespace == allNamespaces && len(c.Namespaces) > 1:
			errs = append(errs, field.Invalid(at.Index(i), namespace, "must be the only one: it is all of them"))
		case namespace == allNamespaces:
		case slices.Contains(c.Namespaces[:i], namespace):
			errs = append(errs, field.Duplicate(at.Index(i), namespace))
		default:
			for _, message := range validation.ValidateNamespaceName(namespace, false) {
				errs = append(errs, field.Invalid(at.Index(i), namespace, message))
			}
		}
	}
	return errs
}

func (s *SinkConfig) validate(at *field.Path) (errs field.ErrorList) {
	errs = append(errs, validateName(at.Child("name"), s.Name)...)
	errs = append(errs, between(at.Child("timeoutSeconds"), s.TimeoutSeconds, 1, maxTimeoutSeconds)...)
	address, addressAt := "", at
	switch {
	case (s.CloudEvents == nil) == (s.Alertmanager == nil):
		errs = append(errs, field.Invalid(at, s.Name, "must have either cloudEvents or alertmanager"))
	case s.CloudEvents != nil:
		address, addressAt = s.CloudEvents.URL, at.Child("cloudEvents", "url")
		if !slices.Contains(modes, s.CloudEvents.Mode) {
			errs = append(errs, field.NotSupported(at.Child("cloudEvents", "mode"), s.CloudEvents.Mode, modes))
		}
		errs = append(errs, between(at.Child("cloudEvents", "parallel"), s.CloudEvents.Parallel, 1, maxParallel)...)
	default:
		address, addressAt = s.Alertmanager.URL, at.Child("alertmanager", "url")
		a := s.Alertmanager
		errs = append(errs, between(at.Child("alertmanager", "resendSeconds"), a.ResendSeconds, minResendSeconds, maxResendSeconds)...)
		errs = append(errs, between(at.Child("alertmanager", "expireSeconds"), a.ExpireSeconds, 2*a.ResendSeconds, maxExpireSeconds)...)
	}
	if address != "" || s.CloudEvents != nil || s.Alertmanager != nil {
		errs = append(errs, validateURL(addressAt, address)...)
	}
	if (s.TLS.CertFile == "") != (s.TLS.KeyFile == "") {
		errs = append(errs, field.Invalid(at.Child("tls"), s.TLS.CertFile+s.TLS.KeyFile, "must have both certFile and keyFile, or neither"))
	}
	if u, err := url.Parse(address); err == nil && u.Scheme == "http" {
		if s.BearerTokenFile != "" && !isLoopback(u.Hostname()) {
			errs = append(errs, field.Invalid(at.Child("bearerTokenFile"), s.BearerTokenFile, "needs a URL with https: over http anybody on the way reads the token"))
		}
		if s.TLS != (TLSConfig{}) {
			errs = append(errs, field.Invalid(at.Child("tls"), address, "needs a URL with https"))
		}
	}
	return errs
}

func (r *RouteConfig) validate(at *field.Path, isAlertmanager bool) (errs field.ErrorList) {
	errs = append(errs, validateName(at.Child("name"), r.Name)...)
	errs = append(errs, count(at.Child("namespaces"), max(1, len(r.Namespaces)), maxNamespaces)...)
	for i, namespace := range r.Namespaces {
		// None would ever match.
		for _, message := range validation.ValidateNamespaceName(namespace, false) {
			errs = append(errs, field.Invalid(at.Child("namespaces").Index(i), namespace, message+"; leave namespaces out for all that are watched"))
		}
	}
	if _, err := labels.Parse(r.Selector); err != nil {
		errs = append(errs, field.Invalid(at.Child("selector"), r.Selector, "must be a label selector such as app=web: "+err.Error()))
	}
	for i, status := range r.HostStatuses {
		var supported []v1alpha1.HostStatus
		for row := range hoststatus.Rows() {
			if row.Status != nil && (!isAlertmanager || slices.Contains(alerting, *row.Status)) {
				supported = append(supported, *row.Status)
			}
		}
		if !slices.Contains(supported, status) {
			errs = append(errs, field.NotSupported(at.Child("hostStatuses").Index(i), status, supported))
		}
	}
	if !(r.MinSeconds >= 0 && r.MinSeconds <= maxMinSeconds) {
		errs = append(errs, field.Invalid(at.Child("minSeconds"), r.MinSeconds, fmt.Sprintf("must be from 0 to %d", maxMinSeconds)))
	}
	if r.Severity != "" && !isAlertmanager {
		errs = append(errs, field.Invalid(at.Child("severity"), r.Severity, "is for alerts: leave it out, events have none"))
	}
	if len(r.Severity) > maxSeverity {
		errs = append(errs, field.TooLong(at.Child("severity"), r.Severity, maxSeverity))
	}
	return errs
}

// min is how long a host status must last.
func (r *RouteConfig) min() time.Duration {
	return time.Duration(r.MinSeconds * float64(time.Second))
}

func validateName(at *field.Path, name string) (errs field.ErrorList) {
	if name == "" {
		return field.ErrorList{field.Required(at, "name it: logs, metrics and messages do")}
	}
	for _, message := range utilvalidation.IsDNS1123Label(name) {
		errs = append(errs, field.Invalid(at, name, message))
	}
	return errs
}

func validateURL(at *field.Path, address string) field.ErrorList {
	if address == "" {
		return field.ErrorList{field.Required(at, "for example https://sink.example.com")}
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" {
		return field.ErrorList{field.Invalid(at, address, "must be http:// or https:// with a host, without a user (use bearerTokenFile) and without #")}
	}
	return nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func count(at *field.Path, n, most int) field.ErrorList {
	switch {
	case n == 0:
		return field.ErrorList{field.Required(at, "there must be at least one")}
	case n > most:
		return field.ErrorList{field.TooMany(at, n, most)}
	}
	return nil
}

func between(at *field.Path, value, least, most int) field.ErrorList {
	if value < least || value > most {
		return field.ErrorList{field.Invalid(at, value, fmt.Sprintf("must be from %d to %d", least, most))}
	}
	return nil
}
