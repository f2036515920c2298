package interop

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// residentMax is what a broker with one data shard may have resident before there is a topic, and while members of groups commit.
const residentMax = 256 << 20

// planned is what `serve --print-memory` says that a broker with these flags can have resident at most.
func planned(t *testing.T, flags ...string) uint64 {
	t.Helper()
	binary, err := binaryPath()
	if err != nil {
		t.Fatal(err)
	}
	said, err := exec.Command(binary, append([]string{"serve", "--print-memory"}, flags...)...).Output()
	if err != nil {
		t.Fatalf("--print-memory: %v\n%s", err, said)
	}
	sum := regexp.MustCompile(`resident at most +=.*B +(\d+)`).FindSubmatch(said)
	if sum == nil {
		t.Fatalf("--print-memory has no sum:\n%s", said)
	}
	n, err := strconv.ParseUint(string(sum[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// rest is what a broker uses once it takes no more memory by itself: what is resident at the beginning comes beside the start.
func (b *broker) rest(t *testing.T) usage {
	t.Helper()
	for range 50 { // the socket of profile comes after the first answers to clients
		if c, err := net.Dial("unix", filepath.Join(b.dir, "profile.sock")); err == nil {
			c.Close()
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	u := b.usage(t)
	for range 50 {
		time.Sleep(200 * time.Millisecond)
		before := u.Resident
		if u = b.usage(t); u.Resident <= before+1<<20 {
			break
		}
	}
	return u
}

// TestMemoryAtRest: a broker that has nothing takes little, and never more than is planned.
func TestMemoryAtRest(t *testing.T) {
	needReal(t, "its memory is ours")
	for _, c := range []struct {
		name  string
		most  uint64
		flags []string
	}{
		{"by default", residentMax, []string{"--shards", "1"}},
		{"the smallest arena", 100 << 20, []string{"--shards", "1", "--arena", "64MiB"}},
		{"two data shards", 2 * residentMax, []string{"--shards", "2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := ownBroker(t, c.flags...)
			u, most := b.rest(t), planned(t, c.flags...)
			t.Logf("%d KiB resident, %d planned", u.Resident>>10, most>>10)
			if u.Resident > c.most || u.Resident > most {
				t.Errorf("%d KiB are resident; at most %d are allowed, and %d planned", u.Resident>>10, c.most>>10, most>>10)
			}
		})
	}
}

// TestMemoryOfCommits: members of groups that commit for a long time leave garbage behind, and the heap does not grow with it. Its limit follows what is live.
func TestMemoryOfCommits(t *testing.T) {
	needReal(t, "its memory is ours")
	const groups, members = 100, 10
	rounds, until := 25, time.Time{}
	if os.Getenv("TAILBOUND_TESTS") == "long" {
		until = time.Now().Add(10 * time.Minute)
	}
	flags := []string{"--shards", "1", "--group-initial-rebalance-delay", "1s"}
	b := ownBroker(t, flags...)
	topic := topicName(t)
	createTopic(t, b, topic, members)
	most := min(planned(t, flags...), residentMax)

	all := make([]*committers, groups)
	for i := range all {
		all[i] = &committers{group: fmt.Sprint("memory.", i), topic: topic}
		for range members {
			all[i].wires = append(all[i].wires, dialTo(t, b.addr()))
		}
	}
	each := func(do func(*committers) error) {
		t.Helper()
		failed := make(chan error, len(all))
		var wait sync.WaitGroup
		for _, group := range all {
			wait.Go(func() {
				if err := do(group); err != nil {
					failed <- fmt.Errorf("%s: %w", group.group, err)
				}
			})
		}
		wait.Wait()
		select {
		case err := <-failed:
			t.Fatal(err)
		default:
		}
	}
	each((*committers).join)
	before, peak := b.usage(t), uint64(0)
	for round := 0; round < rounds || time.Now().Before(until); round++ {
		each(func(g *committers) error { return g.commit(int64(round)) })
		u := b.usage(t)
		peak = max(peak, u.Resident)
		if u.Resident > most {
			t.Fatalf("round %d: %d KiB are resident; at most %d are allowed", round, u.Resident>>10, most>>10)
		}
		// The limit leaves room for as much garbage as is live, or for 64 MiB; what Go's runtime takes besides its heap counts too.
		if room := max(u.Live, 64<<20); u.Limit < u.Live+room/2 || u.Limit > u.Live+room+64<<20 {
			t.Fatalf("round %d: %d KiB are live and the limit is %d", round, u.Live>>10, u.Limit>>10)
		}
	}
	after := b.usage(t)
	t.Logf("%d KiB of garbage, %d collections; %d KiB resident at first, at most %d; %d live, limit %d",
		(after.Bytes-before.Bytes)>>10, after.Collections-before.Collections, before.Resident>>10, peak>>10, after.Live>>10, after.Limit>>10)
	if after.Bytes-before.Bytes < 2*64<<20 || after.Collections == before.Collections {
		t.Errorf("the run made %d KiB of garbage, and %d collections: too few to show anything", (after.Bytes-before.Bytes)>>10, after.Collections-before.Collections)
	}
}

// committers are the members of a group, on a connection each.
type committers struct {
	group, topic string
	wires        []*wire
	ids          []string
	generation   int32
}

// all sends a request of each member, then receives all responses.
func (c *committers) all(request func(i int) kmsg.Request, response func(i int, r kmsg.Response) error) error {
	requests := make([]kmsg.Request, len(c.wires))
	for i, w := range c.wires {
		requests[i] = request(i)
		w.SetDeadline(time.Now().Add(time.Minute))
		if err := w.send(requests[i]); err != nil {
			return err
		}
	}
	for i, w := range c.wires {
		r, err := w.receive(requests[i], w.correlation)
		if err == nil {
			err = response(i, r)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// join makes all of them members of one generation.
func (c *committers) join() error {
	c.ids = make([]string, len(c.wires))
	for range 20 {
		joined, leader := 0, 0
		generations := map[int32]bool{}
		err := c.all(func(i int) kmsg.Request {
			r := joinRequest(3, c.group, c.ids[i])
			r.SessionTimeoutMillis, r.RebalanceTimeoutMillis = 60_000, 10_000
			return r
		}, func(i int, r kmsg.Response) error {
			j := r.(*kmsg.JoinGroupResponse)
			c.ids[i], c.generation = j.MemberID, j.Generation
			generations[j.Generation] = true
			if j.LeaderID == j.MemberID {
				leader = i
			}
			joined = max(joined, len(j.Members))
			if j.ErrorCode == kerr.UnknownMemberID.Code { // it came too late for a generation, which went on without it
				c.ids[i] = ""
				return nil
			}
			return kerr.ErrorForCode(j.ErrorCode)
		})
		if err != nil {
			return err
		}
		if joined < len(c.wires) || len(generations) > 1 {
			continue // some came after the first generation had begun: all join again
		}
		return c.all(func(i int) kmsg.Request {
			r := kmsg.NewPtrSyncGroupRequest()
			r.Version, r.Group, r.Generation, r.MemberID = 2, c.group, c.generation, c.ids[i]
			for _, id := range c.ids {
				if i == leader {
					r.GroupAssignment = append(r.GroupAssignment, kmsg.SyncGroupRequestGroupAssignment{MemberID: id, MemberAssignment: []byte("mine")})
				}
			}
			return r
		}, func(i int, r kmsg.Response) error { return kerr.ErrorForCode(r.(*kmsg.SyncGroupResponse).ErrorCode) })
	}
	return fmt.Errorf("no generation has all members")
}

// commit has each member commit its offset, and send a heartbeat.
func (c *committers) commit(offset int64) error {
	err := c.all(func(i int) kmsg.Request {
		r := commitRequest(c.group, c.topic, int32(i), offset)
		r.Version, r.Generation, r.MemberID = 7, c.generation, c.ids[i]
		return r
	}, func(i int, r kmsg.Response) error {
		return kerr.ErrorForCode(r.(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode)
	})
	if err != nil {
		return err
	}
	return c.all(func(i int) kmsg.Request {
		r := kmsg.NewPtrHeartbeatRequest()
		r.Version, r.Group, r.Generation, r.MemberID = 3, c.group, c.generation, c.ids[i]
		return r
	}, func(i int, r kmsg.Response) error { return kerr.ErrorForCode(r.(*kmsg.HeartbeatResponse).ErrorCode) })
}
