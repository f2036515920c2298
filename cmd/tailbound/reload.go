package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/tailbound/tailbound/broker"
	"github.com/tailbound/tailbound/cmd/tailbound/settings"
)

// SIGHUP has two meanings: the terminal from which a program was started has gone, and,
// by convention, that a daemon is to read its configuration again. Both are taken
// (docs/decisions/0021-sighup.md): it is a hang-up if the process had a controlling
// terminal when it started and has none any more.

// terminal is the controlling terminal at the start of the process.
type terminal struct{ there bool }

// controllingTerminal finds out whether there is one whose hang-up is to end the process.
// nohup, which has the process start with SIGHUP ignored, says that it is not.
func controllingTerminal() terminal {
	return terminal{!signal.Ignored(unix.SIGHUP) && hasTerminal()}
}

// hasTerminal says whether the process has a controlling terminal now: /dev/tty is it.
func hasTerminal() bool {
	fd, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

// hungUp says that the terminal has gone. The kernel takes it from the processes of its
// session one after the other, and a shell that was told first passes SIGHUP on to its
// jobs: this process may have it still for a moment.
func (t terminal) hungUp() bool {
	if !t.there {
		return false
	}
	for limit := time.Now().Add(200 * time.Millisecond); time.Now().Before(limit); time.Sleep(10 * time.Millisecond) {
		if !hasTerminal() {
			return true
		}
	}
	return false
}

// reloader reads the configuration of a running broker again.
type reloader struct {
	file    string        // of --config; "": none
	inForce *settings.Set // as the last reading left them
	shards  int           // data shards that run
	broker  *broker.Process
	log     *logger
}

// reload reads the file and has the broker act on what it can; it logs each change, and
// each that needs a restart. If anything is wrong with the file, nothing changes.
func (r *reloader) reload() {
	log := r.log.log
	notify(log, daemon.SdNotifyReloading+"\n"+daemon.SdNotifyMonotonicUsec())
	defer notify(log, daemon.SdNotifyReady)
	if r.file == "" {
		log.Warn("SIGHUP: there is no configuration to read again, as --config names no file")
		return
	}
	next, changes, err := r.inForce.Reread(r.file, os.Environ())
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			log.Error("the configuration is not reloaded, and nothing changes: " + strings.TrimSpace(line))
		}
		return
	}
	// The report is written as the old settings or the new ones say, whichever say more.
	out := logHandler(os.Stderr, &next.Values)
	if out.Enabled(context.Background(), slog.LevelInfo) {
		r.log.setHandler(out)
	} else {
		defer func() {
			r.log.drain()
			r.log.setHandler(out)
		}()
	}
	acted, restart := 0, 0
	for _, change := range changes {
		if change.Restart {
			restart++
			log.Warn("a changed setting needs a restart", "setting", change.Name, "in_force", change.From, "in_file", change.To)
		} else {
			acted++
			log.Info("a setting is changed", "setting", change.Name, "from", change.From, "to", change.To)
		}
	}
	r.inForce = next
	if acted > 0 {
		r.broker.Reload(next.Values.Options(r.shards))
		for late := time.Now().Add(reloadMax); !r.broker.Reloaded(); time.Sleep(time.Millisecond) {
			if time.Now().After(late) {
				log.Error("the control shard has not acted on changed settings yet", "waited", reloadMax)
				break
			}
		}
	}
	log.Info("configuration reloaded", "file", r.file, "changed", acted, "need_restart", restart)
}

// reloadMax is how long a reload waits for the control shard, which acts in its next turn.
const reloadMax = 5 * time.Second

// notify tells systemd, if it wants to know, of a state.
func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("systemd could not be told", "state", state, "error", err)
	}
}
