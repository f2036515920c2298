package docs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/tailbound/tailbound"

// deterministic are the rooms that are functions of completions, mail, clock
// and seed: the simulator replays them, so nothing else may decide anything.
var deterministic = []string{"netring", "engine", "engine/format", "engine/recovery", "kafka", "cluster", "shard", "broker"}

// documented are the rooms others build on.
var documented = []string{"mem", "metrics", "kafka", "ioring", "netring", "engine", "engine/format", "engine/recovery", "cluster", "cluster/groups", "shard", "shard/control", "broker", "cmd/tailbound/term", "cmd/tailbound/program", "cmd/tailbound/observe", "cmd/tailbound/client", "cmd/tailbound/settings", "cmd/tailbound/datadir"}

// instead says, of each package that a room must never import, what does its
// work there: a refusal that names no way out is only obeyed.
var instead = map[string]string{
	"os":                                "Files are operations of ioring.Ring: the room submits one and reads its completion",
	"net":                               "Sockets are operations of ioring.Ring; netring has them",
	"time":                              "Time is an argument: the turn's now and wall, in nanoseconds",
	"sync":                              "One thread owns a shard; what crosses shards is mail, over sync/atomic",
	"math/rand":                         "Draw from a source made from the shard's seed",
	"crypto/rand":                       "Draw from a source made from the shard's seed",
	"github.com/twmb/franz-go/pkg/kmsg": "kmsg allocates for every nested list; hot keys have walkers in kafka, all others go to shard/control",
	"github.com/klauspost/compress":     "A data shard opens no batch; shard/control opens the copy that it is lent",
	"github.com/pierrec/lz4/v4":         "A data shard opens no batch; shard/control opens the copy that it is lent",
	"hash/maphash":                      "Its seed differs in every process; use a hash that is the same in all of them",
}

// room is one row of the table of rooms.
type room struct {
	name   string
	floor  int // noFloor for "–"
	may    []string
	never  []string
	nested bool // a module of its own
}

const noFloor = 1 << 30

// file is one Go file of the tree.
type file struct {
	path string // from the root of the module
	dir  string
	ast  *ast.File
	test bool
}

// world says whether a file may use what deterministic code may not. The file's name
// shows it.
func (f *file) world() bool { return strings.HasSuffix(f.path, "_linux.go") }

func (f *file) in(room string) bool {
	return f.dir == room || strings.HasPrefix(f.dir, room+"/")
}

var (
	fset  = token.NewFileSet()
	files []*file
)

func TestMain(m *testing.M) {
	if err := readTree(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func readTree() error {
	return filepath.WalkDir("..", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if name == "testdata" || name != ".." && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		parsed, err := parser.ParseFile(fset, p, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return fmt.Errorf("%w (the rules of docs/ARCHITECTURE.md are checked on code that parses)", err)
		}
		rel := filepath.ToSlash(strings.TrimPrefix(p, ".."+string(filepath.Separator)))
		files = append(files, &file{rel, path.Dir(rel), parsed, strings.HasSuffix(name, "_test.go")})
		return nil
	})
}

var code = regexp.MustCompile("`([^`]+)`")

// readRooms reads the table of rooms: the first four columns of every row
// behind the heading that has them.
func readRooms(t *testing.T) []room {
	t.Helper()
	text, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	var rooms []room
	inside := false
	for _, line := range strings.Split(string(text), "\n") {
		if !strings.HasPrefix(line, "|") {
			inside = false
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if len(cells) >= 4 && cells[0] == "room" && cells[1] == "floor" && cells[2] == "may import" && cells[3] == "must never" {
			inside = true
			continue
		}
		if !inside || strings.HasPrefix(cells[0], "--") {
			continue
		}
		if len(cells) != 4 {
			t.Fatalf("ARCHITECTURE.md: a row of the table of rooms has %d cells, not 4: %s", len(cells), line)
		}
		r := room{name: strings.Trim(cells[0], "`"), floor: noFloor, may: quoted(cells[2]), never: quoted(cells[3])}
		if cells[1] != "–" {
			if r.floor, err = strconv.Atoi(cells[1]); err != nil {
				t.Fatalf("ARCHITECTURE.md: the floor of %s is %q; a number or –", r.name, cells[1])
			}
		}
		if _, err := os.Stat(filepath.Join("..", r.name, "go.mod")); err == nil {
			r.nested = true
		}
		rooms = append(rooms, r)
	}
	if len(rooms) < 10 {
		t.Fatalf("ARCHITECTURE.md: found %d rooms in the table headed | room | floor | may import | must never |", len(rooms))
	}
	return rooms
}

func quoted(cell string) []string {
	var out []string
	for _, m := range code.FindAllStringSubmatch(cell, -1) {
		out = append(out, m[1])
	}
	return out
}

// roomOf is the row for a directory: its own, or its parent's.
func roomOf(rooms []room, dir string) *room {
	for d := dir; d != "."; d = path.Dir(d) {
		if i := slices.IndexFunc(rooms, func(r room) bool { return r.name == d }); i >= 0 {
			return &rooms[i]
		}
	}
	return nil
}

// covers says whether a package is what a row names, or below it. Atomics are
// no locks.
func covers(pattern, imported string) bool {
	if imported == "sync/atomic" {
		return pattern == imported
	}
	return imported == pattern || strings.HasPrefix(imported, pattern+"/")
}

func TestTableOfRooms(t *testing.T) {
	rooms := readRooms(t)
	for _, r := range rooms {
		if _, err := os.Stat(filepath.Join("..", r.name)); err != nil {
			t.Errorf("ARCHITECTURE.md has a room %s, and the tree has not: %v", r.name, err)
		}
		for _, n := range r.never {
			if _, ours := strings.CutPrefix(n, module); instead[n] == "" && !ours && roomOf(rooms, n) == nil {
				t.Errorf("ARCHITECTURE.md: %s must never import %s; say in `instead` of docs_test.go what it is to use", r.name, n)
			}
		}
		for _, m := range r.may {
			if i := slices.IndexFunc(rooms, func(o room) bool { return o.name == m }); i >= 0 && rooms[i].floor >= r.floor {
				t.Errorf("ARCHITECTURE.md: %s (floor %d) may import %s (floor %d); imports go strictly down", r.name, r.floor, m, rooms[i].floor)
			}
		}
	}
	for _, f := range files {
		if roomOf(rooms, f.dir) == nil {
			t.Errorf("%s is in no room. Which one knows its subject? If it is a new one, give it a row in docs/ARCHITECTURE.md", f.path)
		}
	}
}

func TestImportsGoDown(t *testing.T) {
	rooms := readRooms(t)
	for _, f := range files {
		for _, fault := range importFaults(rooms, f) {
			t.Error(fault)
		}
	}
}

// importFaults are the imports of a file that its room's row does not allow.
func importFaults(rooms []room, f *file) (faults []string) {
	r := roomOf(rooms, f.dir)
	if r == nil {
		return nil // TestTableOfRooms says so
	}
	for _, spec := range f.ast.Imports {
		imported, _ := strconv.Unquote(spec.Path.Value)
		wrong := func(format string, args ...any) {
			faults = append(faults, fmt.Sprintf("%s: ", fset.Position(spec.Pos()))+fmt.Sprintf(format, args...))
		}
		if r.nested {
			allowed := slices.ContainsFunc(r.may, func(m string) bool { return covers(module+"/"+m, imported) })
			if covers(module, imported) && !covers(module+"/"+r.name, imported) && !allowed {
				wrong("%s imports %s; a module of its own sees the product only from outside", r.name, imported)
			}
			continue
		}
		if f.test {
			continue
		}
		if ours, ok := strings.CutPrefix(imported, module+"/"); ok {
			to := roomOf(rooms, ours)
			switch {
			case to == nil:
				wrong("%s imports %s, which is no room", r.name, imported)
			case to.name == r.name: // a part of the same room
			case to.floor >= r.floor:
				wrong("%s (floor %d) imports %s (floor %d); imports go strictly down. What does the lower room need to know? Pass it as plain data", r.name, r.floor, to.name, to.floor)
			case !slices.Contains(r.may, to.name):
				wrong("%s imports %s, which its row in docs/ARCHITECTURE.md does not allow", r.name, to.name)
			}
			continue
		}
		for _, n := range r.never {
			if covers(n, imported) && !f.world() {
				wrong("%s must never import %s (docs/ARCHITECTURE.md). %s", r.name, imported, instead[n])
			}
		}
		if first, _, _ := strings.Cut(imported, "/"); strings.Contains(first, ".") {
			if !slices.ContainsFunc(r.may, func(m string) bool { return covers(m, imported) }) {
				wrong("%s imports %s, which its row in docs/ARCHITECTURE.md does not allow; argue for a dependency in docs/decisions/0005-dependencies.md first", r.name, imported)
			}
		}
	}
	return faults
}

// TestDependenciesAreArguedFor: each imported module has a paragraph.
func TestDependenciesAreArguedFor(t *testing.T) {
	text, err := os.ReadFile("decisions/0005-dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	rooms := readRooms(t)
	for _, f := range files {
		if r := roomOf(rooms, f.dir); r == nil || r.nested {
			continue
		}
		for _, spec := range f.ast.Imports {
			imported, _ := strconv.Unquote(spec.Path.Value)
			if first, _, _ := strings.Cut(imported, "/"); !strings.Contains(first, ".") || covers(module, imported) || seen[imported] {
				continue
			}
			seen[imported] = true
			argued := slices.ContainsFunc(quoted(string(text)), func(m string) bool {
				return strings.Contains(m, ".") && covers(m, imported)
			})
			if !argued {
				t.Errorf("%s: %s is imported, and docs/decisions/0005-dependencies.md has no `%s`", fset.Position(spec.Pos()), imported, imported)
			}
		}
	}
}

func TestEveryRoomSaysWhatItIs(t *testing.T) {
	says := map[string]bool{}
	var dirs []string
	for _, f := range files {
		if !slices.Contains(dirs, f.dir) {
			dirs = append(dirs, f.dir)
		}
		main := f.ast.Name.Name == "main" && path.Base(f.path) == "main.go" // a command's comment is its usage
		if (path.Base(f.path) == "doc.go" || main) && f.ast.Doc != nil {
			says[f.dir] = true
			want := "Package " + f.ast.Name.Name + " "
			if f.ast.Name.Name == "main" {
				want = "Command " + path.Base(f.dir) + " "
			}
			if !strings.HasPrefix(f.ast.Doc.Text(), want) {
				t.Errorf("%s: the comment begins %q; begin with %q", f.path, strings.SplitN(f.ast.Doc.Text(), "\n", 2)[0], want)
			}
		}
	}
	for _, d := range dirs {
		if !says[d] {
			t.Errorf("%s has no doc.go with a package comment: what it knows, what it never imports, its invariants", d)
		}
	}
}

// TestDeterministicRooms: what the simulator replays must not be decided by
// the scheduler, a clock, chance, or the order of a map.
func TestDeterministicRooms(t *testing.T) {
	maps := rangedMaps(t)
	for _, f := range files {
		name := ""
		for _, r := range deterministic {
			if f.in(r) {
				name = r
			}
		}
		if name == "" || f.test || f.world() {
			continue
		}
		for _, fault := range deterministicFaults(f, name, maps) {
			t.Error(fault)
		}
	}
}

// deterministicFaults are the places of a file where something else than
// completions, mail, clock and seed decides. maps are its ranges over maps.
func deterministicFaults(f *file, name string, maps map[string]bool) (faults []string) {
	wrong := func(n ast.Node, what, instead string) {
		faults = append(faults, fmt.Sprintf("%s: %s; %s is deterministic (docs/ARCHITECTURE.md, The seam). %s", fset.Position(n.Pos()), what, name, instead))
	}
	imports := map[string]string{} // local name -> path
	for _, spec := range f.ast.Imports {
		p, _ := strconv.Unquote(spec.Path.Value)
		local := path.Base(strings.TrimSuffix(p, "/v2"))
		if spec.Name != nil {
			local = spec.Name.Name
		}
		imports[local] = p
		switch p {
		case "sync":
			wrong(spec, "it imports sync", instead[p])
		case "hash/maphash":
			wrong(spec, "it imports hash/maphash", instead[p])
		}
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			wrong(n, "a go statement", "Put it in a file named *_linux.go, or make it a machine with stages")
		case *ast.ChanType:
			wrong(n, "a channel", "Use a mailbox or a bounded queue of plain data")
		case *ast.SelectStmt:
			wrong(n, "a select", "Poll plain data in the turn")
		case *ast.SendStmt:
			wrong(n, "a send", "Use a mailbox")
		case *ast.UnaryExpr:
			if n.Op == token.ARROW {
				wrong(n, "a receive", "Use a mailbox")
			}
		case *ast.RangeStmt:
			if maps[at(n.Pos())] && !marked(f, n.Pos()) {
				wrong(n, "a range over a map", "Keep a sorted slice or, if the order has no effect, say `// order does not matter` on the line")
			}
		case *ast.SelectorExpr:
			x, ok := n.X.(*ast.Ident)
			if !ok {
				break
			}
			switch p := imports[x.Name]; p {
			case "time":
				if slices.Contains([]string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}, n.Sel.Name) {
					wrong(n, "time."+n.Sel.Name, instead[p])
				}
			case "math/rand", "math/rand/v2":
				if !strings.HasPrefix(n.Sel.Name, "New") && !slices.Contains([]string{"Rand", "PCG", "ChaCha8", "Source", "Zipf"}, n.Sel.Name) {
					wrong(n, "rand."+n.Sel.Name, instead["math/rand"])
				}
			case "crypto/rand":
				wrong(n, "crypto/rand", instead[p])
			case "maps":
				if slices.Contains([]string{"Keys", "Values", "All"}, n.Sel.Name) && !marked(f, n.Pos()) {
					wrong(n, "maps."+n.Sel.Name, "Its order is the map's; sort it and say `// sorted` on the line")
				}
			}
		}
		return true
	})
	return faults
}

// marked says whether a comment on the line, or alone on the line before it,
// says that the order is no matter, or made one.
func marked(f *file, pos token.Pos) bool {
	line := fset.Position(pos).Line
	for _, g := range f.ast.Comments {
		for _, c := range g.List {
			if l := fset.Position(c.Pos()).Line; l != line && l != line-1 {
				continue
			}
			if strings.Contains(c.Text, "order does not matter") || strings.Contains(c.Text, "sorted") {
				return true
			}
		}
	}
	return false
}

func at(pos token.Pos) string {
	p := fset.Position(pos)
	return fmt.Sprintf("%s:%d:%d", filepath.ToSlash(p.Filename), p.Line, p.Column)
}

// rangedMaps finds the range statements over maps, by position: that takes
// types, so each deterministic package is checked against the compiled form of
// what it imports.
func rangedMaps(t *testing.T) map[string]bool {
	t.Helper()
	type listed struct {
		ImportPath, Dir, Export string
		GoFiles                 []string
	}
	args := []string{"list", "-e", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles"}
	for _, d := range deterministic {
		args = append(args, "./"+d+"/...")
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = ".."
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, complaints.Bytes())
	}
	export := map[string]string{}
	var ours []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		export[p.ImportPath] = p.Export
		for _, d := range deterministic {
			if covers(module+"/"+d, p.ImportPath) {
				ours = append(ours, p)
			}
		}
	}
	from := importer.ForCompiler(fset, "gc", func(p string) (io.ReadCloser, error) {
		if export[p] == "" {
			return nil, fmt.Errorf("%s does not compile", p)
		}
		return os.Open(export[p])
	})
	found := map[string]bool{}
	for _, p := range ours {
		var parsed []*ast.File
		for _, f := range files {
			if module+"/"+f.dir == p.ImportPath && slices.Contains(p.GoFiles, path.Base(f.path)) {
				parsed = append(parsed, f.ast)
			}
		}
		findRangedMaps(t, p.ImportPath, parsed, from, found)
	}
	return found
}

func findRangedMaps(t *testing.T, name string, parsed []*ast.File, from types.Importer, found map[string]bool) {
	info := types.Info{Types: map[ast.Expr]types.TypeAndValue{}}
	conf := types.Config{Importer: from, Error: func(err error) { t.Logf("types of %s: %v", name, err) }}
	conf.Check(name, fset, parsed, &info) // what it could not type, the compiler refuses anyway
	for _, f := range parsed {
		ast.Inspect(f, func(n ast.Node) bool {
			if r, ok := n.(*ast.RangeStmt); ok {
				if typ := info.Types[r.X].Type; typ != nil {
					if _, ok := typ.Underlying().(*types.Map); ok {
						found[at(r.Pos())] = true
					}
				}
			}
			return true
		})
	}
}

// planted breaks every rule once, each on a line that ends in what must be
// said about it.
const planted = `package cluster

import (
	"maps"
	"math/rand/v2"                      // must never import math/rand
	"sync"                              // must never import sync
	"sync/atomic"
	"github.com/tailbound/tailbound/bench"                   // imports go strictly down
	"github.com/tailbound/tailbound/mem"                     // does not allow
	"github.com/tailbound/tailbound/nowhere"                 // is no room
	"time"                              // must never import time
	"example.org/dependency"            // argue for a dependency
)

type queue chan int                     // a channel

func f(m map[int]int, q queue) {
	go f(m, q)                          // a go statement
	select {}                           // a select
	q <- 1                              // a send
	<-q                                 // a receive

	for range m {                       // a range over a map

	}
	for range m { // order does not matter
	}
	_ = maps.Keys(m)                    // maps.Keys

	_ = slices.Sorted(maps.Keys(m)) // sorted

	time.Sleep(1)                       // time.Sleep
	rand.Int()                          // rand.Int
	rand.New(rand.NewPCG(1, 2))
}
`

// TestPlantedFaultsAreFound: a checker that finds nothing is not believed.
func TestPlantedFaultsAreFound(t *testing.T) {
	parsed, err := parser.ParseFile(fset, "planted.go", planted, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	f := &file{path: "cluster/planted.go", dir: "cluster", ast: parsed}
	maps := map[string]bool{}
	findRangedMaps(t, "planted", []*ast.File{parsed}, importer.Default(), maps)
	faults := append(importFaults(readRooms(t), f), deterministicFaults(f, "cluster", maps)...)
	for i, line := range strings.Split(planted, "\n") {
		_, want, expected := strings.Cut(line, "    // ")
		here := fmt.Sprintf("planted.go:%d:", i+1)
		found := slices.ContainsFunc(faults, func(s string) bool {
			return strings.HasPrefix(s, here) && strings.Contains(s, want)
		})
		if expected && !found {
			t.Errorf("nothing says %q of %q", want, line)
		}
		if !expected && slices.ContainsFunc(faults, func(s string) bool { return strings.HasPrefix(s, here) }) {
			t.Errorf("something is said of %q, which breaks no rule", line)
		}
	}
}

func TestExportedNamesAreDescribed(t *testing.T) {
	for _, f := range files {
		if f.test || !slices.ContainsFunc(documented, f.in) {
			continue
		}
		missing := func(n ast.Node, name string) {
			t.Errorf("%s: %s is exported and has no comment: shapes, units, errors", fset.Position(n.Pos()), name)
		}
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && d.Doc == nil && receiverExported(d) {
					missing(d, d.Name.Name)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch spec := spec.(type) {
					case *ast.TypeSpec:
						if spec.Name.IsExported() && spec.Doc == nil && d.Doc == nil && spec.Comment == nil {
							missing(spec, spec.Name.Name)
						}
					case *ast.ValueSpec:
						for _, n := range spec.Names {
							if n.IsExported() && spec.Doc == nil && spec.Comment == nil && d.Doc == nil {
								missing(n, n.Name)
							}
						}
					}
				}
			}
		}
	}
}

// receiverExported says whether a function is none's method, or an exported
// type's.
func receiverExported(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	typ := d.Recv.List[0].Type
	for {
		switch x := typ.(type) {
		case *ast.StarExpr:
			typ = x.X
		case *ast.IndexExpr:
			typ = x.X
		case *ast.IndexListExpr:
			typ = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return true
		}
	}
}

var link = regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)

// TestLinksLead: what the documents point to is there.
func TestLinksLead(t *testing.T) {
	var pages []string
	for _, pattern := range []string{"../*.md", "*.md", "decisions/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, found...)
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s points to %s, which is not there", page, m[1])
			}
		}
	}
}
