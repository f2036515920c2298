package interop

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestGroupCommands: `tailbound group` at two brokers, franz-go's fake and ours: what it says of a group must be true of any.
func TestGroupCommands(t *testing.T) {
	binary, err := binaryPath()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("kfake", func(t *testing.T) {
		fake, err := kfake.NewCluster(kfake.NumBrokers(2))
		if err != nil {
			t.Fatal(err)
		}
		defer fake.Close()
		groupCommands(t, binary, fake.ListenAddrs()[0])
	})
	t.Run("tailbound", func(t *testing.T) {
		needReal(t, "the other half is the fake's")
		groupCommands(t, binary, sharedBroker(t).addr())
	})
	t.Run("consumer", func(t *testing.T) { // of the consumer protocol
		needReal(t, "its members are not described the same way")
		groupCommands(t, binary, sharedBroker(t).addr(), kgo.ServerSideBalancer(), kgo.Balancers(kgo.RangeBalancer()))
	})
}

func groupCommands(t *testing.T, binary, addr string, member ...kgo.Opt) {
	ctx := within(t, time.Minute)
	run := func(stdin string, args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, binary, append(args, "--brokers", addr)...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	must := func(stdin string, args ...string) string {
		t.Helper()
		out, err := run(stdin, args...)
		if err != nil {
			t.Fatalf("tailbound %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return out
	}
	refused := func(args []string, words ...string) {
		t.Helper()
		out, err := run("", args...)
		if err == nil {
			t.Errorf("tailbound %s succeeded:\n%s", strings.Join(args, " "), out)
		}
		for _, w := range words {
			if !strings.Contains(out, w) {
				t.Errorf("tailbound %s says nothing of %q:\n%s", strings.Join(args, " "), w, out)
			}
		}
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	topic, group := topicName(t), topicName(t)+"-group"
	must("", "topic", "create", topic, "-p", "2")
	for _, p := range []string{"0", "1"} {
		must("a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n", "produce", topic, "-p", p)
	}
	// committed is what the group has, by another's account.
	committed := func(want0, want1 int64) {
		t.Helper()
		got, err := admin.FetchOffsets(ctx, group)
		if err != nil {
			t.Fatal(err)
		}
		for p, want := range map[int32]int64{0: want0, 1: want1} {
			if o, ok := got.Lookup(topic, p); want >= 0 && o.At != want || want < 0 && ok && o.At >= 0 {
				t.Errorf("partition %d: %d is committed, want %d", p, o.At, want)
			}
		}
	}
	refused([]string{"group", "describe", group}, "there is no group", "group list")

	// A member that has read some is in the way of every change.
	consumer, err := kgo.NewClient(append(member, kgo.SeedBrokers(addr), kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.ClientID("the-member"), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer consumer.Close()
	for n := 0; n < 20; {
		fetches := consumer.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatal(err)
		}
		n += fetches.NumRecords()
	}
	commit(t, ctx, consumer, topic, 4, 10)
	kind := "classic"
	if len(member) > 0 {
		kind = "consumer"
	}
	if out := must("", "group", "list"); !slices.ContainsFunc(strings.Split(out, "\n"), func(line string) bool {
		words := strings.Fields(line)
		return len(words) == 4 && slices.Equal(words[:3], []string{group, kind, "Stable"})
	}) {
		t.Errorf("list has no %s group %s:\n%s", kind, group, out)
	}
	out := must("", "group", "describe", group)
	for _, w := range []string{kind + ", Stable", "1 member", "lag 6", "the-member", topic + "/0 " + topic + "/1"} {
		if !strings.Contains(out, w) {
			t.Errorf("describe says nothing of %q:\n%s", w, out)
		}
	}
	refused([]string{"group", "reset", group, "--to", "earliest"}, "in use", "the-member")
	refused([]string{"group", "delete", group}, "in use", "the-member")
	consumer.Close()

	var lag []struct {
		Lag        int64
		Partitions []struct{ Committed, End, Lag int64 }
	}
	if err := json.Unmarshal([]byte(must("", "group", "lag", group, "--output", "json")), &lag); err != nil || len(lag) != 1 || lag[0].Lag != 6 || len(lag[0].Partitions) != 2 || lag[0].Partitions[0].Committed != 4 {
		t.Errorf("lag: %+v, %v", lag, err)
	}
	if out := must("", "group", "reset", group, "--to", "earliest", "--dry-run"); !strings.Contains(out, "nothing was changed") {
		t.Errorf("--dry-run:\n%s", out)
	}
	committed(4, 10)
	must("", "group", "reset", group, "--shift", "-3")
	committed(1, 7)
	must("", "group", "reset", group, "--shift", "-3", "--topic", topic+":0")
	committed(0, 7) // kept within what there is
	must("", "group", "reset", group, "--to", "earliest")
	committed(0, 0)
	must("", "group", "reset", group, "--to", "latest", "--topic", topic+":1")
	committed(0, 10)
	must("", "group", "reset", group, "--to", "@-1h")
	committed(0, 0)
	must("", "group", "reset", group, "--to", "-2")
	committed(8, 8)
	refused([]string{"group", "reset", group, "--to", "latest", "--shift", "1"}, "one of")
	refused([]string{"group", "reset", group, "--to", "latest", "--topic", topic + ":7"}, "no partition 7")
	refused([]string{"group", "reset", group[:len(group)-1], "--shift", "1"}, "no offsets", "--topic")

	file := filepath.Join(t.TempDir(), "offsets.csv")
	if err := os.WriteFile(file, []byte(must("", "group", "offsets", "export", group)), 0o600); err != nil {
		t.Fatal(err)
	}
	must("", "group", "reset", group, "--to", "5")
	committed(5, 5)
	must("", "group", "offsets", "import", group, file, "--dry-run")
	committed(5, 5)
	must("", "group", "offsets", "import", group, file)
	committed(8, 8)
	must(topic+",0,3\n", "group", "reset", group, "--file", "-")
	committed(3, 8)

	// Consuming as a member goes on where the group stands, and commits.
	if out := must("", "consume", topic, "-g", group, "-n", "9"); strings.Count(out, "\n") != 9 {
		t.Errorf("as a member: %q", out)
	}
	committed(10, 10)
	must("", "group", "delete", group)
	refused([]string{"group", "delete", group}, "there is no group")
	if got, err := admin.FetchOffsets(ctx, group); err == nil {
		if o, ok := got.Lookup(topic, 0); ok && o.At >= 0 {
			t.Errorf("%d is still committed in a group that was deleted", o.At)
		}
	} else if !isGone(err) {
		t.Error(err)
	}
}

func commit(t *testing.T, ctx context.Context, c *kgo.Client, topic string, at0, at1 int64) {
	t.Helper()
	var failed error
	c.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{topic: {0: {Epoch: -1, Offset: at0}, 1: {Epoch: -1, Offset: at1}}}, nil)
	if got := c.CommittedOffsets()[topic]; got[0].Offset != at0 || got[1].Offset != at1 {
		failed = kerr.UnknownServerError
	}
	if failed != nil {
		t.Fatalf("committing: %v", failed)
	}
}

func isGone(err error) bool { return err == kerr.GroupIDNotFound }
