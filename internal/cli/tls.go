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

// TLSOptions are the flags for a cluster's TLS rules, named as those of kube-apiserver.
type TLSOptions struct {
	// MinVersion is the oldest version that is accepted; empty means Go's default.
	MinVersion string
	// CipherSuites are those of TLS 1.2 and older; empty means Go's default.
	CipherSuites []string
}

const (
	flagTLSMinVersion   = "tls-min-version"
	flagTLSCipherSuites = "tls-cipher-suites"
)

// AddFlags binds the options to flags; serves names, for their help, what is served.
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

// Apply applies the options, which must be valid, to config.
func (o *TLSOptions) Apply(config *tls.Config) {
	if version, err := cliflag.TLSVersion(o.MinVersion); err == nil && o.MinVersion != "" {
		config.MinVersion = version
	}
	if suites, err := cliflag.TLSCipherSuites(o.CipherSuites); err == nil && len(o.CipherSuites) > 0 {
		config.CipherSuites = suites
	}
}

// ValidateShutdownDelay returns what is wrong with the time to go on serving after
// SIGTERM, which is limited because the pod is killed soon after.
func ValidateShutdownDelay(flag *field.Path, d time.Duration) field.ErrorList {
	if d < 0 || d > time.Minute {
		return field.ErrorList{field.Invalid(flag, d.String(), "must be from 0s to 1m")}
	}
	return nil
}
