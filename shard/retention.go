package shard

// retainEveryNS is how often each partition is held against its retention.
const retainEveryNS = 1e9
