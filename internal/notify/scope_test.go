// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/utils/clock"
)

// answers are those of an asker, one after the other; the last one stays.
type answers struct {
	all   []any // a bool or an error
	asked int
}

func (a *answers) may(context.Context, string, string, string) (bool, error) {
	answer := a.all[min(a.asked, len(a.all)-1)]
	a.asked++
	if err, ok := answer.(error); ok {
		return false, err
	}
	return answer == true, nil
}

func TestTheRightToWatchIsMissingIfThatIsSaidTwice(t *testing.T) {
	for name, c := range map[string]struct {
		answers []any
		want    bool
	}{
		"yes":                          {[]any{true}, false},
		"no":                           {[]any{false}, true},
		"no, by one that just started": {[]any{false, true}, false},
		"no answer":                    {[]any{errors.New("it does not answer")}, false},
		"no, and then no answer":       {[]any{false, errors.New("it does not answer")}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &watching{grants: &answers{all: c.answers}}
				begin := time.Now()
				if got := w.refused(t.Context(), &scope{notifier: &notifier{clock: clock.RealClock{}}}); got != c.want {
					t.Errorf("refused is %v", got)
				}
				if took := time.Since(begin); took > confirmAfter {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}
