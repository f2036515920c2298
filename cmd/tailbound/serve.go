package main

import (
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/broker"
	"github.com/tailbound/tailbound/cmd/tailbound/datadir"
	"github.com/tailbound/tailbound/cmd/tailbound/observe"
	"github.com/tailbound/tailbound/cmd/tailbound/settings"
	"github.com/tailbound/tailbound/ioring"
)

func serveCommand() *cobra.Command {
	var file string
	var showConfig, showMemory bool
	var told *settings.Set
	command := &cobra.Command{
		Use:   "serve --data-dir DIR",
		Short: "Run the broker in the foreground",
		Long: `Run the broker in the foreground.

The control shard listens on --listen; data shard i listens on the port i above
it and is a Kafka node of its own. Clients need only --listen's address, but
must reach all of these ports. Where only one can be open, as in a container or
behind a firewall, --listen-mode=single serves everything there, on one core.

Every setting may also stand in the YAML file of --config, under the flag's
name, or in a variable: TAILBOUND_ARENA for --arena. Flags go before variables,
those before the file. --print-config shows what is in force and why.

SIGTERM and SIGINT stop it cleanly within seconds; a second one at once. The
exit status is 0 only after a clean stop. SIGHUP has it read the file of --config
again: the log says which settings changed and which need a restart. Where the
terminal that it was started from has gone, SIGHUP stops it cleanly instead.`,
		Example: `  tailbound serve --data-dir /var/lib/tailbound --listen 0.0.0.0:9092 --advertise broker.example.org
  tailbound serve --data-dir ./data --listen 127.0.0.1:9092 --shards 2 --cpus 2,3
  tailbound serve --data-dir ./data --ring-features 5.19   # as on an older kernel`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := told.Read(file, os.Environ())
			if err == nil {
				err = told.Check(!showConfig && !showMemory)
			}
			if err != nil {
				return err
			}
			switch {
			case showConfig:
				return printConfig(cmd.OutOrStdout(), told)
			case showMemory:
				return printMemory(cmd.OutOrStdout(), &told.Values)
			}
			return serve(cmd, told, file)
		},
	}
	flags := command.Flags()
	flags.StringVar(&file, "config", os.Getenv("TAILBOUND_CONFIG"), "YAML file with settings (environment: TAILBOUND_CONFIG)")
	flags.BoolVar(&showConfig, "print-config", false, "print what is in force, and where each value came from")
	flags.BoolVar(&showMemory, "print-memory", false, "print each pool of a shard with its bytes")
	told = settings.Define(flags)
	return command
}

// serve runs a broker:
//
//	datadir.Open(); bind(); broker.Start(); announce(); await a signal; stop()
//
// It returns nil after a clean stop only.
func serve(cmd *cobra.Command, told *settings.Set, file string) error {
	v := told.Values
	logger := newLogger(logHandler(os.Stderr, &v))
	defer logger.drain()
	for _, line := range settings.Misspelled(os.Environ()) {
		logger.log.Warn(line)
	}

	features, err := ioring.ParseMask(v.RingFeatures)
	if err != nil {
		return fmt.Errorf("--ring-features: %w", err)
	}
	found, err := ioring.Probe()
	if err != nil {
		return err
	}
	found.Mask &= features
	allowed, err := allowedCPUs()
	if err != nil {
		return err
	}
	v.Shards = v.DataShards(len(allowed))
	dataCPUs, otherCPUs, err := placeCPUs(v.CPUs, allowed, v.Shards)
	if err != nil {
		return err
	}
	// A processor for each shard, and some for what Go does besides.
	if runtime.GOMAXPROCS(0) < v.Shards+3 {
		runtime.GOMAXPROCS(v.Shards + 3)
	}
	followHeap()

	dir, err := datadir.Open(v.DataDir, v.Buffered)
	if err != nil {
		return err
	}
	defer dir.Close()
	listeners, err := newListeners(&v)
	if err != nil {
		return err
	}
	options, err := brokerOptions(&v, dir)
	if err != nil {
		return err
	}
	defer func() {
		for _, listener := range listeners {
			listener.shutdown()
		}
	}()
	for _, listener := range listeners {
		if err := listener.bind(v.Ports(v.Shards)); err != nil {
			return err
		}
		listener.addTo(&options, v.Single())
	}
	options.CPUs, options.OtherCPUs, options.Features, options.Log = dataCPUs, otherCPUs, features, logger
	if err := raiseFilesLimit(options); err != nil {
		return err
	}
	signals, hangups := make(chan os.Signal, 4), make(chan os.Signal, 1)
	terminal := controllingTerminal()
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT)
	signal.Notify(hangups, unix.SIGHUP)
	signal.Ignore(unix.SIGPIPE) // otherwise Go ends the process when the reader of its output has gone

	began := time.Now()
	running, err := start(options, signals, hangups, terminal)
	if _, broken := err.(startBroken); broken {
		endAtOnce(logger, err)
	}
	if err != nil {
		if small := fits(&v); small != nil {
			err = small
		} else if errors.Is(err, broker.ErrArena) { // one of several arenas
			err = tooLarge(&v, err)
		}
		return err
	}
	runtime.GC() // what the start has left
	if line := shortOfMemory(options, memoryGiven("/")); line != "" {
		logger.log.Warn(line)
	}
	if boot := running.Boot; !boot.Clean && !boot.Fresh {
		logger.log.Info("the process before did not stop cleanly: what its journals have was written to the partitions' segments",
			"frames", boot.Frames, "opens", boot.Tally.Opens, "reads", boot.Tally.Reads, "read_bytes", boot.Tally.ReadBytes,
			"writes", boot.Tally.Writes, "written_bytes", boot.Tally.WriteBytes, "syncs", boot.Tally.Syncs, "took_ms", running.RecoveryTook.Milliseconds())
	}
	for _, note := range slices.Concat(dir.Notes, running.Boot.Notes) {
		logger.log.Warn(note)
	}
	profiler := observe.NewServer(v.DataDir, versionString())
	profiler.Serve(running.Broker, options.Nodes, logger.saysOf("the socket of `tailbound profile`"))
	defer profiler.Close()
	metrics := false
	if v.MetricsListen != "" {
		prometheus := observe.ServePrometheus(v.MetricsListen, profiler, logger.saysOf("/metrics"))
		defer prometheus.Close()
		metrics = prometheus.Listening()
	}
	b := banner{settings: &v, metrics: metrics, listeners: listeners, found: found, disk: dir.Disk, buffered: dir.Buffered, cpus: dataCPUs, took: time.Since(began)}
	b.announce(cmd.OutOrStdout(), logger.log)
	notify(logger.log, daemon.SdNotifyReady)
	go watchdog(profiler, logger.log)
	reloads := reloader{file: file, inForce: told, shards: v.Shards, broker: running, log: logger}
	stop := stopper{running: running, log: logger.log, signals: signals, hangups: hangups, terminal: terminal, reload: reloads.reload, stopping: profiler.Close}
	if err := stop.wait(); err != nil {
		endAtOnce(logger, err)
	}
	return nil
}

// endAtOnce ends the process with an error while threads of the broker may still run. It
// closes nothing that they use: another process could open the directory while they write
// to it, or another file could get a descriptor that they write to.
func endAtOnce(logger *logger, err error) {
	logger.drain()
	fmt.Fprintln(os.Stderr, "tailbound: "+err.Error())
	os.Exit(1)
}

// brokerOptions are the broker's options that follow from the settings and from the
// disk of the data directory.
func brokerOptions(v *settings.Values, dir *datadir.Directory) (broker.Options, error) {
	options := v.Options(v.Shards)
	options.RootFD, options.Buffered, options.DataDir = dir.Root, dir.Buffered, dir.Path
	var seed [8]byte
	crand.Read(seed[:]) // never fails (crypto/rand)
	crand.Read(options.NewDirectory[:])
	options.Seed = binary.LittleEndian.Uint64(seed[:])
	journal, _, err := journalSize(v, v.Shards)
	if err == nil {
		err = journalsFit(v, journal)
	}
	if err != nil {
		return options, err
	}
	options.JournalBytes = int(journal)
	if options.SpareBytes, err = spareBytes(v); err != nil {
		return options, fmt.Errorf("data directory: %w", err)
	}
	options.PrepareBytes, err = prepareBytes(v)
	return options, err
}

// startGrace is how long a start that is told to end is waited for, so that one that is
// nearly done becomes a clean stop.
const startGrace = 500 * time.Millisecond

// start starts the broker. It returns early with an error on a signal that ends the
// process, since recovery may take long, and may be interrupted anywhere.
func start(options broker.Options, signals chan os.Signal, hangups <-chan os.Signal, terminal terminal) (*broker.Process, error) {
	type result struct {
		running *broker.Process
		err     error
	}
	started := make(chan result, 1)
	go func() {
		running, err := broker.Start(options)
		started <- result{running, err}
	}()
	var why os.Signal
	for why == nil {
		select {
		case r := <-started:
			return r.running, r.err
		case why = <-signals:
		case signal := <-hangups: // a reload has nothing to do: the configuration was just read
			if terminal.hungUp() {
				why = signal
			}
		}
	}
	// A broker that answers first clients may not have said yet that it serves: it stops cleanly.
	select {
	case r := <-started:
		select {
		case signals <- why:
		default: // it is full of others that say the same
		}
		return r.running, r.err
	case <-time.After(startGrace):
		return nil, startBroken{why}
	}
}

// startBroken is the error of a start that a signal has interrupted. Its threads still run.
type startBroken struct{ signal os.Signal }

func (b startBroken) Error() string {
	return fmt.Sprintf("%s before the broker served; nothing acknowledged is lost, and the next start recovers again", b.signal)
}

// stopMax is how long a clean stop may take. The shards wait for the disk, and a few
// seconds at most for everything else.
const stopMax = 30 * time.Second

// stopper waits for a reason to stop, and stops a broker.
type stopper struct {
	running  *broker.Process
	log      *slog.Logger
	signals  <-chan os.Signal // each asks for the end
	hangups  <-chan os.Signal // of SIGHUP
	terminal terminal
	reload   func()
	stopping func() // called before the broker is told to stop
}

// wait waits for a signal, stops the broker and waits for that. It returns early if the
// broker ends by itself.
func (s *stopper) wait() error {
	done := make(chan error, 1)
	go func() { done <- s.running.Wait() }()
	var why os.Signal
	for why == nil {
		select {
		case err := <-done:
			if err == nil {
				err = errors.New("the broker stopped by itself")
			}
			return err
		case why = <-s.signals:
		case signal := <-s.hangups:
			if s.terminal.hungUp() {
				why = signal
			} else {
				s.reload()
			}
		}
	}
	s.log.Info("stopping", "signal", why.String())
	s.stopping()
	s.running.Stop()
	notify(s.log, daemon.SdNotifyStopping)
	asked := time.Now()
	overdue := time.After(stopMax)
	for {
		select {
		case err := <-done:
			if err != nil {
				return err
			}
			s.log.Info("stopped cleanly")
			return nil
		case signal := <-s.signals:
			// timeout(1) signals a process and then its group, which is one request to stop.
			if time.Since(asked) > 500*time.Millisecond {
				return fmt.Errorf("stopped at once by a second %s; the next start recovers", signal)
			}
		case <-s.hangups: // a terminal that goes may send it twice, and there is nothing to reload any more
		case <-overdue:
			return fmt.Errorf("stopping took more than %s: shards %v wait for the disk; stopped at once, the next start recovers", stopMax, s.running.Running())
		}
	}
}

// watchdog tells systemd, where it wants to know (WatchdogSec), that the broker
// is alive, as long as every shard takes turns.
func watchdog(profiler *observe.Server, log *slog.Logger) {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("systemd's watchdog cannot be fed", "error", err)
	}
	if err != nil || every == 0 {
		return
	}
	for {
		time.Sleep(every / 3)
		if stuck := profiler.Stuck(); len(stuck) > 0 {
			log.Error("shards took no turn; systemd is not told that all is well", "shards", stuck)
		} else if _, err := daemon.SdNotify(false, daemon.SdNotifyWatchdog); err != nil {
			log.Warn("systemd could not be told that all is well", "error", err)
		}
	}
}
