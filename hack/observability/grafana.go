// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
)

// The part of Grafana's dashboard model that the dashboard uses. Its fields, and the
// values that they take, are those of Grafana's foundation SDK, v0.0.21.
type (
	board struct {
		UID           string     `json:"uid"`
		Title         string     `json:"title"`
		Description   string     `json:"description"`
		Tags          []string   `json:"tags"`
		SchemaVersion int        `json:"schemaVersion"`
		Editable      bool       `json:"editable"`
		GraphTooltip  int        `json:"graphTooltip"`
		Refresh       string     `json:"refresh"`
		Time          timeRange  `json:"time"`
		Templating    templating `json:"templating"`
		Panels        []*panel   `json:"panels"`
	}
	timeRange struct {
		From string `json:"from"`
		To   string `json:"to"`
	}
	templating struct {
		List []variable `json:"list"`
	}
	variable struct {
		Name  string `json:"name"`
		Label string `json:"label"`
		Type  string `json:"type"`
		Query string `json:"query"`
	}
	datasource struct {
		Type string `json:"type"`
		UID  string `json:"uid"`
	}
	panel struct {
		ID          int            `json:"id"`
		Type        string         `json:"type"`
		Title       string         `json:"title"`
		Description string         `json:"description,omitempty"`
		GridPos     gridPos        `json:"gridPos"`
		Datasource  *datasource    `json:"datasource,omitempty"`
		Targets     []target       `json:"targets,omitempty"`
		FieldConfig *fieldConfig   `json:"fieldConfig,omitempty"`
		Options     map[string]any `json:"options,omitempty"`
		Collapsed   *bool          `json:"collapsed,omitempty"`
	}
	gridPos struct {
		H int `json:"h"`
		W int `json:"w"`
		X int `json:"x"`
		Y int `json:"y"`
	}
	target struct {
		RefID        string      `json:"refId"`
		Datasource   *datasource `json:"datasource"`
		Expr         string      `json:"expr"`
		LegendFormat string      `json:"legendFormat,omitempty"`
		Instant      bool        `json:"instant,omitempty"`
		Range        bool        `json:"range,omitempty"`
		Format       string      `json:"format,omitempty"`
	}
	fieldConfig struct {
		Defaults  fieldDefaults   `json:"defaults"`
		Overrides []fieldOverride `json:"overrides"`
	}
	fieldDefaults struct {
		Unit       string         `json:"unit,omitempty"`
		Min        *float64       `json:"min,omitempty"`
		Color      map[string]any `json:"color,omitempty"`
		Thresholds *thresholds    `json:"thresholds,omitempty"`
		Mappings   []mapping      `json:"mappings,omitempty"`
		Custom     map[string]any `json:"custom,omitempty"`
	}
	thresholds struct {
		Mode  string      `json:"mode"`
		Steps []threshold `json:"steps"`
	}
	threshold struct {
		Color string   `json:"color"`
		Value *float64 `json:"value"`
	}
	mapping struct {
		Type    string                   `json:"type"`
		Options map[string]mappingResult `json:"options"`
	}
	mappingResult struct {
		Text  string `json:"text"`
		Color string `json:"color,omitempty"`
		Index int    `json:"index"`
	}
	fieldOverride struct {
		Matcher    map[string]any   `json:"matcher"`
		Properties []map[string]any `json:"properties"`
	}
)

var prometheusSource = &datasource{Type: "prometheus", UID: "${datasource}"}

const (
	// boardWidth is that of Grafana's grid.
	boardWidth = 24
	statWidth  = 3
)

// layout puts panels beside each other, row by row.
type layout struct {
	*board
	x, y, height int
}

func (l *layout) json() ([]byte, error) {
	out, err := json.MarshalIndent(l.board, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding the dashboard: %w", err)
	}
	return append(out, '\n'), nil
}

func (l *layout) place(p *panel, width, height int) {
	if l.x+width > boardWidth {
		l.newLine()
	}
	p.ID = len(l.Panels) + 1
	p.GridPos = gridPos{H: height, W: width, X: l.x, Y: l.y}
	l.x += width
	l.height = max(l.height, height)
	l.Panels = append(l.Panels, p)
}

func (l *layout) newLine() {
	l.y += l.height
	l.x, l.height = 0, 0
}

// row begins a part of the board.
func (l *layout) row(title string) {
	l.newLine()
	collapsed := false
	l.place(&panel{Type: "row", Title: title, Collapsed: &collapsed}, boardWidth, 1)
	l.newLine()
}

// query is a line of a panel: what to ask Prometheus for, and how to call it.
type query struct{ expr, legend string }

func targets(instant bool, queries []query) []target {
	out := make([]target, len(queries))
	for i, q := range queries {
		out[i] = target{
			RefID: string(rune('A' + i)), Datasource: prometheusSource, Expr: q.expr, LegendFormat: q.legend,
			Instant: instant, Range: !instant,
		}
	}
	return out
}

func ptrTo[T any](v T) *T { return &v }

// stat is one number, which has the colour of the last step that it has reached.
func (l *layout) stat(title, description string, steps []threshold, q query) {
	l.place(&panel{
		Type: "stat", Title: title, Description: description, Datasource: prometheusSource, Targets: targets(true, []query{q}),
		FieldConfig: &fieldConfig{
			Defaults: fieldDefaults{
				Unit: "none", Color: map[string]any{"mode": "thresholds"},
				Thresholds: &thresholds{Mode: "absolute", Steps: steps},
			},
			Overrides: []fieldOverride{},
		},
		Options: map[string]any{
			"colorMode": "background", "graphMode": "none", "textMode": "auto",
			"reduceOptions": map[string]any{"calcs": []string{"lastNotNull"}, "fields": "", "values": false},
		},
	}, statWidth, 4)
}

// graph is lines over time.
func (l *layout) graph(width int, title, description, unit string, queries ...query) *panel {
	p := &panel{
		Type: "timeseries", Title: title, Description: description, Datasource: prometheusSource, Targets: targets(false, queries),
		FieldConfig: &fieldConfig{
			Defaults: fieldDefaults{
				Unit: unit, Min: ptrTo(0.0), Color: map[string]any{"mode": "palette-classic"},
				Custom: map[string]any{"lineWidth": 1, "fillOpacity": 10, "showPoints": "never"},
			},
			Overrides: []fieldOverride{},
		},
		Options: map[string]any{
			"legend":  map[string]any{"displayMode": "list", "placement": "bottom", "showLegend": true},
			"tooltip": map[string]any{"mode": "multi", "sort": "desc"},
		},
	}
	l.place(p, width, 8)
	return p
}

// stacked lets the lines of a graph add up.
func (p *panel) stacked() *panel {
	p.FieldConfig.Defaults.Custom["stacking"] = map[string]any{"mode": "normal", "group": "A"}
	p.FieldConfig.Defaults.Custom["fillOpacity"] = 60
	return p
}

// coloured gives the lines called by a key that colour.
func (p *panel) coloured(colours []colour) {
	for _, c := range colours {
		p.FieldConfig.Overrides = append(p.FieldConfig.Overrides, fieldOverride{
			Matcher:    map[string]any{"id": "byName", "options": c.name},
			Properties: []map[string]any{{"id": "color", "value": map[string]any{"mode": "fixed", "fixedColor": c.colour}}},
		})
	}
}

type colour struct{ name, colour string }

// timeline is a bar for each line, coloured by what its value stands for.
func (l *layout) timeline(title, description string, states []colour, q query) {
	results := map[string]mappingResult{}
	for i, s := range states {
		results[fmt.Sprint(i)] = mappingResult{Text: s.name, Color: s.colour, Index: i}
	}
	l.place(&panel{
		Type: "state-timeline", Title: title, Description: description, Datasource: prometheusSource, Targets: targets(false, []query{q}),
		FieldConfig: &fieldConfig{
			Defaults: fieldDefaults{
				Color:    map[string]any{"mode": "thresholds"},
				Mappings: []mapping{{Type: "value", Options: results}},
				Custom:   map[string]any{"fillOpacity": 80, "lineWidth": 0},
			},
			Overrides: []fieldOverride{},
		},
		Options: map[string]any{
			"mergeValues": true, "showValue": "never", "rowHeight": 0.9, "alignValue": "left",
			"legend":  map[string]any{"displayMode": "list", "placement": "bottom", "showLegend": true},
			"tooltip": map[string]any{"mode": "single", "sort": "none"},
		},
	}, boardWidth, 12)
}

// table lists series with their labels.
func (l *layout) table(title, description string, q query) {
	list := targets(true, []query{q})
	list[0].Format = "table"
	l.place(&panel{
		Type: "table", Title: title, Description: description, Datasource: prometheusSource, Targets: list,
		FieldConfig: &fieldConfig{Defaults: fieldDefaults{}, Overrides: []fieldOverride{}},
		Options:     map[string]any{"showHeader": true},
	}, boardWidth/2, 8)
}
