// The library by which Grafana's dashboard is built. A module of its own keeps it out
// of the operator's go.mod.
module hoststatus.dev/hoststatus/hack/gen/dashboard

go 1.26.0

require github.com/grafana/grafana-foundation-sdk/go v0.0.22
