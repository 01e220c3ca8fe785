// SPDX-License-Identifier: Apache-2.0

package tenantapi

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	computev1alpha1 "hoststatus.dev/hoststatus/api/v1alpha1"
)

// column is one column of the table of servers.
type column struct {
	metav1.TableColumnDefinition
	// host is set if the column is there only for callers with a grant.
	host bool
	cell func(*view, time.Time) any
}

var columns = []column{
	{define("Name", "name", 0, "Name of the server."), false,
		func(v *view, _ time.Time) any { return v.Name }},
	{define("Status", "", 0, "State of the server as last reported."), false,
		func(v *view, _ time.Time) any { return string(v.Status.State) }},
	{define("Task State", "", 0, "What is being done with the server; empty means nothing."), false,
		func(v *view, _ time.Time) any { return v.Status.TaskState }},
	{define("Power State", "", 0, "Power state of the VM as last reported."), false,
		func(v *view, _ time.Time) any { return string(v.Status.PowerState) }},
	{define("Networks", "", 0, "Networks of the server, with its addresses in them."), false,
		func(v *view, _ time.Time) any { return networks(v.Status.Networks) }},
	{define("Host Status", "", 0, "Status of the server's host; - means that it is on no known host, or that the status is not derived yet, and an empty cell that it is not yours to see."), true,
		hostCell(func(v *view, _ time.Time) string { return string(ptr.Deref(v.Status.HostStatus, "")) })},
	{define("Age", "", 0, "Time since the server was created."), false,
		func(v *view, now time.Time) any { return age(v.CreationTimestamp, now) }},
	{define("Since", "", 1, "Time since the host status changed."), true,
		hostCell(func(v *view, now time.Time) string {
			if v.Status.HostStatusTransitionTime == nil {
				return ""
			}
			return age(*v.Status.HostStatusTransitionTime, now)
		})},
	{define("Reason", "", 1, "Why the host status is what it is."), true,
		hostCell(func(v *view, _ time.Time) string { return string(v.Status.HostStatusReason) })},
	{define("Reporting", "", 1, "Whether the host reports, whatever its status is."), true,
		hostCell(func(v *view, _ time.Time) string { return string(v.Status.HostReporting) })},
	{define("Window", "", 1, "Maintenance window of the host, announced or open, in UTC: when it opens as things stand, and when it closes."), true,
		hostCell(func(v *view, _ time.Time) string { return window(v.Status.MaintenanceWindow) })},
	{define("ID", "", 1, "Unique id of the server."), false,
		func(v *view, _ time.Time) any { return string(v.UID) }},
	{define("Host ID", "", 1, "Equal for two servers of one namespace on the same host; the first letters of status.hostID."), false,
		func(v *view, _ time.Time) any { return v.Status.HostID[:min(hostIDLetters, len(v.Status.HostID))] }},
}

const (
	// hostIDLetters are enough to compare by eye, and so many that two hosts of one tenant
	// have different ones.
	hostIDLetters = 12
	// noValue is in the cell if there is no value and the caller may know that. So an empty
	// cell means one thing only: the caller may not see the value.
	noValue = "-"
)

func hostCell(value func(*view, time.Time) string) func(*view, time.Time) any {
	return func(v *view, now time.Time) any {
		if !v.hostShown {
			return ""
		}
		return cmp.Or(value(v, now), noValue)
	}
}

// window prints a window as its owner writes it into a calendar.
func window(w *computev1alpha1.AnnouncedWindow) string {
	const minutes = "2006-01-02T15:04Z"
	if w == nil {
		return ""
	}
	opens := cmp.Or(w.OpensAt, w.StartTime)
	switch {
	case opens == nil:
		return "time not known yet"
	case w.EndTime == nil:
		return "from " + opens.UTC().Format(minutes)
	default:
		return opens.UTC().Format(minutes) + " to " + w.EndTime.UTC().Format(minutes)
	}
}

func define(name, format string, priority int32, description string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: "string", Format: format, Priority: priority, Description: description}
}

// tableConvertor implements rest.TableConvertor.
type tableConvertor struct{ clock clock.PassiveClock }

// ConvertToTable implements rest.TableConvertor.
func (c tableConvertor) ConvertToTable(ctx context.Context, object, options runtime.Object) (*metav1.Table, error) {
	table := &metav1.Table{}
	var items []*view
	var hostColumn, newColumns bool
	switch o := object.(type) {
	case *view:
		items, hostColumn, newColumns = []*view{o}, o.hostColumn, o.newColumns
		if o.lateHostColumn != nil {
			hostColumn = o.lateHostColumn(ctx)
		}
		table.ResourceVersion = o.ResourceVersion
	case *viewList:
		hostColumn = o.hostColumn
		for i := range o.Items {
			items = append(items, &o.Items[i])
		}
		table.ListMeta = o.ListMeta
	default:
		return nil, fmt.Errorf("making a table of servers: %T is not a server", object)
	}
	wanted, _ := options.(*metav1.TableOptions)
	headers := newColumns || wanted == nil || !wanted.NoHeaders
	now := c.clock.Now()
	for _, col := range columns {
		if headers && (hostColumn || !col.host) {
			table.ColumnDefinitions = append(table.ColumnDefinitions, col.TableColumnDefinition)
		}
	}
	table.Rows = make([]metav1.TableRow, 0, len(items))
	for i, item := range items {
		// One alone is done at once, and for others as well: the end of one watch must not
		// spoil what they are sent (sharing).
		if err := ended(ctx, i); err != nil && len(items) > 1 {
			return nil, err
		}
		cells := make([]any, 0, len(columns))
		for _, col := range columns {
			if hostColumn || !col.host {
				cells = append(cells, col.cell(item, now))
			}
		}
		table.Rows = append(table.Rows, metav1.TableRow{Cells: cells, Object: runtime.RawExtension{Object: item}})
	}
	return table, nil
}

// networks prints networks as Nova's client does: net=10.0.0.4, 10.0.0.5; other=….
func networks(networks []computev1alpha1.ServerNetwork) string {
	parts := make([]string, len(networks))
	for i, n := range networks {
		parts[i] = n.Name + "=" + strings.Join(n.Addresses, ", ")
	}
	return strings.Join(parts, "; ")
}

func age(created metav1.Time, now time.Time) string {
	if created.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(now.Sub(created.Time))
}
