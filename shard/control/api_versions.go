package control

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/shard"
)

// ApiVersions (18). 1 has a throttle time, 3 is flexible and names the client's
// software (KIP-511), 4 may say that a feature begins at version 0, 5 names the cluster and
// the node that the client means (KIP-1242). Every shard answers these requests itself,
// with bytes that are made here once.

// advertised returns the keys that are served, in order, in the form of ApiVersions.
func advertised(all *table) (keys []kmsg.ApiVersionsResponseApiKey) {
	for i := range all {
		if all[i].served.Where == shard.NotServed {
			continue
		}
		row := kmsg.NewApiVersionsResponseApiKey()
		row.ApiKey, row.MinVersion, row.MaxVersion = all[i].key, all[i].served.Versions.Min, all[i].served.Versions.Max
		keys = append(keys, row)
	}
	return keys
}

// apiVersionsBody returns the answer to ApiVersions in a version, without its correlation
// id. It is the same for every client.
func apiVersionsBody(all *table, version int16) []byte {
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.SetVersion(version)
	resp.ApiKeys = advertised(all)
	return resp.AppendTo(nil)
}

// apiVersionsRefusal returns the answer to a version of ApiVersions that is not served: the
// body of version 0 with UNSUPPORTED_VERSION and the keys (KIP-511).
func apiVersionsRefusal(all *table) []byte {
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.ErrorCode, resp.ApiKeys = int16(kafka.UnsupportedVersion), advertised(all)
	return resp.AppendTo(nil)
}

// apiVersionsError returns the answer to a client that is refused: it has no keys.
func apiVersionsError(version int16, code kafka.ErrorCode) []byte {
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.SetVersion(version)
	resp.ErrorCode = int16(code)
	return resp.AppendTo(nil)
}
