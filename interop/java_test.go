package interop

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// javaPrograms are testdata/foreign's Java programs, compiled once for a run against the jars of a foreign, or why they cannot be.
var javaPrograms = struct {
	sync.Mutex
	classpath map[string]string // by the program
	dir       string            // what was compiled; TestMain removes it
}{classpath: map[string]string{}}

// javaProgram is the class path by which a program of testdata/foreign runs.
func javaProgram(t *testing.T, f *foreign, program string) (classpath string) {
	t.Helper()
	javaPrograms.Lock()
	defer javaPrograms.Unlock()
	if at, ok := javaPrograms.classpath[program]; ok {
		return at
	}
	dir, why := f.had(t)
	if why != "" {
		t.Skip(why)
	}
	if javaPrograms.dir == "" {
		var err error
		if javaPrograms.dir, err = os.MkdirTemp("", "interop-classes-"); err != nil {
			t.Fatal(err)
		}
	}
	classes := filepath.Join(javaPrograms.dir, program)
	if err := os.MkdirAll(classes, 0o755); err != nil {
		t.Fatal(err)
	}
	if said, err := exec.Command("javac", "-cp", dir+"/*", "-d", classes, filepath.Join("testdata", "foreign", program+".java")).CombinedOutput(); err != nil {
		t.Fatalf("javac: %v\n%s", err, said)
	}
	javaPrograms.classpath[program] = classes + ":" + dir + "/*"
	return javaPrograms.classpath[program]
}

// java is a JVM that starts quickly and takes little.
func java(ctx context.Context, classpath, class string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "java", append([]string{"-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx192m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", classpath, class}, args...)...)
}

// javaMember is a member in a process of its own, with Kafka's own consumer and these configurations besides.
func javaMember(t *testing.T, configs ...string) joins {
	classpath := javaProgram(t, &foreigns[0], "Member")
	return func(b *broker, m membership) (leave, crash func(), err error) {
		args := append([]string{b.addr(), m.group, m.topic}, configs...)
		if m.instance != "" {
			args = append(args, "group.instance.id="+m.instance)
		}
		if m.regex != "" {
			args = append(args, "regex="+m.regex)
		}
		cmd := java(context.Background(), classpath, "Member", args...)
		return m.inChild(t, cmd)
	}
}

var (
	javaClassic = []string{"group.protocol=classic", "session.timeout.ms=6000", "heartbeat.interval.ms=300"}
	javaModern  = []string{"group.protocol=consumer"}
)

// TestGroupMigration: a live group of Kafka's own consumers is rolled from group.protocol=classic to consumer and back, a member at a time, while records
// come and the broker is killed. The group changes its protocol with its members; every record is seen, and all are committed in the end.
func TestGroupMigration(t *testing.T) {
	t.Parallel()
	b := consumerBroker(t)
	classic, modern := javaMember(t, javaClassic...), javaMember(t, javaModern...)
	f := newFlock(t, b, groupPartitions)
	f.patience = time.Minute
	join := func(how joins) (leave func()) {
		t.Helper()
		f.join = how
		leave, _ = f.member("")
		return leave
	}
	kind := func(want string, members int) {
		t.Helper()
		f.until(fmt.Sprintf("a %s group of %d", want, members), func() (bool, string) {
			listed, err := f.adm.ListGroupsByType(within(t, f.patience), []string{want})
			if err != nil {
				return false, err.Error()
			}
			g, ok := listed[f.group]
			return ok && g.State == "Stable", fmt.Sprintf("%+v", listed)
		})
		if want == "classic" {
			f.settles(members)
		} else {
			f.consumed(members, groupPartitions)
		}
		f.write(60)
		f.sees()
	}
	a, c := join(classic), join(classic)
	kind("classic", 2)
	d := join(modern)
	kind("consumer", 3) // two of them speak the classic protocol
	b.kill()
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	kind("consumer", 3)
	a()
	e := join(modern)
	kind("consumer", 3)
	c()
	kind("consumer", 2)
	g := join(classic)
	kind("consumer", 3)
	d()
	kind("consumer", 2)
	h := join(classic)
	kind("consumer", 3)
	e()
	kind("classic", 2)
	g()
	h()
	f.until("everything committed", func() (bool, string) {
		var n int64
		for _, at := range f.committed() {
			n += max(at, 0)
		}
		return n == int64(f.written), fmt.Sprintf("%d of %d", n, f.written)
	})
}

// TestGroupJava: Kafka's own consumer with each assignor it has, and with the consumer protocol: partitions are added, a member is stopped past its session
// and goes on, another crashes, and the broker is killed. Every record is seen, and every partition has an owner.
func TestGroupJava(t *testing.T) {
	t.Parallel()
	b := consumerBroker(t)
	const assignors = "partition.assignment.strategy=org.apache.kafka.clients.consumer."
	for _, c := range []struct {
		name    string
		configs []string
		classic bool
	}{
		{"cooperative-sticky", append([]string{assignors + "CooperativeStickyAssignor"}, javaClassic...), true},
		{"consumer-uniform", append([]string{"group.remote.assignor=uniform"}, javaModern...), false},
		{"consumer-range", append([]string{"group.remote.assignor=range"}, javaModern...), false},
		{"range", append([]string{assignors + "RangeAssignor"}, javaClassic...), true},
		{"roundrobin", append([]string{assignors + "RoundRobinAssignor"}, javaClassic...), true},
		{"sticky", append([]string{assignors + "StickyAssignor"}, javaClassic...), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if testing.Short() && c.name != "cooperative-sticky" && c.name != "consumer-uniform" {
				t.Skip("not with -short")
			}
			f := newFlock(t, b, groupPartitions)
			f.patience = time.Minute
			how := javaMember(t, c.configs...)
			last := f.children(how)
			settles := func(members int) { t.Helper(); f.works(members, c.classic) }
			leave, _ := f.member("")
			_, crash := f.member("")
			settles(2)
			grow(t, f.adm, f.topic, groupPartitions+2)
			f.parts += 2
			f.writer.ForceMetadataRefresh()
			settles(2)
			(*last).signal(t, syscall.SIGSTOP)
			settles(1)
			(*last).signal(t, syscall.SIGCONT)
			settles(2)
			b.kill()
			if err := b.start(); err != nil {
				t.Fatal(err)
			}
			settles(2)
			crash()
			settles(1)
			leave()
		})
	}
}

// TestGroupJavaStatic: a static member that is Kafka's own consumer goes and comes back, in both protocols; no other member notices.
func TestGroupJavaStatic(t *testing.T) {
	b := consumerBroker(t)
	sessions(t, b, "30000") // on a busy machine a JVM takes its time
	for name, configs := range map[string][]string{"classic": {"group.protocol=classic", "session.timeout.ms=30000", "heartbeat.interval.ms=300"}, "consumer": javaModern} {
		t.Run(name, func(t *testing.T) {
			f := newFlock(t, b, groupPartitions)
			f.patience, f.join = time.Minute, javaMember(t, configs...)
			if name == "classic" {
				f.staticReturns()
			} else {
				f.staticReturnsUnnoticed()
			}
		})
	}
}

// TestGroupJavaRegex: Kafka's own consumer subscribes by a regular expression, which it matches itself or, in the consumer protocol, has the broker match.
func TestGroupJavaRegex(t *testing.T) {
	b := consumerBroker(t)
	for name, configs := range map[string][]string{"classic": javaClassic, "consumer": javaModern} {
		t.Run(name, func(t *testing.T) {
			f := newFlock(t, b, groupPartitions)
			f.patience = time.Minute
			f.regexFinds(javaMember(t, configs...))
		})
	}
}

// javaApps are Kafka's own applications that work on top of groups: Streams, and Connect with its file connectors.
var javaApps = foreign{"Kafka Streams and Connect", "4.1.1", []string{"java", "javac", "mvn"},
	[]string{"mvn", "-q", "-B", "-f", "pom-apps.xml", "dependency:copy-dependencies", "-DoutputDirectory=DIR"}, nil}

// program starts a Java program of testdata/foreign or a class of its jars, and has it end with the test at the latest. stop ends it as SIGTERM does.
func program(t *testing.T, cmd *exec.Cmd) (stop, crash func()) {
	t.Helper()
	said := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	end := func(how os.Signal) func() {
		return func() {
			once.Do(func() {
				cmd.Process.Signal(how)
				late := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() })
				cmd.Wait()
				late.Stop()
				if t.Failed() {
					t.Logf("%v:\n%s", cmd.Args[len(cmd.Args)-1], tailOf(said.String(), 8000))
				}
			})
		}
	}
	t.Cleanup(end(os.Interrupt))
	return end(os.Interrupt), end(os.Kill)
}

func tailOf(s string, n int) string { return s[max(0, len(s)-n):] }

// TestConnect: Kafka Connect, standalone, carries a file's lines into a topic and from there into another file. It is killed in between, and so is the
// broker: every line arrives, at least once, in the order of its file.
func TestConnect(t *testing.T) {
	t.Parallel()
	needReal(t, "it is killed")
	if testing.Short() {
		t.Skip("it takes a minute")
	}
	jars, why := javaApps.had(t)
	if why != "" {
		t.Skip(why)
	}
	b := ownBroker(t, groupFlags...)
	dir := t.TempDir()
	topic := topicName(t)
	createTopic(t, b, topic, 1)
	write := func(name, text string) string {
		t.Helper()
		at := filepath.Join(dir, name)
		if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return at
	}
	from, to := write("from", ""), filepath.Join(dir, "to")
	worker := write("worker.properties", fmt.Sprintf(`bootstrap.servers=%s
key.converter=org.apache.kafka.connect.storage.StringConverter
value.converter=org.apache.kafka.connect.storage.StringConverter
offset.storage.file.filename=%s/offsets
offset.flush.interval.ms=500
plugin.discovery=service_load
listeners=http://127.0.0.1:0
consumer.session.timeout.ms=6000
`, b.addr(), dir))
	source := write("source.properties", fmt.Sprintf("name=source\nconnector.class=FileStreamSource\ntasks.max=1\nfile=%s\ntopic=%s\n", from, topic))
	sink := write("sink.properties", fmt.Sprintf("name=sink\nconnector.class=FileStreamSink\ntasks.max=1\nfile=%s\ntopics=%s\n", to, topic))
	connect := func() (stop, crash func()) {
		return program(t, java(context.Background(), jars+"/*", "org.apache.kafka.connect.cli.ConnectStandalone", worker, source, sink))
	}
	lines := 0
	say := func(n int) {
		t.Helper()
		file, err := os.OpenFile(from, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		for range n {
			fmt.Fprintf(file, "line-%d\n", lines)
			lines++
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
	}
	arrived := func() {
		t.Helper()
		f := &flock{t: t, patience: time.Minute}
		f.until(fmt.Sprintf("all %d lines there", lines), func() (bool, string) {
			text, _ := os.ReadFile(to)
			have := strings.Fields(string(text))
			next := 0
			for _, line := range have { // what is written again begins further back, and goes on from there
				if line == fmt.Sprint("line-", next) {
					next++
				}
			}
			return next == lines, fmt.Sprintf("%d lines, %d of them in order", len(have), next)
		})
	}
	_, crash := connect()
	say(200)
	arrived()
	say(200)
	crash()
	say(200)
	stop, _ := connect()
	arrived()
	b.kill()
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	say(200)
	arrived()
	stop()
	g, err := admin(t, b).FetchOffsets(within(t, time.Minute), "connect-sink")
	if err != nil {
		t.Fatal(err)
	}
	if o, ok := g.Lookup(topic, 0); !ok || o.At < int64(lines) {
		t.Errorf("the sink has committed %+v; there are %d lines", o, lines)
	}
}

// TestStreams: Kafka Streams counts words, at least once, with its state in a changelog topic; it is killed and starts again without its directory, and the
// broker is killed under it. In the end no count is below what it is to be, and what it says last of each word is what its changelog says.
func TestStreams(t *testing.T) {
	t.Parallel()
	needReal(t, "it is killed")
	if testing.Short() {
		t.Skip("it takes a minute")
	}
	classpath := javaProgram(t, &javaApps, "WordCount")
	b := ownBroker(t, groupFlags...)
	words, counts := topicName(t)+".words", topicName(t)+".counts"
	createTopic(t, b, words, 3)
	createTopic(t, b, counts, 3)
	f := newFlock(t, b, 1)
	f.patience = time.Minute
	want := map[string]int{}
	n := 0
	say := func(lines int) {
		t.Helper()
		var rs []record
		for range lines {
			text := fmt.Sprintf("w%d w%d all", n%7, n%3)
			for _, w := range strings.Fields(text) {
				want[w]++
			}
			rs = append(rs, record{partition: int32(n % 3), timeMS: time.Now().UnixMilli(), key: fmt.Appendf(nil, "k%d", n), value: []byte(text)})
			n++
		}
		if _, err := (franz{}).produce(within(t, f.patience), b, words, produceOptions{acks: -1, idempotent: true}, rs); err != nil {
			t.Fatal(err)
		}
	}
	start := func() (stop, crash func()) {
		return program(t, java(context.Background(), classpath, "WordCount", b.addr(), "app."+words, words, counts, t.TempDir()))
	}
	counted := func() map[string]int {
		t.Helper()
		var have map[string]int
		f.until("all words counted", func() (bool, string) {
			have = map[string]int{}
			ends, err := f.adm.ListEndOffsets(within(t, f.patience), counts)
			if err != nil {
				return false, err.Error()
			}
			until, from := make([]int, 3), make([]int64, 3)
			ends.Each(func(o kadm.ListedOffset) { until[o.Partition] = int(o.Offset) })
			rs, err := (franz{}).consume(within(t, f.patience), b, counts, from, until)
			if err != nil && err != io.EOF {
				return false, err.Error()
			}
			for _, r := range rs {
				var k int
				fmt.Sscan(string(r.value), &k)
				have[string(r.key)] = k
			}
			for w, k := range want {
				if have[w] < k {
					return false, fmt.Sprintf("%s was counted %d times, not %d", w, have[w], k)
				}
			}
			return true, ""
		})
		return have
	}
	_, crash := start()
	say(60)
	for w, k := range counted() {
		if k != want[w] { // nothing has gone wrong yet
			t.Errorf("%s was counted %d times, want %d", w, k, want[w])
		}
	}
	say(60)
	crash()
	say(60)
	stop, _ := start()
	counted()
	b.kill()
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
	say(60)
	counted()
	stop()
}
