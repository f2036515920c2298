package settings

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// entry is one key of a configuration file.
type entry struct {
	key, value   string
	line, column int
}

// readFile reads a configuration file: one YAML document, a mapping of settings to
// plain values. A list is read as its members with commas between them.
func readFile(path string) ([]entry, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	if bytes.HasPrefix(content, []byte("\xff\xfe")) || bytes.HasPrefix(content, []byte("\xfe\xff")) {
		return nil, fmt.Errorf("%s: it is UTF-16; save it as UTF-8", path)
	}
	content = bytes.TrimPrefix(content, []byte("\ufeff")) // a byte order mark, as some editors write it
	file, err := parser.ParseBytes(content, 0)
	if err != nil {
		var syntax *yaml.SyntaxError
		if errors.As(err, &syntax) && syntax.Token != nil {
			return nil, fmt.Errorf("%s:%d:%d: %s", path, syntax.Token.Position.Line, syntax.Token.Position.Column, syntax.Message)
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(file.Docs) > 1 {
		return nil, fmt.Errorf("%s: it is more than one YAML document", path)
	}
	if len(file.Docs) == 0 || file.Docs[0].Body == nil {
		return nil, nil
	}
	at := func(node ast.Node) string {
		position := node.GetToken().Position
		return fmt.Sprintf("%s:%d:%d", path, position.Line, position.Column)
	}
	var values []*ast.MappingValueNode
	switch body := file.Docs[0].Body.(type) {
	case *ast.MappingNode:
		values = body.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{body}
	case *ast.NullNode, *ast.CommentGroupNode:
		return nil, nil
	default:
		return nil, fmt.Errorf("%s: it is a mapping of settings to values, such as `shards: 4`", at(body))
	}
	var entries []entry
	var wrong []error
	for _, pair := range values {
		key := pair.Key.GetToken()
		value, err := plain(pair.Value)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %s: %w", at(pair.Value), key.Value, err))
			continue
		}
		entries = append(entries, entry{key.Value, value, key.Position.Line, key.Position.Column})
	}
	return entries, errors.Join(wrong...)
}

// plain is the text of a value.
func plain(node ast.Node) (string, error) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, nil
	case *ast.LiteralNode:
		return n.Value.Value, nil
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, nil
	case *ast.NullNode:
		return "", errors.New("it has no value; leave the key away for its default")
	case *ast.SequenceNode:
		var members []string
		for _, member := range n.Values {
			text, err := plain(member)
			if err != nil {
				return "", err
			}
			members = append(members, text)
		}
		return strings.Join(members, ","), nil
	}
	return "", fmt.Errorf("a plain value is wanted, not a %s", strings.ToLower(node.Type().String()))
}
