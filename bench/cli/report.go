package cli

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/tailbound/tailbound/bench/page"
	"github.com/tailbound/tailbound/bench/record"
	"github.com/tailbound/tailbound/bench/trial"
)

func reportCommand() *cobra.Command {
	var out, title string
	c := &cobra.Command{
		Use:   "report DIR...",
		Short: "Make one HTML page of recordings",
		Long: `Make one HTML page of recordings, those in DIR and below: percentile curves,
latency over time, the machine's hiccups, and of a Tailbound broker what each
stage of its requests took. The page needs nothing but itself. An .hlog file of
another tool will do too.`,
		Example: `  tailbound bench report bench/results/A -o report.html
  tailbound bench report before after -o both.html --title "before and after"`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var all []record.Recording
			for _, dir := range args {
				some, err := readRecordings(dir)
				if err != nil {
					return err
				}
				for i := range some {
					if len(args) > 1 {
						some[i].Path = filepath.Join(filepath.Base(dir), some[i].Path)
					}
				}
				all = append(all, some...)
			}
			f, err := os.Create(out)
			if err != nil {
				return err
			}
			if err := page.Write(f, cmp.Or(title, page.Title(all)), all); err != nil {
				f.Close()
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), out)
			return f.Close()
		},
	}
	c.Flags().StringVarP(&out, "out", "o", "report.html", "the file")
	c.Flags().StringVar(&title, "title", "", "its title")
	return c
}

// readRecordings reads what was measured, without the calibrations and fillings
// that came before: those are a means.
func readRecordings(dir string) ([]record.Recording, error) {
	all, err := record.Read(dir)
	if err != nil {
		return nil, err
	}
	if most := slices.DeleteFunc(slices.Clone(all), func(r record.Recording) bool { return trial.IsMeans(r.Path) }); len(most) > 0 {
		return most, nil
	}
	return all, nil
}
