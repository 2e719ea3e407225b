// Renders conversations through a template as Ollama does: Go's own text/template, with the functions and values that Ollama gives it.
//
//	render IN.json OUT.json
//
// IN holds a template and conversations in the form of Ollama's API, OUT gets the text of each, or why it has none.
// Covered: templates over .Messages, and the older form over .System, .Prompt and .Response. Not covered: images, and what Ollama does without a template.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/template"
	"text/template/parse"
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

func (f function) String() string { return compact(f) }

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

func render(whole *template.Template, given conversation) (string, error) {
	messages, system := merged(given.Messages)
	var text bytes.Buffer
	err := whole.Execute(&text, map[string]any{
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

// parsed is a template in one of the two forms.
type parsed struct {
	whole  *template.Template
	last   *template.Template // of the older form: the same up to the answer
	answer bool               // the older form says where the answer goes; where it does not, that is the end
}

func read(source string) (parsed, error) {
	var found parsed
	var err error
	if found.whole, err = template.New("").Option("missingkey=zero").Funcs(functions).Parse(source); err != nil {
		return found, err
	}
	if strings.Contains(source, ".Messages") {
		return found, nil
	}
	if !strings.Contains(source, ".Prompt") {
		return found, errors.New("the template reads neither .Messages nor .Prompt")
	}
	found.last = template.Must(template.New("").Option("missingkey=zero").Funcs(functions).Parse(source))
	found.answer = cut(found.last.Tree.Root)
	return found, nil
}

// cut leaves out what follows upon the first .Response, and says whether there is one.
func cut(list *parse.ListNode) bool {
	for place, node := range list.Nodes {
		var branch *parse.BranchNode
		switch node := node.(type) {
		case *parse.ActionNode:
			if strings.Contains(node.String(), ".Response") {
				list.Nodes = list.Nodes[:place+1]
				return true
			}
		case *parse.IfNode:
			branch = &node.BranchNode
		case *parse.WithNode:
			branch = &node.BranchNode
		case *parse.RangeNode:
			branch = &node.BranchNode
		}
		if branch != nil && (cut(branch.List) || (branch.ElseList != nil && cut(branch.ElseList))) {
			list.Nodes = list.Nodes[:place+1]
			return true
		}
	}
	return false
}

// inRounds renders the older form: once for each question with its answer and what the system says before it, the last time up to the answer.
func inRounds(form parsed, given conversation) (string, error) {
	messages, _ := merged(given.Messages)
	var text bytes.Buffer
	var system, prompt, response string
	round := func(part *template.Template) error {
		said := map[string]any{"System": system, "Prompt": prompt, "Response": response, "Think": given.Think != nil && *given.Think, "IsThinkSet": given.Think != nil}
		if err := part.Execute(&text, said); err != nil {
			return err
		}
		if !form.answer {
			text.WriteString(response)
		}
		system, prompt, response = "", "", ""
		return nil
	}
	for _, item := range messages {
		begins := (item.Role == "system" && prompt+response != "") || (item.Role == "user" && response != "")
		if begins {
			if err := round(form.whole); err != nil {
				return "", err
			}
		}
		switch item.Role {
		case "system":
			system = item.Content
		case "user":
			prompt = item.Content
		case "assistant":
			response = item.Content
		}
	}
	err := round(form.last)
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
	form, err := read(asked.Template)
	found := make([]rendering, len(asked.Conversations))
	for i, given := range asked.Conversations {
		var text string
		failure := err
		if failure == nil && form.last != nil {
			text, failure = inRounds(form, given)
		} else if failure == nil {
			text, failure = render(form.whole, given)
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
