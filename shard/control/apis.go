package control

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tailbound/tailbound/kafka"
	"github.com/tailbound/tailbound/shard"
)

// This file is the table of all that a broker serves: a row for each key. The
// functions that a row names are in the file of the key's family, which begins with
// what its versions mean. docs/CONTRIBUTING.md shows how a row is added.

// api is one row of the table: a key, its versions, and where it is served.
type api struct {
	key    int16
	served shard.Served

	// names is how many topics, partitions, groups and the like a request names. What
	// names more than there can be is not started.
	names func(req kmsg.Request) int

	// start does a request's work as far as it can be done at once, and has the task
	// wait for the rest. What it finds wrong it writes into the response itself.
	start func(c *control, t *task)

	// fail writes into a response what went wrong after start: for one item of the
	// request, in the order of the request, or for wholeRequest. An item that has an
	// error keeps it.
	fail func(t *task, item int, code kafka.ErrorCode, message string)
}

// wholeRequest is the item that stands for all of them.
const wholeRequest = -1

// table has the rows by key.
type table [kafka.KeysMax]api

// newTable makes the table, which is not changed afterwards. The versions of the hot
// keys are those that room kafka reads. All others begin where Kafka 4 begins, for old
// clients insist on that, and end where kmsg does, but where a family's file says why
// not.
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
		atControl(kafka.KeyFindCoordinator, 0, 4, namesNothing, (*control).findCoordinator, cannotFail),
		atControl(kafka.KeyDescribeCluster, 0, 2, namesNothing, (*control).describeCluster, cannotFail),
		atControl(kafka.KeyDescribeTopicPartitions, 0, 0, describeTopicPartitionsNames, (*control).describeTopicPartitions, cannotFail),

		// topics.go
		atControl(kafka.KeyCreateTopics, 2, 7, createTopicsNames, (*control).createTopics, failCreateTopics),
		atControl(kafka.KeyDeleteTopics, 1, 6, deleteTopicsNames, (*control).deleteTopics, failDeleteTopics),
		atControl(kafka.KeyCreatePartitions, 0, 3, createPartitionsNames, (*control).createPartitions, failCreatePartitions),

		// partitions.go
		atControl(kafka.KeyDeleteRecords, 0, 2, deleteRecordsNames, (*control).deleteRecords, cannotFail),
		atControl(kafka.KeyDescribeLogDirs, 1, 4, namesNothing, (*control).describeLogDirs, cannotFail),
		atControl(kafka.KeyDescribeProducers, 0, 0, describeProducersNames, (*control).describeProducers, cannotFail),
		atControl(kafka.KeyElectLeaders, 0, 2, electLeadersNames, (*control).electLeaders, cannotFail),
		atControl(kafka.KeyListPartitionReassignments, 0, 0, namesNothing, (*control).listPartitionReassignments, cannotFail),

		// configs.go
		atControl(kafka.KeyDescribeConfigs, 1, 4, describeConfigsNames, (*control).describeConfigs, cannotFail),
		atControl(kafka.KeyAlterConfigs, 0, 2, alterConfigsNames, (*control).alterConfigs, failAlterConfigs),
		atControl(kafka.KeyIncrementalAlterConfigs, 0, 1, incrementalAlterConfigsNames, (*control).incrementalAlterConfigs, failIncrementalAlterConfigs),
		atControl(kafka.KeyListConfigResources, 0, 1, listConfigResourcesNames, (*control).listConfigResources, cannotFail),

		// producer_ids.go
		atControl(kafka.KeyInitProducerID, 0, 4, namesNothing, (*control).initProducerID, failInitProducerID),

		// group_members.go
		atCoordinator(kafka.KeyJoinGroup, 0, 9, joinGroupNames, (*control).joinGroup, failJoinGroup),
		atCoordinator(kafka.KeySyncGroup, 0, 5, syncGroupNames, (*control).syncGroup, failSyncGroup),
		atCoordinator(kafka.KeyHeartbeat, 0, 4, namesNothing, (*control).heartbeat, failHeartbeat),
		atCoordinator(kafka.KeyLeaveGroup, 0, 5, leaveGroupNames, (*control).leaveGroup, failLeaveGroup),
		atCoordinator(kafka.KeyConsumerGroupHeartbeat, 0, 1, consumerGroupHeartbeatNames, (*control).consumerGroupHeartbeat, failConsumerGroupHeartbeat),

		// group_offsets.go
		atCoordinator(kafka.KeyOffsetCommit, 2, 9, offsetCommitNames, (*control).offsetCommit, failOffsetCommit),
		atCoordinator(kafka.KeyOffsetFetch, 1, 9, offsetFetchNames, (*control).offsetFetch, failOffsetFetch),
		atCoordinator(kafka.KeyOffsetDelete, 0, 0, offsetDeleteNames, (*control).offsetDelete, failOffsetDelete),

		// group_admin.go
		atControl(kafka.KeyListGroups, 0, 5, listGroupsNames, (*control).listGroups, cannotFail),
		atCoordinator(kafka.KeyDescribeGroups, 0, 6, describeGroupsNames, (*control).describeGroups, failDescribeGroups),
		atCoordinator(kafka.KeyConsumerGroupDescribe, 0, 1, consumerGroupDescribeNames, (*control).consumerGroupDescribe, failConsumerGroupDescribe),
		atCoordinator(kafka.KeyDeleteGroups, 0, 2, deleteGroupsNames, (*control).deleteGroups, failDeleteGroups),
	} {
		if all[row.key].served.Where != shard.NotServed {
			panic("control: a key has two rows")
		}
		all[row.key] = row
	}
	return all
}

// row makes a row of functions that know the types of their key's messages.
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

// atLeader is a row of a hot key: start refuses what was sent to the control shard's
// own node.
func atLeader[Q kmsg.Request, R kmsg.Response](key int16, versions kafka.Versions, start func(*control, *task, Q, R)) api {
	return row(key, shard.Served{Where: shard.AtLeader, Versions: versions}, namesNothing[Q], start, cannotFail[Q, R])
}

// atEveryNode is the row of a key that never comes to the control.
func atEveryNode(key, least, most int16) api {
	return api{key: key, served: shard.Served{Where: shard.AtEveryNode, Versions: kafka.Versions{Min: least, Max: most}}}
}

func atControl[Q kmsg.Request, R kmsg.Response](key, least, most int16, names func(Q) int, start func(*control, *task, Q, R), fail func(Q, R, int, kafka.ErrorCode, string)) api {
	return row(key, shard.Served{Where: shard.AtControl, Versions: kafka.Versions{Min: least, Max: most}}, names, start, fail)
}

// atCoordinator is a row of a key that asks the coordinator of groups. fail is also
// how a node answers that does not coordinate.
func atCoordinator[Q kmsg.Request, R kmsg.Response](key, least, most int16, names func(Q) int, start func(*control, *task, Q, R), fail func(Q, R, int, kafka.ErrorCode, string)) api {
	return row(key, shard.Served{Where: shard.AtCoordinator, Versions: kafka.Versions{Min: least, Max: most}}, names, start, fail)
}

// namesNothing is for requests whose response does not grow with what they name.
func namesNothing[Q kmsg.Request](Q) int { return 0 }

// cannotFail is for keys whose start says all that can be wrong: nothing they wait for
// ends in a failure that the task has to be told.
func cannotFail[Q kmsg.Request, R kmsg.Response](Q, R, int, kafka.ErrorCode, string) {
	panic("control: a request failed after its start, and has no way to say so")
}

// API is what a broker serves, with these rules for consumer groups; without any:
// DefaultGroupOptions. All shards of a broker are given it.
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
		served.VersionsInvalid[version] = apiVersionsInvalid(int16(version))
	}
	served.VersionsRefusal = apiVersionsRefusal(all)
	return served
}
