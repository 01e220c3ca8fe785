// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/binding"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
)

const (
	// maxBatch is how many subjects one request to an Alertmanager is about.
	maxBatch = 200
	// maxListed bounds what is read of the alerts that an Alertmanager has.
	maxListed = 64 << 20
)

// events sends CloudEvents.
type events struct {
	client *client
	url    string
	source string
	mode   Mode
}

// send implements sink: one event.
func (e *events) send(ctx context.Context, items []item[telling]) error {
	for _, i := range items {
		event, err := i.payload.event(e.source)
		if err != nil {
			return fmt.Errorf("making an event: %w", err)
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url, nil)
		if err != nil {
			return fmt.Errorf("making a request: %w", err)
		}
		encoding := binding.WithForceStructured(ctx)
		if e.mode == ModeBinary {
			encoding = binding.WithForceBinary(ctx)
		}
		if err := cehttp.WriteRequest(encoding, binding.ToMessage(event), request); err != nil {
			return fmt.Errorf("writing an event: %w", err)
		}
		if err := e.client.do(ctx, request, nil); err != nil {
			return err
		}
	}
	return nil
}

// alertmanager posts alerts.
type alertmanager struct {
	client *client
	// url is that of its API.
	url string
}

func newAlertmanager(c *client, base string) *alertmanager {
	return &alertmanager{c, strings.TrimSuffix(base, "/") + "/api/v2/alerts"}
}

// send implements sink: all alerts in one request.
func (a *alertmanager) send(ctx context.Context, items []item[[]Alert]) error {
	var all []Alert
	for _, i := range items {
		all = append(all, i.payload...)
	}
	if len(all) == 0 {
		return nil
	}
	body, err := json.Marshal(all)
	if err != nil {
		return fmt.Errorf("writing alerts: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("making a request: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	return a.client.do(ctx, request, nil)
}

// listed is an alert that an Alertmanager has.
type listed struct {
	Labels   map[string]string `json:"labels"`
	StartsAt time.Time         `json:"startsAt"`
}

// list calls each for the alerts of a route that an Alertmanager has, as they arrive.
func (a *alertmanager) list(ctx context.Context, route string, each func(*listed)) error {
	query := url.Values{"filter": {labelAlertName + "=" + strconv.Quote(AlertName), labelRoute + "=" + strconv.Quote(route)}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url+"?"+query.Encode(), nil)
	if err != nil {
		return fmt.Errorf("making a request: %w", err)
	}
	request.Header.Set("Accept", "application/json")
	return a.client.do(ctx, request, func(body io.Reader) error {
		bounded := &io.LimitedReader{R: body, N: maxListed}
		decoder := json.NewDecoder(bounded)
		opening, err := decoder.Token()
		if err == nil && opening == nil {
			return nil // null is an empty list.
		}
		if err != nil || opening != json.Delim('[') {
			return errors.New("its list of alerts cannot be read; is the URL that of an Alertmanager, with API v2?")
		}
		for decoder.More() {
			alert := &listed{}
			if err := decoder.Decode(alert); err != nil {
				if bounded.N <= 0 {
					return nil // The rest expires by itself.
				}
				return fmt.Errorf("reading its list of alerts: %w", err)
			}
			each(alert)
		}
		return nil
	})
}
