package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tailbound/tailbound/cmd/tailbound/term"
)

// client is a connection to brokers, for the length of one command.
type client struct {
	*options
	kafka *kgo.Client
	admin *kadm.Client
	ctx   context.Context // ends with the command; limited gives the one of a single answer
}

// withClient is a command's RunE: it connects, does work and closes the client.
func (o *options) withClient(work func(*cobra.Command, *client, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		conn, err := o.connect(cmd)
		if err != nil {
			return err
		}
		defer conn.close()
		return work(cmd, conn, args)
	}
}

// connect makes a client and checks that a broker answers.
func (o *options) connect(cmd *cobra.Command, more ...kgo.Opt) (*client, error) {
	if err := term.CheckOutput(o.output); err != nil {
		return nil, err
	}
	options := append([]kgo.Opt{
		kgo.SeedBrokers(o.brokers...), kgo.ClientID("tailbound"), kgo.SoftwareNameAndVersion("tailbound", o.softwareVersion()),
		kgo.DialTimeout(min(o.timeout, 5*time.Second)), kgo.RetryTimeout(o.timeout), kgo.RequestRetries(5),
	}, more...)
	k, err := kgo.NewClient(options...)
	if err != nil {
		return nil, fmt.Errorf("--brokers %s: %w", strings.Join(o.brokers, ","), err)
	}
	conn := &client{options: o, kafka: k, admin: kadm.NewClient(k), ctx: cmd.Context()}
	conn.admin.SetTimeoutMillis(int32(o.timeout.Milliseconds()))
	ctx, cancel := conn.limited()
	defer cancel()
	if err := k.Ping(ctx); err != nil {
		k.Close()
		return nil, o.explain(err)
	}
	return conn, nil
}

// patience reports, for a command that runs until it is interrupted, that a broker
// cannot be reached, and that it can again. Its hook runs on kgo's goroutines.
type patience struct {
	out  io.Writer
	mu   sync.Mutex
	lost map[int32]string // by node: why it is not to be reached, "" if it is
}

func newPatience(out io.Writer) *patience { return &patience{out: out, lost: map[int32]string{}} }

func (p *patience) OnBrokerConnect(b kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if b.NodeID < 0 { // of a broker of --brokers, connect returns the error
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.lost[b.NodeID]
	switch {
	case err != nil:
		p.lost[b.NodeID] = fmt.Sprintf("node %d at %s is not to be reached", b.NodeID, net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port))))
		if was == "" {
			fmt.Fprintf(p.out, "tailbound: %s, trying again: %v\n", p.lost[b.NodeID], err)
		}
	case was != "":
		p.lost[b.NodeID] = ""
		fmt.Fprintf(p.out, "tailbound: node %d answers again\n", b.NodeID)
	}
}

// errSilence is that a broker that was there answers no more.
var errSilence = errors.New("no answer")

// silence is the error of a command that got no answer for so long.
func (p *patience) silence(limit time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, node := range slices.Sorted(maps.Keys(p.lost)) {
		if why := p.lost[node]; why != "" {
			return fmt.Errorf("%w within %s: %s; `tailbound cluster health` shows which nodes answer", errSilence, limit, why)
		}
	}
	return fmt.Errorf("%w within %s; `tailbound cluster health` shows which nodes answer, and the broker's log what failed", errSilence, limit)
}

func (c *client) close() { c.kafka.Close() }

// limited is the context of one answer: it ends after --timeout.
func (c *client) limited() (context.Context, context.CancelFunc) {
	return context.WithTimeout(c.ctx, c.timeout)
}

// metadata is what a broker answers about all topics, or about those named. It is an
// error if a named one does not exist.
func (c *client) metadata(topics ...string) (kadm.Metadata, error) {
	ctx, cancel := c.limited()
	defer cancel()
	metadata, err := c.admin.Metadata(ctx, topics...)
	if err != nil {
		return metadata, c.explain(err)
	}
	for _, name := range topics {
		detail := metadata.Topics[name]
		switch {
		case errors.Is(detail.Err, kerr.UnknownTopicOrPartition) || !metadata.Topics.Has(name):
			return metadata, c.unknownTopic(name)
		case detail.Err != nil:
			return metadata, fmt.Errorf("topic %s: %w", name, brokerError(detail.Err, ""))
		}
	}
	return metadata, nil
}
