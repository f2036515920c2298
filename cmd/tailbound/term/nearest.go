package term

import "strings"

// Nearest is the name most similar to a mistyped one: by edit distance, without
// case, or a name that begins with it. "" if none is similar.
func Nearest(name string, names []string) string {
	best, bestAt := "", max(2, len(name)/3)+1
	for _, n := range names {
		d := EditDistance(strings.ToLower(name), strings.ToLower(n))
		if len(name) >= 3 && strings.HasPrefix(strings.ToLower(n), strings.ToLower(name)) {
			d = min(d, 2)
		}
		if d < bestAt {
			best, bestAt = n, d
		}
	}
	return best
}

// EditDistance is the least number of insertions, deletions and substitutions of
// bytes that turn a into b.
func EditDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			here := diagonal
			if a[i] != b[j] {
				here = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], here
		}
	}
	return row[len(b)]
}
