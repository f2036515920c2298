// Command measure prints the numbers that a reader feels: how large the largest
// types, files and functions are, how many locals are named by one letter, how
// much of the text is comment, and how long each package is. Nothing is held
// against them; they are for comparing two commits.
//
//	go run ./measure [-top N] [DIR]    the module in DIR, default the present directory
//
// Tests and generated code are counted by their lines only.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/tools/go/packages"
)

// room is what is counted of one package.
type room struct {
	name         string
	files        int
	lines        int // of its files, without tests
	comments     int // lines that hold nothing but comment
	behind       int // lines of code with a comment behind it
	testLines    int
	functions    int
	long         int // functions of more than longLines lines
	locals       int // local variables and parameters, receivers and _ excepted
	oneLetter    int // of them, those with a name of one letter
	oneLetterTop map[string]int
}

const longLines = 50

// sized is a named thing with its size.
type sized struct {
	name   string
	size   int
	detail string
}

// structure is a struct type: own fields and methods, and with those that
// embedded types promote.
type structure struct {
	name                                   string
	fields, allFields, methods, allMethods int
}

func main() {
	top := flag.Int("top", 12, "how many types, files and functions to list")
	flag.Parse()
	dir := "."
	if flag.NArg() > 0 {
		dir = flag.Arg(0)
	}
	if err := measure(dir, *top); err != nil {
		fmt.Fprintln(os.Stderr, "measure:", err)
		os.Exit(1)
	}
}

func measure(dir string, top int) error {
	root, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	loaded, err := packages.Load(&packages.Config{
		Mode: packages.NeedName | packages.NeedFiles | packages.NeedSyntax | packages.NeedTypes | packages.NeedTypesInfo | packages.NeedImports | packages.NeedDeps | packages.NeedModule,
		Dir:  root,
	}, "./...")
	if err != nil {
		return err
	}
	if packages.PrintErrors(loaded) > 0 {
		return fmt.Errorf("%s does not compile", root)
	}
	var (
		rooms      []*room
		files      []sized
		functions  []sized
		structures []structure
	)
	for _, p := range loaded {
		name := strings.TrimPrefix(strings.TrimPrefix(p.PkgPath, p.Module.Path), "/")
		r := &room{name: cmp.Or(name, "."), oneLetterTop: map[string]int{}}
		rooms = append(rooms, r)
		for i, f := range p.Syntax {
			path := p.GoFiles[i]
			if ast.IsGenerated(f) {
				continue
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			relative, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			lines := strings.Count(string(text), "\n")
			files = append(files, sized{relative, lines, ""})
			r.files++
			r.lines += lines
			r.countComments(p.Fset, f, text)
			for _, d := range f.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if !ok {
					continue
				}
				size := p.Fset.Position(fn.End()).Line - p.Fset.Position(fn.Pos()).Line + 1
				functions = append(functions, sized{r.name + "." + functionName(fn), size, fmt.Sprintf("%d branches", branches(fn))})
				r.functions++
				if size > longLines {
					r.long++
				}
				r.countLocals(fn, p.TypesInfo)
			}
		}
		structures = append(structures, structuresOf(r.name, p.Types)...)
		tests, err := filepath.Glob(filepath.Join(root, name, "*_test.go"))
		if err != nil {
			return err
		}
		for _, path := range tests {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			r.testLines += strings.Count(string(text), "\n")
		}
	}
	slices.SortFunc(rooms, func(a, b *room) int { return cmp.Compare(a.name, b.name) })
	return printAll(rooms, files, functions, structures, top)
}

func printAll(rooms []*room, files, functions []sized, structures []structure, top int) error {
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(out, "package\tfiles\tlines\ttests\tcomment lines\tbehind code\tone-letter locals\tthe most frequent\tfunctions\tover %d lines\n", longLines)
	total := &room{name: "all", oneLetterTop: map[string]int{}}
	for _, r := range rooms {
		total.add(r)
	}
	for _, r := range append(rooms, total) {
		fmt.Fprintf(out, "%s\t%d\t%d\t%d\t%s\t%s\t%s of %d\t%s\t%d\t%d\n", r.name, r.files, r.lines, r.testLines,
			share(r.comments, r.lines), share(r.behind, r.lines), share(r.oneLetter, r.locals), r.locals, frequent(r.oneLetterTop), r.functions, r.long)
	}
	fmt.Fprintf(out, "\ntype\tfields\twith promoted\tmethods\twith promoted\n")
	slices.SortStableFunc(structures, func(a, b structure) int {
		return cmp.Or(cmp.Compare(b.allFields+b.allMethods, a.allFields+a.allMethods), cmp.Compare(a.name, b.name))
	})
	for _, s := range structures[:min(top, len(structures))] {
		fmt.Fprintf(out, "%s\t%d\t%d\t%d\t%d\n", s.name, s.fields, s.allFields, s.methods, s.allMethods)
	}
	for _, list := range []struct {
		title string
		of    []sized
	}{{"file\tlines", files}, {"function\tlines", functions}} {
		fmt.Fprintf(out, "\n%s\n", list.title)
		slices.SortStableFunc(list.of, func(a, b sized) int { return cmp.Or(cmp.Compare(b.size, a.size), cmp.Compare(a.name, b.name)) })
		for _, s := range list.of[:min(top, len(list.of))] {
			fmt.Fprintf(out, "%s\t%d\t%s\n", s.name, s.size, s.detail)
		}
	}
	return out.Flush()
}

func (r *room) add(o *room) {
	r.files += o.files
	r.lines += o.lines
	r.comments += o.comments
	r.behind += o.behind
	r.testLines += o.testLines
	r.functions += o.functions
	r.long += o.long
	r.locals += o.locals
	r.oneLetter += o.oneLetter
	for name, n := range o.oneLetterTop {
		r.oneLetterTop[name] += n
	}
}

// countComments counts each line once: as comment where nothing else is on it,
// as comment behind code otherwise.
func (r *room) countComments(fset *token.FileSet, f *ast.File, text []byte) {
	lines := strings.Split(string(text), "\n")
	for _, group := range f.Comments {
		for _, c := range group.List {
			first, last := fset.Position(c.Pos()), fset.Position(c.End())
			if strings.TrimSpace(lines[first.Line-1][:first.Column-1]) == "" {
				r.comments += last.Line - first.Line + 1
			} else {
				r.behind++
			}
		}
	}
}

// countLocals counts the variables that a function declares, its parameters and
// results too; the receiver is not among them.
func (r *room) countLocals(fn *ast.FuncDecl, info *types.Info) {
	count := func(n ast.Node) bool {
		id, ok := n.(*ast.Ident)
		if !ok || id.Name == "_" {
			return true
		}
		v, ok := info.Defs[id].(*types.Var)
		if !ok || v.IsField() {
			return true
		}
		r.locals++
		if len(id.Name) == 1 {
			r.oneLetter++
			r.oneLetterTop[id.Name]++
		}
		return true
	}
	ast.Inspect(fn.Type, count)
	if fn.Body != nil {
		ast.Inspect(fn.Body, count)
	}
}

// structuresOf are the struct types of a package.
func structuresOf(name string, p *types.Package) (all []structure) {
	for _, n := range p.Scope().Names() {
		t, ok := p.Scope().Lookup(n).(*types.TypeName)
		if !ok || t.IsAlias() {
			continue
		}
		named, ok := t.Type().(*types.Named)
		if !ok {
			continue
		}
		body, ok := named.Underlying().(*types.Struct)
		if !ok {
			continue
		}
		all = append(all, structure{
			name: name + "." + n, fields: body.NumFields(), allFields: promoted(body, map[types.Type]bool{named: true}),
			methods: named.NumMethods(), allMethods: types.NewMethodSet(types.NewPointer(named)).Len(),
		})
	}
	return all
}

// promoted counts the fields that can be written behind a value's name: an
// embedded struct's in its place.
func promoted(body *types.Struct, seen map[types.Type]bool) (n int) {
	for f := range body.Fields() {
		n++
		if !f.Embedded() {
			continue
		}
		t := f.Type()
		if p, ok := t.(*types.Pointer); ok {
			t = p.Elem()
		}
		if inner, ok := t.Underlying().(*types.Struct); ok && !seen[t] {
			seen[t] = true
			n += promoted(inner, seen)
		}
	}
	return n
}

func functionName(fn *ast.FuncDecl) string {
	if fn.Recv == nil || len(fn.Recv.List) == 0 {
		return fn.Name.Name
	}
	t := fn.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	if generic, ok := t.(*ast.IndexExpr); ok {
		t = generic.X
	}
	return fmt.Sprint(t) + "." + fn.Name.Name
}

// branches counts the places where a function may go two ways.
func branches(fn *ast.FuncDecl) (n int) {
	ast.Inspect(fn, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.IfStmt, *ast.ForStmt, *ast.RangeStmt, *ast.CaseClause, *ast.CommClause:
			n++
		case *ast.BinaryExpr:
			if node.Op == token.LAND || node.Op == token.LOR {
				n++
			}
		}
		return true
	})
	return n
}

func share(part, whole int) string {
	if whole == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(part)/float64(whole))
}

// frequent are the names that stand for most variables.
func frequent(counts map[string]int) string {
	names := make([]string, 0, len(counts))
	for name := range counts {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b)) })
	for i, name := range names {
		names[i] = fmt.Sprintf("%s %d", name, counts[name])
	}
	return strings.Join(names[:min(4, len(names))], ", ")
}
