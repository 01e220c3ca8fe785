// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"errors"
	"sync"
	"testing"

	testingclock "k8s.io/utils/clock/testing"

	"hoststatus.dev/hoststatus/test/framework/expect"
	"hoststatus.dev/hoststatus/test/framework/logbook"
)

func TestItEndsWhenItsConfigurationHasChangedAndIsRight(t *testing.T) {
	c, book := testingclock.NewFakeClock(start), logbook.New()
	var mu sync.Mutex
	var found *Config
	var problem error
	asked := 0
	load := func() (*Config, error) {
		mu.Lock()
		defer mu.Unlock()
		asked++
		return found, problem
	}
	// look sets what there is, and waits until it was looked at.
	look := func(config *Config, err error) {
		mu.Lock()
		found, problem = config, err
		before := asked
		mu.Unlock()
		expect.Eventually(t, patience, func() error {
			if !c.HasWaiters() {
				return errors.New("it does not wait")
			}
			return nil
		})
		c.Step(configInterval)
		expect.Eventually(t, patience, func() error {
			mu.Lock()
			defer mu.Unlock()
			if asked == before {
				return errors.New("it has not looked")
			}
			return nil
		})
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		untilChanged(t.Context(), &Config{Source: "a"}, load, c, book.Logger)
	}()
	look(&Config{Source: "a"}, nil)
	look(nil, errors.New("it is wrong"))
	look(nil, errors.New("it is wrong"))
	look(&Config{Source: "a"}, nil)
	select {
	case <-ended:
		t.Fatal("it has ended")
	default:
	}
	look(&Config{Source: "b"}, nil)
	<-ended
	book.Want(t, "it is wrong", "The configuration has changed; ending")
}
