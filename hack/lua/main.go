// SPDX-License-Identifier: Apache-2.0

// Command lua runs a health check as Argo CD does: the script $1 gets each object of
// the JSON array on standard input as the global obj, with the base and table
// libraries and nothing else, and returns a table. Its answers go to standard output,
// as a JSON array of {"status", "message"}.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	lua "github.com/yuin/gopher-lua"
)

type health struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 2 {
		return fmt.Errorf("usage: lua SCRIPT < objects.json")
	}
	var objects []map[string]any
	if err := json.NewDecoder(os.Stdin).Decode(&objects); err != nil {
		return fmt.Errorf("reading the objects: %w", err)
	}
	answers := []health{}
	for i, object := range objects {
		answer, err := check(os.Args[1], object)
		if err != nil {
			return fmt.Errorf("object %d: %w", i, err)
		}
		answers = append(answers, answer)
	}
	return json.NewEncoder(os.Stdout).Encode(answers)
}

func check(script string, object map[string]any) (answer health, err error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, open := range map[string]lua.LGFunction{lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable} {
		if err := state.CallByParam(lua.P{Fn: state.NewFunction(open), Protect: true}, lua.LString(name)); err != nil {
			return answer, fmt.Errorf("opening the library %q: %w", name, err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	state.SetContext(ctx)
	state.SetGlobal("obj", value(state, object))
	if err := state.DoFile(script); err != nil {
		return answer, err
	}
	table, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return answer, fmt.Errorf("the script returns %s, not a table", state.Get(-1).Type())
	}
	answer.Status, answer.Message = lua.LVAsString(table.RawGetString("status")), lua.LVAsString(table.RawGetString("message"))
	return answer, nil
}

// value translates what JSON decodes to.
func value(state *lua.LState, from any) lua.LValue {
	switch v := from.(type) {
	case bool:
		return lua.LBool(v)
	case float64:
		return lua.LNumber(v)
	case string:
		return lua.LString(v)
	case []any:
		table := state.NewTable()
		for _, item := range v {
			table.Append(value(state, item))
		}
		return table
	case map[string]any:
		table := state.NewTable()
		for key, item := range v {
			table.RawSetString(key, value(state, item))
		}
		return table
	default:
		return lua.LNil
	}
}
