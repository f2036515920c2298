package ioring

import (
	"encoding/binary"
	"strconv"

	"github.com/tailbound/tailbound/mem"
)

// Address is an IPv6 address, or an IPv4 address mapped to IPv6 (RFC 4291, 2.5.5.2), so that a
// peer has one address whatever the family of the listener.
type Address [16]byte

// AddressBytes is the size of an Accept's Buf: the length of the address (4 bytes), and from
// byte 8 on the address, as the kernel's struct sockaddr.
const AddressBytes = 64

const (
	addressAt = 8
	inet4     = 2  // AF_INET
	inet6     = 10 // AF_INET6
)

// PeerAddress is the address that an Accept wrote to its Buf. Zero: it is no IP address.
func PeerAddress(accepted mem.Block) (address Address) {
	buf := accepted.Bytes()[addressAt:]
	switch binary.NativeEndian.Uint16(buf) {
	case inet4: // family, port, address (struct sockaddr_in)
		address[10], address[11] = 0xff, 0xff
		copy(address[12:], buf[4:8])
	case inet6: // family, port, flow, address (struct sockaddr_in6)
		copy(address[:], buf[8:24])
	}
	return address
}

// Append appends the address as text: 10.1.2.3, or eight groups of hexadecimal digits.
func (a Address) Append(dst []byte) []byte {
	if a == (Address{10: 0xff, 11: 0xff, 12: a[12], 13: a[13], 14: a[14], 15: a[15]}) {
		for i, b := range a[12:] {
			if i > 0 {
				dst = append(dst, '.')
			}
			dst = strconv.AppendUint(dst, uint64(b), 10)
		}
		return dst
	}
	for i := 0; i < len(a); i += 2 {
		if i > 0 {
			dst = append(dst, ':')
		}
		dst = strconv.AppendUint(dst, uint64(a[i])<<8|uint64(a[i+1]), 16)
	}
	return dst
}

// PutPeerAddress writes an address to an Accept's Buf, for rings that are not the kernel's.
func PutPeerAddress(accepted mem.Block, address Address) {
	buf := accepted.Bytes()[addressAt:]
	binary.NativeEndian.PutUint16(buf, inet6)
	copy(buf[8:24], address[:])
}
