// Renders conversations through a template as Ollama does: Go's own text/template, with the functions and values that Ollama gives it.
//
//	render IN.json OUT.json
//
// IN holds a template and conversations in the form of Ollama's API, OUT gets the text of each, or why it has none.
// Covered: templates over .Messages. Not covered: the older form over .Prompt and .Response, images, and what Ollama does without a template.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/template"
	"time"
)

type request struct {
	Template      string         `json:"template"`
	Conversations []conversation `json:"conversations"`
}

type conversation struct {
	Messages []message `json:"messages"`
	Tools    tools     `json:"tools"`
	Think    *bool     `json:"think"` // null: the user did not say
}

// message is what templates see of one; Role, Content and so on are the names that they use.
type message struct {
	Role       string
	Content    string
	Thinking   string
	Images     []string
	ToolCalls  []toolCall `json:"tool_calls"`
	ToolName   string     `json:"tool_name"`
	ToolCallID string     `json:"tool_call_id"`
}

type toolCall struct {
	ID       string
	Function calledFunction
}

type calledFunction struct {
	Index     int
	Name      string
	Arguments arguments
}

type arguments map[string]any

func (a arguments) String() string { return orEmpty(a, len(a)) }

type tools []tool

func (t tools) String() string { return compact(t) }

type tool struct {
	Type     string   `json:"type"`
	Items    any      `json:"items,omitempty"`
	Function function `json:"function"`
}

func (t tool) String() string { return compact(t) }

type function struct {
	Name        string     `json:"name"`
	Description string     `json:"description"`
	Parameters  parameters `json:"parameters"`
}

type parameters struct {
	Type       string     `json:"type"`
	Defs       any        `json:"$defs,omitempty"`
	Items      any        `json:"items,omitempty"`
	Required   []string   `json:"required,omitempty"`
	Properties properties `json:"properties"`
}

type properties map[string]property

func (p properties) String() string { return orEmpty(p, len(p)) }

type property struct {
	AnyOf       []property `json:"anyOf,omitempty"`
	Type        kinds      `json:"type,omitempty"`
	Items       any        `json:"items,omitempty"`
	Description string     `json:"description,omitempty"`
	Enum        []any      `json:"enum,omitempty"`
	Properties  properties `json:"properties,omitempty"`
	Required    []string   `json:"required,omitempty"`
}

// kinds are JSON Schema's names of types: one as a string, several as a list.
type kinds []string

func (k *kinds) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*k = kinds{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(k))
}

func (k kinds) MarshalJSON() ([]byte, error) {
	if len(k) == 1 {
		return json.Marshal(k[0])
	}
	return json.Marshal([]string(k))
}

func (k kinds) String() string { return strings.Join(k, ", ") }

var inTypeScript = map[string]string{
	"string": "string", "number": "number", "integer": "number", "boolean": "boolean", "array": "any[]", "object": "Record<string, any>", "null": "null",
}

func typeScript(p property) string {
	var names []string
	for _, other := range p.AnyOf {
		names = append(names, typeScript(other))
	}
	if len(names) == 0 {
		for _, kind := range p.Type {
			name, known := inTypeScript[kind]
			if !known {
				name = "any"
			}
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "any"
	}
	return strings.Join(names, " | ")
}

func compact(value any) string {
	text, _ := json.Marshal(value)
	return string(text)
}

func orEmpty(value any, length int) string {
	if length == 0 {
		return "{}"
	}
	return compact(value)
}

func dated(days int) func(...string) string {
	return func(...string) string { return time.Now().AddDate(0, 0, days).Format("2006-01-02") }
}

var functions = template.FuncMap{
	"json":          compact,
	"currentDate":   dated(0),
	"yesterdayDate": dated(-1),
	"toTypeScriptType": func(value any) string {
		if found, is := value.(property); is {
			return typeScript(found)
		}
		return "any"
	},
}

// merged joins neighbours of one role by an empty line, but for results of tools, and says what all system messages are together.
func merged(given []message) ([]message, string) {
	var found []message
	var system []string
	for _, item := range given {
		if item.Role == "system" {
			system = append(system, item.Content)
		}
		if last := len(found) - 1; last >= 0 && found[last].Role == item.Role && item.Role != "tool" {
			found[last].Content += "\n\n" + item.Content
		} else {
			found = append(found, item)
		}
	}
	return found, strings.Join(system, "\n\n")
}

func render(parsed *template.Template, given conversation) (string, error) {
	messages, system := merged(given.Messages)
	var text bytes.Buffer
	err := parsed.Execute(&text, map[string]any{
		"System":     system,
		"Messages":   messages,
		"Tools":      given.Tools,
		"Response":   "",
		"Think":      given.Think != nil && *given.Think,
		"ThinkLevel": "",
		"IsThinkSet": given.Think != nil,
	})
	return text.String(), err
}

type rendering struct {
	Text  string `json:"text"`
	Error string `json:"error,omitempty"`
}

func run(in, out string) error {
	data, err := os.ReadFile(in)
	if err != nil {
		return err
	}
	var asked request
	if err := json.Unmarshal(data, &asked); err != nil {
		return err
	}
	parsed, err := template.New("").Option("missingkey=zero").Funcs(functions).Parse(asked.Template)
	if err == nil && !strings.Contains(asked.Template, ".Messages") {
		err = errors.New("the template reads no .Messages")
	}
	found := make([]rendering, len(asked.Conversations))
	for i, given := range asked.Conversations {
		var text string
		failure := err
		if failure == nil {
			text, failure = render(parsed, given)
		}
		if failure != nil {
			found[i].Error = failure.Error()
		} else {
			found[i].Text = text
		}
	}
	written, err := json.Marshal(found)
	if err != nil {
		return err
	}
	return os.WriteFile(out, written, 0o644)
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: render IN.json OUT.json")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
