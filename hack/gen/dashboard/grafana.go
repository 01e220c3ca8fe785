// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strconv"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/statetimeline"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
	"github.com/grafana/grafana-foundation-sdk/go/units"
)

const (
	// The library begins a line of panels when the one before is full, so their widths
	// have to add up to that of the board.
	boardWidth = 24
	statWidth  = 3

	statHeight     = 4
	graphHeight    = 8
	timelineHeight = 12
)

// source is the data source that is chosen at the top of the dashboard.
var source = common.DataSourceRef{Type: cog.ToPtr("prometheus"), Uid: cog.ToPtr("${datasource}")}

// line asks for a line, or lines, over time. The legend says how it is called.
func line(expr, legend string) *prometheus.DataqueryBuilder {
	return prometheus.NewDataqueryBuilder().Datasource(source).RefId("A").Expr(expr).LegendFormat(legend).Range()
}

// latest asks for values as they are now.
func latest(expr string) *prometheus.DataqueryBuilder {
	return prometheus.NewDataqueryBuilder().Datasource(source).RefId("A").Expr(expr).Instant()
}

// number is one number, which has the colour of the last step that it has reached.
func number(title, expr string, steps ...dashboard.Threshold) *stat.PanelBuilder {
	return stat.NewPanelBuilder().Title(title).Span(statWidth).Height(statHeight).
		Datasource(source).WithTarget(latest(expr)).
		Unit(units.NoUnit).
		ColorScheme(dashboard.NewFieldColorBuilder().Mode(dashboard.FieldColorModeIdThresholds)).
		Thresholds(dashboard.NewThresholdsConfigBuilder().Mode(dashboard.ThresholdsModeAbsolute).Steps(steps)).
		ColorMode(common.BigValueColorModeBackground).GraphMode(common.BigValueGraphModeNone).
		// What the library begins with is no orientation that Grafana knows.
		Orientation(common.VizOrientationAuto).
		ReduceOptions(common.NewReduceDataOptionsBuilder().Calcs([]string{"lastNotNull"}).Fields("").Values(false))
}

// at is the first step, from is one that begins at a limit.
func at(colour string) dashboard.Threshold { return dashboard.Threshold{Color: colour} }

func from(limit float64, colour string) dashboard.Threshold {
	return dashboard.Threshold{Color: colour, Value: &limit}
}

// graph is lines over time.
func graph(width uint32, title, unit string, lines ...*prometheus.DataqueryBuilder) *timeseries.PanelBuilder {
	p := timeseries.NewPanelBuilder().Title(title).Span(width).Height(graphHeight).
		Datasource(source).
		Unit(unit).Min(0).
		ColorScheme(dashboard.NewFieldColorBuilder().Mode(dashboard.FieldColorModeIdPaletteClassic)).
		LineWidth(1).FillOpacity(10).ShowPoints(common.VisibilityModeNever).
		Legend(legend()).
		Tooltip(common.NewVizTooltipOptionsBuilder().Mode(common.TooltipDisplayModeMulti).Sort(common.SortOrderDescending))
	for i, l := range lines {
		p.WithTarget(l.RefId(string(rune('A' + i))))
	}
	return p
}

func legend() *common.VizLegendOptionsBuilder {
	return common.NewVizLegendOptionsBuilder().DisplayMode(common.LegendDisplayModeList).Placement(common.LegendPlacementBottom).ShowLegend(true)
}

// stacked lets the lines of a graph add up.
func stacked(p *timeseries.PanelBuilder) *timeseries.PanelBuilder {
	return p.FillOpacity(60).Stacking(common.NewStackingConfigBuilder().Mode(common.StackingModeNormal).Group("A"))
}

type colour struct{ name, colour string }

// coloured gives the lines that have a name that colour.
func coloured(p *timeseries.PanelBuilder, colours []colour) *timeseries.PanelBuilder {
	for _, c := range colours {
		p.OverrideByName(c.name, []dashboard.DynamicConfigValue{{
			Id: "color", Value: dashboard.FieldColor{Mode: dashboard.FieldColorModeIdFixed, FixedColor: &c.colour},
		}})
	}
	return p
}

// timeline is a bar for each line, coloured by what its value stands for.
func timeline(title string, states []colour, l *prometheus.DataqueryBuilder) *statetimeline.PanelBuilder {
	mapping := dashboard.NewValueMap()
	for i, s := range states {
		mapping.Options[strconv.Itoa(i)] = dashboard.ValueMappingResult{Text: &s.name, Color: &s.colour, Index: cog.ToPtr(int32(i))}
	}
	return statetimeline.NewPanelBuilder().Title(title).Span(boardWidth).Height(timelineHeight).
		Datasource(source).WithTarget(l).
		ColorScheme(dashboard.NewFieldColorBuilder().Mode(dashboard.FieldColorModeIdThresholds)).
		Mappings([]dashboard.ValueMapping{{ValueMap: mapping}}).
		FillOpacity(80).LineWidth(0).
		MergeValues(true).ShowValue(common.VisibilityModeNever).RowHeight(0.9).AlignValue(common.TimelineValueAlignmentLeft).
		Legend(legend()).
		Tooltip(common.NewVizTooltipOptionsBuilder().Mode(common.TooltipDisplayModeSingle).Sort(common.SortOrderNone))
}

// list is a table of series with their labels.
func list(title, expr string) *table.PanelBuilder {
	return table.NewPanelBuilder().Title(title).Span(boardWidth / 2).Height(graphHeight).
		Datasource(source).WithTarget(latest(expr).Format(prometheus.PromQueryFormatTable)).
		ShowHeader(true).
		// Otherwise the library writes null for the list of reducers.
		Footer(common.NewTableFooterOptionsBuilder().Reducer([]string{}))
}
