package control

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/shard"
)

// This file is the table of all that a broker serves: one row for each key. The functions
// that a row names are in the file of the key's family, whose first comment says what each
// version means. docs/CONTRIBUTING.md shows how a row is added.

// api is one row of the table: a key, its versions, and where it is served.
type api struct {
	key    int16
	served shard.Served

	// names counts the topics, partitions, groups and the like that a request names. A
	// request that names more than there can be is not started.
	names func(req kmsg.Request) int

	// start does as much of a request's work as can be done at once, and has the task
	// wait for the rest. It writes errors that it finds into the response itself.
	start func(c *control, t *task)

	// fail writes an error that is found after start into the response: for one item of
	// the request, counted in the order of the request, or for wholeRequest. An item that
	// has an error already keeps it.
	fail func(t *task, item int, code kafka.ErrorCode, message string)
}

// wholeRequest is the item that stands for all items.
const wholeRequest = -1

// table has the rows by key.
type table [kafka.KeysMax]api

// newTable makes the table. It is not changed afterwards. The versions of the hot keys are
// those that room kafka reads. The versions of all others begin where Kafka 4 begins, as old
// clients insist on those, and end where kmsg ends, unless the family's file says why they
// end earlier.
func newTable() *table {
	all := new(table)
	for _, row := range []api{
		// Data shards answer these; only the control shard's own node comes here.
		atLeader(kafka.KeyProduce, kafka.ProduceVersions, (*control).refuseProduce),
		atLeader(kafka.KeyFetch, kafka.FetchVersions, (*control).refuseFetch),
		atLeader(kafka.KeyListOffsets, kafka.ListOffsetsVersions, (*control).refuseListOffsets),
		atLeader(kafka.KeyOffsetForLeaderEpoch, kafka.EpochVersions, (*control).refuseEpochs),

		atEveryNode(kafka.KeyApiVersions, 0, kafka.ApiVersionsMax),

		// metadata.go
		atControl(kafka.KeyMetadata, 0, 13, metadataNames, (*control).metadata, failMetadata),
		atControl(kafka.KeyFindCoordinator, 0, 6, namesNothing, (*control).findCoordinator, cannotFail),
		atControl(kafka.KeyDescribeCluster, 0, 2, namesNothing, (*control).describeCluster, cannotFail),
		atControl(kafka.KeyDescribeTopicPartitions, 0, 0, describeTopicPartitionsNames, (*control).describeTopicPartitions, cannotFail),

		// topics.go
		atControl(kafka.KeyCreateTopics, 2, 7, createTopicsNames, (*control).createTopics, failCreateTopics),
		atControl(kafka.KeyDeleteTopics, 1, 6, deleteTopicsNames, (*control).deleteTopics, failDeleteTopics),
		atControl(kafka.KeyCreatePartitions, 0, 3, createPartitionsNames, (*control).createPartitions, failCreatePartitions),

		// partitions.go
		atControl(kafka.KeyDeleteRecords, 0, 2, deleteRecordsNames, (*control).deleteRecords, cannotFail),
		atControl(kafka.KeyDescribeLogDirs, 1, 5, namesNothing, (*control).describeLogDirs, cannotFail),
		atControl(kafka.KeyDescribeProducers, 0, 0, describeProducersNames, (*control).describeProducers, cannotFail),
		atControl(kafka.KeyElectLeaders, 0, 2, electLeadersNames, (*control).electLeaders, cannotFail),
		atControl(kafka.KeyListPartitionReassignments, 0, 0, namesNothing, (*control).listPartitionReassignments, cannotFail),

		// configs.go
		atControl(kafka.KeyDescribeConfigs, 1, 4, describeConfigsNames, (*control).describeConfigs, cannotFail),
		atControl(kafka.KeyAlterConfigs, 0, 2, alterConfigsNames, (*control).alterConfigs, failAlterConfigs),
		atControl(kafka.KeyIncrementalAlterConfigs, 0, 1, incrementalAlterConfigsNames, (*control).incrementalAlterConfigs, failIncrementalAlterConfigs),
		atControl(kafka.KeyListConfigResources, 0, 1, listConfigResourcesNames, (*control).listConfigResources, cannotFail),

		// producer_ids.go
		atControl(kafka.KeyInitProducerID, 0, 5, namesNothing, (*control).initProducerID, failInitProducerID),

		// group_members.go
		atCoordinator(kafka.KeyJoinGroup, 0, 9, joinGroupNames, (*control).joinGroup, failJoinGroup),
		atCoordinator(kafka.KeySyncGroup, 0, 5, syncGroupNames, (*control).syncGroup, failSyncGroup),
		atCoordinator(kafka.KeyHeartbeat, 0, 4, namesNothing, (*control).heartbeat, failHeartbeat),
		atCoordinator(kafka.KeyLeaveGroup, 0, 5, leaveGroupNames, (*control).leaveGroup, failLeaveGroup),
		atCoordinator(kafka.KeyConsumerGroupHeartbeat, 0, 1, consumerGroupHeartbeatNames, (*control).consumerGroupHeartbeat, failConsumerGroupHeartbeat),

		// group_offsets.go
		atCoordinator(kafka.KeyOffsetCommit, 2, 10, offsetCommitNames, (*control).offsetCommit, failOffsetCommit),
		atCoordinator(kafka.KeyOffsetFetch, 1, 10, offsetFetchNames, (*control).offsetFetch, failOffsetFetch),
		atCoordinator(kafka.KeyOffsetDelete, 0, 0, offsetDeleteNames, (*control).offsetDelete, failOffsetDelete),

		// group_admin.go
		atControl(kafka.KeyListGroups, 0, 5, listGroupsNames, (*control).listGroups, cannotFail),
		atCoordinator(kafka.KeyDescribeGroups, 0, 6, describeGroupsNames, (*control).describeGroups, failDescribeGroups),
		atCoordinator(kafka.KeyConsumerGroupDescribe, 0, 1, consumerGroupDescribeNames, (*control).consumerGroupDescribe, failConsumerGroupDescribe),
		atCoordinator(kafka.KeyDeleteGroups, 0, 3, deleteGroupsNames, (*control).deleteGroups, failDeleteGroups),
	} {
		if all[row.key].served.Where != shard.NotServed {
			panic("control: a key has two rows")
		}
		all[row.key] = row
	}
	return all
}

// row makes a row from functions that take the message types of their key. It panics where
// the types are another key's: that is found when any broker or test starts.
func row[Q kmsg.Request, R kmsg.Response](key int16, served shard.Served, names func(Q) int, start func(*control, *task, Q, R), fail func(Q, R, int, kafka.ErrorCode, string)) api {
	if _, ok := kmsg.RequestForKey(key).(Q); !ok {
		panic("control: a row has the functions of another key")
	}
	return api{
		key: key, served: served,
		names: func(req kmsg.Request) int { return names(req.(Q)) },
		start: func(c *control, task *task) { start(c, task, task.req.(Q), task.resp.(R)) },
		fail: func(task *task, item int, code kafka.ErrorCode, message string) {
			fail(task.req.(Q), task.resp.(R), item, code, message)
		},
	}
}

// atLeader makes the row of a hot key. Its start only refuses what was sent to the control
// shard's own node.
func atLeader[Q kmsg.Request, R kmsg.Response](key int16, versions kafka.Versions, start func(*control, *task, Q, R)) api {
	return row(key, shard.Served{Where: shard.AtLeader, Versions: versions}, namesNothing[Q], start, cannotFail[Q, R])
}

// atEveryNode makes the row of a key whose requests never reach the control.
func atEveryNode(key, least, most int16) api {
	return api{key: key, served: shard.Served{Where: shard.AtEveryNode, Versions: kafka.Versions{Min: least, Max: most}}}
}

// atControl makes the row of a key that any node may be asked.
func atControl[Q kmsg.Request, R kmsg.Response](key, least, most int16, names func(Q) int, start func(*control, *task, Q, R), fail func(Q, R, int, kafka.ErrorCode, string)) api {
	return row(key, shard.Served{Where: shard.AtControl, Versions: kafka.Versions{Min: least, Max: most}}, names, start, fail)
}

// atCoordinator makes the row of a key that only the coordinator of groups serves. For any
// other node, fail writes NOT_COORDINATOR.
func atCoordinator[Q kmsg.Request, R kmsg.Response](key, least, most int16, names func(Q) int, start func(*control, *task, Q, R), fail func(Q, R, int, kafka.ErrorCode, string)) api {
	return row(key, shard.Served{Where: shard.AtCoordinator, Versions: kafka.Versions{Min: least, Max: most}}, names, start, fail)
}

// namesNothing is names of a key whose response does not grow with what a request names.
func namesNothing[Q kmsg.Request](Q) int { return 0 }

// cannotFail is fail of a key whose start finds all errors: whatever it waits for writes
// its own errors into the response, or has none.
func cannotFail[Q kmsg.Request, R kmsg.Response](Q, R, int, kafka.ErrorCode, string) {
	panic("control: a request failed after its start, and has no way to say so")
}

// API returns what a broker serves, for all of its shards. The zero GroupOptions stand for
// DefaultGroupOptions.
func API(groups GroupOptions) *shard.API {
	if groups.SessionTimeoutMaxMS == 0 {
		groups = DefaultGroupOptions()
	}
	all := newTable()
	served := &shard.API{New: func(host shard.Host, with shard.Options, seed uint64) shard.Control {
		return newControl(host, all, options{with, groups}, seed)
	}}
	for i := range all {
		served.Keys[i] = all[i].served
	}
	for version := range served.Versions {
		served.Versions[version] = apiVersionsBody(all, int16(version))
		served.VersionsInvalid[version] = apiVersionsError(int16(version), kafka.InvalidRequest)
		served.VersionsElsewhere[version] = apiVersionsError(int16(version), kafka.RebootstrapRequired)
	}
	served.VersionsRefusal = apiVersionsRefusal(all)
	return served
}
