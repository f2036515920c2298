package trial

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// FreePorts finds n consecutive ports below the ephemeral range: a broker of
// several listeners takes them all.
func FreePorts(n int) (int, error) {
	for range 100 {
		port := 20_000 + rand.IntN(10_000)
		free := true
		for i := range n {
			ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+i))
			if err != nil {
				free = false
				break
			}
			_ = ln.Close()
		}
		if free {
			return port, nil
		}
	}
	return 0, errors.New("no free ports")
}
