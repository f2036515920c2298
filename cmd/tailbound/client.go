package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tailbound/tailbound/cmd/tailbound/term"
)

// clientOptions are the flags of every command that speaks to a broker as a
// Kafka client.
type clientOptions struct {
	brokers []string
	output  string
	timeout time.Duration
}

const defaultBrokers = "127.0.0.1:9092"

// flags adds the flags to a command and everything below it.
func (o *clientOptions) flags(c *cobra.Command) {
	f := c.PersistentFlags()
	f.StringSliceVarP(&o.brokers, "brokers", "b", strings.Split(term.EnvOr("TAILBOUND_BROKERS", defaultBrokers), ","), "brokers to begin with, HOST:PORT,... (environment: TAILBOUND_BROKERS)")
	f.DurationVar(&o.timeout, "timeout", 10*time.Second, "how long to wait for a broker's answer")
	term.OutputFlag(c, f, &o.output)
}

// client is a connection to brokers.
type client struct {
	*clientOptions
	kafka *kgo.Client
	admin *kadm.Client
	ctx   context.Context // ends with the command; an answer has timeout of it
}

// withClient is a command's work with a client, which is closed behind it.
func (o *clientOptions) withClient(work func(*cobra.Command, *client, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := o.connect(cmd)
		if err != nil {
			return err
		}
		defer c.close()
		return work(cmd, c, args)
	}
}

// connect makes a client and sees that a broker answers.
func (o *clientOptions) connect(cmd *cobra.Command, more ...kgo.Opt) (*client, error) {
	if err := term.CheckOutput(o.output); err != nil {
		return nil, err
	}
	options := append([]kgo.Opt{
		kgo.SeedBrokers(o.brokers...), kgo.ClientID("tailbound"), kgo.SoftwareNameAndVersion("tailbound", softwareVersion()),
		kgo.DialTimeout(min(o.timeout, 5*time.Second)), kgo.RetryTimeout(o.timeout), kgo.RequestRetries(5),
	}, more...)
	k, err := kgo.NewClient(options...)
	if err != nil {
		return nil, fmt.Errorf("--brokers %s: %w", strings.Join(o.brokers, ","), err)
	}
	c := &client{clientOptions: o, kafka: k, admin: kadm.NewClient(k), ctx: cmd.Context()}
	c.admin.SetTimeoutMillis(int32(o.timeout.Milliseconds()))
	ctx, cancel := c.limited()
	defer cancel()
	if err := k.Ping(ctx); err != nil {
		k.Close()
		return nil, o.explain(err)
	}
	return c, nil
}

// patience tells people, of a command that goes on by itself, when it cannot
// reach a broker, and when it can again. Its hook runs on the client's
// goroutines.
type patience struct {
	out  io.Writer
	mu   sync.Mutex
	lost map[int32]bool
}

func (p *patience) OnBrokerConnect(b kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err != nil && b.NodeID >= 0 && !p.lost[b.NodeID]: // one of --brokers that is not there ends connect
		p.lost[b.NodeID] = true
		fmt.Fprintf(p.out, "tailbound: node %d at %s is not to be reached, trying again: %v\n", b.NodeID, net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port))), err)
	case err == nil && p.lost[b.NodeID]:
		p.lost[b.NodeID] = false
		fmt.Fprintf(p.out, "tailbound: node %d answers again\n", b.NodeID)
	}
}

func patient(out io.Writer) kgo.Opt {
	return kgo.WithHooks(&patience{out: out, lost: map[int32]bool{}})
}

// softwareVersion is the version with what ApiVersions allows in it.
func softwareVersion() string {
	return strings.Map(func(r rune) rune {
		if r == '.' || r == '-' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '-'
	}, "v"+versionString())
}

func (c *client) close() { c.kafka.Close() }

// limited is the time one answer may take.
func (c *client) limited() (context.Context, context.CancelFunc) {
	return context.WithTimeout(c.ctx, c.timeout)
}

// explain says what to do about an error that is no answer of a broker.
func (o *clientOptions) explain(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	at := strings.Join(o.brokers, ", ")
	var op *net.OpError
	if errors.As(err, &op) && op.Addr != nil {
		at = op.Addr.String()
	}
	var dns *net.DNSError
	// A broker is asked where it says it is, and that may be another place.
	elsewhere := op != nil && op.Addr != nil && !slices.Contains(o.brokers, at) && len(o.brokers) > 0 && !o.names(op.Addr)
	switch {
	case errors.As(err, &dns) && !slices.ContainsFunc(o.brokers, func(b string) bool { return strings.HasPrefix(b, dns.Name+":") || b == dns.Name }):
		return fmt.Errorf("the broker tells clients to find it at %s, a host that is not known here; see serve --advertise and `tailbound cluster health` (%w)", dns.Name, err)
	case elsewhere:
		return fmt.Errorf("the broker tells clients to find it at %s, where it is not to be reached; see serve --advertise and `tailbound cluster health` (%w)", at, err)
	case errors.As(err, &dns) && strings.Contains(dns.Name, "://"):
		return fmt.Errorf("--brokers %s: it is HOST:PORT,..., without %q", dns.Name, dns.Name[:strings.Index(dns.Name, "://")+3])
	case errors.As(err, &dns):
		return fmt.Errorf("the host %s of --brokers is not known: %w", dns.Name, err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no broker listens on %s; start one with `tailbound serve`, or say where it is with --brokers HOST:PORT or TAILBOUND_BROKERS (%w)", at, syscall.ECONNREFUSED)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), op != nil:
		return fmt.Errorf("no answer from %s within %s; clients must reach every port that the broker advertises, see `tailbound cluster health` (%w)", at, o.timeout, err)
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		return fmt.Errorf("%s closed the connection: is it a Kafka broker, and does it expect TLS? (%w)", at, err)
	}
	if strings.Contains(err.Error(), "broker is too old") { // kgo does not export it
		return errors.New("the broker does not know this request; `tailbound cluster info` shows what it is")
	}
	return err
}

// names says whether an address is of a host that --brokers has.
func (o *clientOptions) names(a net.Addr) bool {
	for _, b := range o.brokers {
		host, port, err := net.SplitHostPort(b)
		if err != nil {
			host, port = b, "9092"
		}
		ips, _ := net.LookupHost(host)
		for _, ip := range ips {
			if net.JoinHostPort(ip, port) == a.String() {
				return true
			}
		}
	}
	return false
}

// brokerError says what a broker's error code means, with what it said
// beside it.
func brokerError(err error, message string) error {
	var code *kerr.Error
	if !errors.As(err, &code) {
		return err
	}
	if message == "" {
		message = strings.TrimSuffix(code.Description, ".")
	}
	message = fmt.Sprintf("%s (%s)", message, code.Message)
	if step := nextSteps[code.Code]; step != "" {
		message += "; " + step
	}
	return brokerSaid{message, code}
}

// nextSteps are what to do about some error codes.
var nextSteps = map[int16]string{
	kerr.MessageTooLarge.Code:          "the topic's max.message.bytes is what it takes (`tailbound topic describe`, `topic alter --set`), and --max-message-bytes what is sent",
	kerr.InvalidReplicationFactor.Code: "leave --replicas away for the broker's own",
	kerr.NotLeaderForPartition.Code:    "does every node answer where clients are told to find it? (`tailbound cluster health`)",
	kerr.CorruptMessage.Code:           "the broker's log says what failed; `tailbound check` reads a stopped broker's directory",
	kerr.KafkaStorageError.Code:        "the broker's log says what failed; `tailbound check` reads a stopped broker's directory",
}

// brokerSaid is an error code with words.
type brokerSaid struct {
	text string
	code error
}

func (e brokerSaid) Error() string { return e.text }
func (e brokerSaid) Unwrap() error { return e.code }

// metadata is everything a broker says of topics, or of those named; each
// named one must be there.
func (c *client) metadata(topics ...string) (kadm.Metadata, error) {
	ctx, cancel := c.limited()
	defer cancel()
	m, err := c.admin.Metadata(ctx, topics...)
	if err != nil {
		return m, c.explain(err)
	}
	for _, name := range topics {
		d := m.Topics[name]
		switch {
		case errors.Is(d.Err, kerr.UnknownTopicOrPartition) || !m.Topics.Has(name):
			return m, c.unknownTopic(name)
		case d.Err != nil:
			return m, fmt.Errorf("topic %s: %w", name, brokerError(d.Err, ""))
		}
	}
	return m, nil
}

// unknownTopic says that a topic is not there, and what may have been meant, or
// what would make it.
func (c *client) unknownTopic(name string) error {
	err, near := c.noTopic(name)
	if near {
		return err
	}
	return fmt.Errorf("%w, `tailbound topic create %s` makes it", err, name)
}

// noTopic says that a topic is not there, and whether it named one that is.
func (c *client) noTopic(name string) (err error, near bool) {
	ctx, cancel := c.limited()
	defer cancel()
	all, err := c.admin.ListTopics(ctx)
	if err != nil {
		return fmt.Errorf("there is no topic %q", name), true
	}
	if near := term.Nearest(name, all.Names()); near != "" {
		return fmt.Errorf("there is no topic %q; did you mean %q?", name, near), true
	}
	return fmt.Errorf("there is no topic %q; `tailbound topic list` shows all", name), false
}

// print writes a value as --output says: JSON and YAML are of value, the table
// is written by table.
func (o *clientOptions) print(w io.Writer, value any, table func(w *tabwriter.Writer)) error {
	if o.output == "table" {
		t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
		table(t)
		return t.Flush()
	}
	return term.PrintValue(w, o.output, value)
}

// outcome is what became of one thing out of several that a command was to do.
type outcome struct {
	Name  string `json:"name"`
	Done  string `json:"done,omitempty"`
	Error string `json:"error,omitempty"`
}

// printOutcomes prints them. A failure is the command's.
func (o *clientOptions) printOutcomes(w io.Writer, all []outcome) error {
	failed := 0
	err := o.print(w, all, func(t *tabwriter.Writer) {
		for _, x := range all {
			if x.Error == "" {
				fmt.Fprintf(t, "%s\t%s\n", x.Name, x.Done)
			}
		}
	})
	for _, x := range all {
		if x.Error != "" {
			failed++
			fmt.Fprintf(os.Stderr, "tailbound: %s: %s\n", x.Name, x.Error)
		}
	}
	if err == nil && failed > 0 {
		return term.ExitStatus(1)
	}
	return err
}

// completeTopics is the shell's completion of topic names.
func (o *clientOptions) completeTopics(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	return o.complete(cmd, args, typed, func(c *client) ([]string, error) {
		ctx, cancel := c.limited()
		defer cancel()
		topics, err := c.admin.ListTopics(ctx)
		return topics.Names(), err
	})
}

// complete offers names that begin as typed. A broker that does not answer
// soon offers none.
func (o *clientOptions) complete(cmd *cobra.Command, args []string, typed string, list func(*client) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	quick := *o
	quick.timeout, quick.output = 2*time.Second, "table"
	c, err := quick.connect(cmd)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer c.close()
	all, err := list(c)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return slices.DeleteFunc(all, func(n string) bool { return !strings.HasPrefix(n, typed) || slices.Contains(args, n) }), cobra.ShellCompDirectiveNoFileComp
}

// settings are -c KEY=VALUE flags.
func settings(flag string, words []string) (map[string]*string, error) {
	all := map[string]*string{}
	for _, w := range words {
		k, v, ok := strings.Cut(w, "=")
		if !ok || k == "" {
			return nil, fmt.Errorf("%s %q: it is KEY=VALUE", flag, w)
		}
		if all[k] != nil {
			return nil, fmt.Errorf("%s: %s is given twice", flag, k)
		}
		all[k] = &v
	}
	return all, nil
}
