// What foreign_test.go asks of every client, by kafkajs: BROKER TOPIC.
const { Kafka, CompressionTypes, ConfigResourceTypes, logLevel } = require('kafkajs')
const [broker, topic] = process.argv.slice(2)
const records = 300, partitions = 3, base = Date.now() - 400000
const did = what => console.log('did: ' + what)
const want = (have, wanted, what) => {
  if (JSON.stringify(have) !== JSON.stringify(wanted)) throw new Error(`${what}: ${JSON.stringify(have)}, want ${JSON.stringify(wanted)}`)
}
const kafka = new Kafka({ clientId: 'interop', brokers: [broker], logLevel: logLevel.ERROR })

const consume = async (groupId, prepare, enough) => {
  const c = kafka.consumer({ groupId, maxWaitTimeInMs: 200 })
  await c.connect()
  await c.subscribe({ topic, fromBeginning: true })
  const seen = []
  let stop
  const over = new Promise(resolve => { stop = resolve })
  await c.run({ eachMessage: async ({ partition, message }) => { seen.push({ partition, message }); if (enough(seen)) stop() } })
  if (prepare) await prepare(c)
  await over
  return { c, seen }
}

const main = async () => {
  const admin = kafka.admin()
  await admin.connect()
  await admin.createTopics({ topics: [{ topic, numPartitions: partitions, replicationFactor: 1 }] })
  did('create a topic')
  for (const codec of [CompressionTypes.None, CompressionTypes.GZIP]) {
    const p = kafka.producer({ idempotent: codec === CompressionTypes.None, maxInFlightRequests: 1 })
    await p.connect()
    const first = codec === CompressionTypes.None ? 0 : records / 2
    const messages = []
    for (let i = first; i < first + records / 2; i++) messages.push({ key: 'k' + i, value: 'v' + i, headers: { h: '' + i }, partition: i % partitions, timestamp: '' + (base + i * 1000) })
    const acked = await p.send({ topic, acks: -1, compression: codec, messages })
    for (const a of acked) want([a.errorCode, a.baseOffset], [0, '' + first / partitions], 'offset acknowledged')
    await p.disconnect()
    did(codec === CompressionTypes.None ? 'produce, idempotent' : 'produce, gzip')
  }
  const offsets = await admin.fetchTopicOffsets(topic)
  want(offsets.map(o => [o.partition, o.low, o.high]).sort(), [[0, '0', '100'], [1, '0', '100'], [2, '0', '100']], 'offsets')
  did('offsets')
  const times = await admin.fetchTopicOffsetsByTimestamp(topic, base + 29500)
  want(times.find(o => o.partition === 0).offset, '10', 'offset for a time')
  const all = await consume('g.' + topic, null, seen => seen.length === records)
  want(new Set(all.seen.map(s => s.message.value.toString())).size, records, 'records consumed by a group')
  await all.c.commitOffsets([{ topic, partition: 0, offset: '100' }])
  await all.c.disconnect()
  want((await admin.fetchOffsets({ groupId: 'g.' + topic, topics: [topic] }))[0].partitions.find(p => p.partition === 0).offset, '100', 'committed')
  did('groups')
  for (const [name, offset, value] of [['an offset', '50', 'v150'], ['a time', '10', 'v30']]) {
    const at = s => s.partition === 0 && s.message.offset === offset
    const part = await consume('g.' + offset + topic, c => { for (let p = 0; p < partitions; p++) c.seek({ topic, partition: p, offset }) }, seen => seen.some(at))
    const m = part.seen.find(at).message
    want([m.value.toString(), m.headers.h.toString()], [value, value.slice(1)], 'consumed from ' + name)
    await part.c.disconnect()
    did('consume from ' + name)
  }
  want((await admin.listGroups()).groups.some(g => g.groupId === 'g.' + topic), true, 'listed groups')
  did('list groups')
  await admin.alterConfigs({ validateOnly: false, resources: [{ type: ConfigResourceTypes.TOPIC, name: topic, configEntries: [{ name: 'segment.bytes', value: '1048576' }] }] })
  const described = await admin.describeConfigs({ includeSynonyms: true, resources: [{ type: ConfigResourceTypes.TOPIC, name: topic }] })
  want(described.resources[0].configEntries.find(e => e.configName === 'segment.bytes').configValue, '1048576', 'described configurations')
  did('describe and alter configurations')
  await admin.createPartitions({ topicPartitions: [{ topic, count: partitions + 2 }] })
  want((await admin.fetchTopicMetadata({ topics: [topic] })).topics[0].partitions.length, partitions + 2, 'partitions')
  did('create partitions')
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '20' }] })
  want((await admin.fetchTopicOffsets(topic)).find(o => o.partition === 0).low, '20', 'beginning after DeleteRecords')
  did('delete records')
  want((await admin.describeCluster()).brokers.length > 0, true, 'brokers')
  did('describe the cluster')
  await admin.disconnect()
}
main().then(() => process.exit(0), e => { console.error(e); process.exit(1) })
