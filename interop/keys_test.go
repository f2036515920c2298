package interop

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// keysPage is the document that lists every key and version that the newest Kafka serves to clients, each as served or as absent.
const keysPage = "../docs/KEYS.md"

// absent says, by key, why a key or its last versions are not served. A key that is served as Kafka serves it has no reason here.
var absent = func() map[int16]string {
	all := map[int16]string{}
	for why, keys := range map[string][]int16{
		"no transactions yet": {24, 25, 26, 27, 28, 65, 66},
		"no authentication yet: clients connect without (`security.protocol=PLAINTEXT`)": {17, 36},
		"no authorization yet": {29, 30, 31},
		"no users yet":         {38, 39, 40, 41, 50, 51},
		"no quotas yet":        {48, 49},
		"each node has one log directory, and a partition stays on its node":                 {34},
		"partitions are placed when they are created, and do not move while the broker runs": {45},
		"there is no KRaft quorum":                                                                     {55, 80, 81, 94},
		"there are no features to raise: none is finalised":                                            {57},
		"all nodes are one process, which is not registered":                                           {64},
		"no receiver of clients' metrics; clients send none where the key is absent":                   {71, 72},
		"no share groups; Java's share consumer says so, librdkafka's preview waits without a message": {76, 77, 78, 79, 83, 84, 85, 86, 87, 90, 91, 92},
		"no streams groups; Kafka Streams works with `group.protocol=classic`, its default":            {88, 89, 93},
	} {
		for _, key := range keys {
			all[key] = why
		}
	}
	return all
}()

// TestKeys: docs/KEYS.md lists every key that Kafka's brokers serve, with the versions that are served here, and why others are not. A key or a version that
// is neither served nor stated as absent is an error, and so is one that is both. With TAILBOUND_COMPATIBILITY=write it writes the page.
func TestKeys(t *testing.T) {
	needReal(t, "it is about this broker")
	all, err := schemas()
	if err != nil {
		t.Fatal(err)
	}
	served := map[int16]kmsg.ApiVersionsResponseApiKey{}
	for _, k := range mustAsk[*kmsg.ApiVersionsResponse](t, dialTo(t, sharedBroker(t).addr()), kmsg.NewPtrApiVersionsRequest()).ApiKeys {
		served[k.ApiKey] = k
		if all[k.ApiKey] == nil || all[k.ApiKey].controller {
			t.Errorf("key %d is served, and Kafka's brokers have none", k.ApiKey)
		}
	}
	text := &bytes.Buffer{}
	fmt.Fprintf(text, keysHead, schemasKafka)
	for _, number := range slices.Sorted(maps.Keys(all)) {
		k := all[number]
		if k.controller {
			continue
		}
		have, is := served[number]
		versions, why := "–", absent[number]
		if is {
			versions = span(have.MinVersion, have.MaxVersion)
		}
		whole := is && have.MinVersion <= k.first && have.MaxVersion == k.last
		if whole != (why == "") {
			t.Errorf("%s (%d) is served in %s of %d to %d, and the reason why not is %q", k.name, number, versions, k.first, k.last, why)
		}
		fmt.Fprintf(text, "| %d | %s | %s | %s | %s |\n", number, k.name, span(k.first, k.last), versions, why)
	}
	text.WriteString(keysFoot)
	if os.Getenv("TAILBOUND_COMPATIBILITY") == "write" {
		if err := os.WriteFile(keysPage, text.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(keysPage); err != nil || !bytes.Equal(have, text.Bytes()) {
		t.Errorf("docs/KEYS.md is not what is served (%v); run `make keys`", err)
	}
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, feature := range []string{"Transactions", "TLS, SASL, ACLs, quotas", "Share groups", "streams groups", "telemetry"} {
		if _, lacks, _ := strings.Cut(string(readme), "## What is not there yet"); !strings.Contains(lacks, feature) {
			t.Errorf("README's list of what is not there yet does not name %q", feature)
		}
	}
}

func span(first, last int16) string {
	if first == last {
		return fmt.Sprint(first)
	}
	return fmt.Sprintf("%d–%d", first, last)
}

const keysHead = `# Keys and versions

Every API key that a broker of Apache Kafka %s serves, with its versions, and those that Tailbound serves. ` + "`TestKeys`" + ` in interop writes this page
(` + "`make keys`" + `) from the classes of Kafka's client and from what a broker answers to ApiVersions, and fails if a key or version is neither served nor stated
as absent. A client learns the same from ApiVersions; the connection of a request that is not served is closed, as by Kafka.

| key | name | Kafka | Tailbound | why not, or not all |
|---|---|---|---|---|
`

const keysFoot = `
Keys of Kafka's controllers alone (52 to 54, 56, 58, 59, 62, 63, 67, 70, 73, 82) are served by no broker. Produce is advertised from version 0, as by Kafka, for
librdkafka before 2.11.1, and answered from version 3.

What a served version is used for and is not there: FindCoordinator of transactions and of share groups, and InitProducerId of a transactional id, are
refused with an error on which clients give up at once; ListOffsets of tiered storage finds nothing, without an error, as by Kafka without it; DescribeLogDirs
does not know the size of the file system (-1); a producer's last timestamp in DescribeProducers is -1 after a restart until it produces again; there is no
topic ` + "`__consumer_offsets`" + `: offsets are kept in the control log, and read and changed by the keys of groups only.
`
