// SPDX-License-Identifier: Apache-2.0

package kubectlhosts

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"hoststatus.dev/hoststatus/api/v1alpha1"
	"hoststatus.dev/hoststatus/internal/kubectlplugin"
)

// maxAskedByHost is for how many named hosts the servers are listed one by one.
const maxAskedByHost = 10

// serverCount is how many servers each host has; nil if they were not counted.
type serverCount struct {
	byHost map[string]int
	total  int
	// err is why they could not be counted.
	err error
}

// on is the number of servers on a host, or "?".
func (s *serverCount) on(host string) string {
	if s == nil || s.err != nil {
		return "?"
	}
	return strconv.Itoa(s.byHost[host])
}

// summary is the end of a sentence about hosts.
func (s *serverCount) summary() string {
	switch {
	case s == nil:
		return ""
	case s.err != nil:
		return "; servers could not be counted: " + s.err.Error()
	default:
		return "; " + kubectlplugin.Counted(s.total, "server")
	}
}

// countServers counts the servers on hosts. If only a few hosts were named, it lists no
// others.
func (c *cluster) countServers(ctx context.Context, services []v1alpha1.ComputeService, named bool) *serverCount {
	selectors := []string{""}
	if named && len(services) <= maxAskedByHost {
		selectors = nil
		for i := range services {
			selectors = append(selectors, fields.OneTermEqualSelector(v1alpha1.ServerHostField, services[i].Name).String())
		}
	}
	all := map[string]int{}
	for _, selector := range selectors {
		if err := c.countByHost(ctx, selector, all); err != nil {
			return &serverCount{err: c.explain(err, "list", "servers", "")}
		}
	}
	count := &serverCount{byHost: map[string]int{}}
	for i := range services {
		name := services[i].Name
		count.byHost[name] = all[name]
		count.total += all[name]
	}
	return count
}

// countByHost counts the servers that a field selector selects, by their column Host.
func (c *cluster) countByHost(ctx context.Context, selector string, count map[string]int) error {
	next := ""
	for {
		request := c.raw.Get().AbsPath("apis", v1alpha1.SchemeGroupVersion.Group, v1alpha1.SchemeGroupVersion.Version, "servers").
			SetHeader("Accept", kubectlplugin.AsTable).
			Param("includeObject", string(metav1.IncludeNone)).
			Param("limit", strconv.Itoa(kubectlplugin.ListPage))
		if selector != "" {
			request = request.Param("fieldSelector", selector)
		}
		if next != "" {
			request = request.Param("continue", next)
		}
		result := request.Do(ctx)
		if err := result.Error(); err != nil {
			return err
		}
		body, err := result.Raw()
		if err != nil {
			return err
		}
		var page metav1.Table
		if err := json.Unmarshal(body, &page); err != nil {
			return fmt.Errorf("decoding a page of servers: %w", err)
		}
		column := slices.IndexFunc(page.ColumnDefinitions, func(d metav1.TableColumnDefinition) bool { return d.Name == "Host" })
		for _, row := range page.Rows {
			if column < 0 || column >= len(row.Cells) {
				return fmt.Errorf("the API server's table of servers has no column Host")
			}
			if host, ok := row.Cells[column].(string); ok {
				count[host]++
			}
		}
		if next = page.Continue; next == "" {
			return nil
		}
	}
}
