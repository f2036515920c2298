package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tailbound/tailbound/cmd/tailbound/term"
)

// explain adds the next step to an error that is not a broker's error code: no
// broker at the address, an unknown host, an advertised address that does not work.
func (o *options) explain(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	at := strings.Join(o.brokers, ", ")
	var op *net.OpError
	if errors.As(err, &op) && op.Addr != nil {
		at = op.Addr.String()
	}
	var dns *net.DNSError
	// After the first answer brokers are asked at the addresses that they advertise.
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

// names returns whether an address belongs to a host of --brokers.
func (o *options) names(a net.Addr) bool {
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

// brokerError is a broker's error code in words, the broker's own if it sent any,
// with the next step. Other errors are returned as they are.
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

// nextSteps are the next steps for some error codes.
var nextSteps = map[int16]string{
	kerr.MessageTooLarge.Code:          "the topic's max.message.bytes is what it takes (`tailbound topic describe`, `topic alter --set`), and --max-message-bytes what is sent",
	kerr.InvalidReplicationFactor.Code: "leave --replicas away for the broker's own",
	kerr.NotLeaderForPartition.Code:    "does every node answer where clients are told to find it? (`tailbound cluster health`)",
	kerr.CorruptMessage.Code:           "records are lost there: `tailbound topic describe` lists which, and `consume --from` reads on behind them",
	kerr.KafkaStorageError.Code:        "the broker's log says what failed; `tailbound check` reads a stopped broker's directory",
}

// brokerSaid is an error code in words; it unwraps to the code.
type brokerSaid struct {
	text string
	code error
}

func (e brokerSaid) Error() string { return e.text }

func (e brokerSaid) Unwrap() error { return e.code }

// unknownTopic is the error for a topic that does not exist. It names a similar one,
// or the command that creates the topic.
func (c *client) unknownTopic(name string) error {
	err, near := c.noTopic(name)
	if near {
		return err
	}
	return fmt.Errorf("%w, `tailbound topic create %s` makes it", err, name)
}

// noTopic is the error for a topic that does not exist, and whether it names a
// similar one.
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
