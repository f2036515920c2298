package term

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ExitStatus is an error that ends the process with this status. main prints
// nothing for it: the command has printed the reason.
type ExitStatus int

// Error names the status.
func (e ExitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// EnvOr is the value of a variable of the environment, or value if it is not
// set or empty.
func EnvOr(name, value string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return value
}

// IsTerminal says whether a file is a terminal.
func IsTerminal(file *os.File) bool {
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}
