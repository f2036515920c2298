// Package term is what the commands of tailbound share towards the person or the
// script that runs them: exit statuses, --output, numbers and sizes as text, a
// progress bar, and answers to words that are no command, flag or value.
//
// It knows the terminal and cobra. It imports nothing of Tailbound and does not
// know what a command does.
//
// Invariants: data goes to the writer that it is given; an error for a mistyped
// word names the right word or the command that lists the right words.
package term
