// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"crypto/tls"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation/field"
	cliflag "k8s.io/component-base/cli/flag"
)

// TLSOptions are the flags by which a cluster's rules for TLS are followed, as those of
// kube-apiserver are called.
type TLSOptions struct {
	// MinVersion is the oldest version that is spoken; empty means Go's default.
	MinVersion string
	// CipherSuites are those of TLS 1.2 and older; empty means Go's default.
	CipherSuites []string
}

const (
	flagTLSMinVersion   = "tls-min-version"
	flagTLSCipherSuites = "tls-cipher-suites"
)

// AddFlags binds the options to flags, for what serves.
func (o *TLSOptions) AddFlags(fs *pflag.FlagSet, serves string) {
	fs.StringVar(&o.MinVersion, flagTLSMinVersion, o.MinVersion, "Oldest version of TLS by which "+serves+" can be reached: "+strings.Join(cliflag.TLSPossibleVersions(), ", ")+". By default Go's.")
	fs.StringSliceVar(&o.CipherSuites, flagTLSCipherSuites, o.CipherSuites, "Cipher suites of TLS 1.2 and older, by their names at IANA, by which "+serves+" can be reached, for example TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256. Those of TLS 1.3 cannot be chosen. By default Go's.")
}

// Validate returns everything that is wrong with the options.
func (o *TLSOptions) Validate() (errs field.ErrorList) {
	if _, err := cliflag.TLSVersion(o.MinVersion); err != nil {
		errs = append(errs, field.NotSupported(Flag(flagTLSMinVersion), o.MinVersion, cliflag.TLSPossibleVersions()))
	}
	for i, name := range o.CipherSuites {
		if _, err := cliflag.TLSCipherSuites([]string{name}); err != nil {
			errs = append(errs, field.NotSupported(Flag(flagTLSCipherSuites).Index(i), name, cliflag.PreferredTLSCipherNames()))
		}
	}
	return errs
}

// Apply sets what the options, which are valid, say.
func (o *TLSOptions) Apply(config *tls.Config) {
	if version, err := cliflag.TLSVersion(o.MinVersion); err == nil && o.MinVersion != "" {
		config.MinVersion = version
	}
	if suites, err := cliflag.TLSCipherSuites(o.CipherSuites); err == nil && len(o.CipherSuites) > 0 {
		config.CipherSuites = suites
	}
}

// ValidateShutdownDelay returns what is wrong with the time for which is served after
// the end: a pod is killed before long.
func ValidateShutdownDelay(flag *field.Path, d time.Duration) field.ErrorList {
	if d < 0 || d > time.Minute {
		return field.ErrorList{field.Invalid(flag, d.String(), "must be from 0s to 1m")}
	}
	return nil
}
