// The Lua interpreter by which tests run Argo CD's health checks; nothing that is
// shipped needs it.
module hoststatus.dev/hoststatus/hack/lua

go 1.26.0

require github.com/yuin/gopher-lua v1.1.1
