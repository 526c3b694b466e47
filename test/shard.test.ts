import assert from 'node:assert/strict'
import test from 'node:test'

import type { Pair } from '../src/core/pair.js'
import { fnv1a64, jumpHash, podOrdinal, shardOf } from '../src/core/shard.js'

// Vectors: draft-eastlake-fnv, appendix C; and ClickHouse's jumpConsistentHash, which is the code of the paper.
for (const { text, hash } of [
  { text: '', hash: 0xcbf29ce484222325n },
  { text: 'a', hash: 0xaf63dc4c8601ec8cn },
  { text: 'foobar', hash: 0x85944171f73967e8n },
]) {
  test(`shard: FNV-1a of ${JSON.stringify(text)} is ${hash.toString(16)}`, () => {
    assert.equal(fnv1a64(new TextEncoder().encode(text)), hash)
  })
}

for (const { key, buckets, bucket } of [
  { key: 1n, buckets: 1, bucket: 0 },
  { key: 42n, buckets: 57, bucket: 43 },
  { key: 256n, buckets: 1024, bucket: 520 },
  { key: 3735883980n, buckets: 1, bucket: 0 },
  { key: 3735883980n, buckets: 666, bucket: 361 },
  { key: 16045690984833335023n, buckets: 255, bucket: 237 },
]) {
  test(`shard: the jump hash of ${key} in ${buckets} buckets is ${bucket}`, () => {
    assert.equal(jumpHash(key, buckets), bucket)
  })
}

const EDGES: readonly Pair[] = Array.from({ length: 5_000 }, (_, i) => ({
  source: `service-${i % 71}`,
  destination: `service-${i}`,
}))

test('shard: every edge is in one of the shards, and they are even', () => {
  for (const count of [1, 2, 3, 5, 8]) {
    const sizes = new Array<number>(count).fill(0)
    for (const edge of EDGES) {
      const ordinal = shardOf(edge, count)
      assert.ok(Number.isInteger(ordinal) && ordinal >= 1 && ordinal <= count, `${ordinal} of ${count}`)
      sizes[ordinal - 1]!++
    }
    for (const size of sizes) assert.ok(Math.abs(size * count - EDGES.length) < 0.15 * EDGES.length, sizes.join(' '))
  }
})

test('shard: one more shard takes its share from all of them, and no other edge moves', () => {
  for (const count of [1, 2, 3, 4, 5, 6, 7]) {
    const moved = EDGES.filter((edge) => shardOf(edge, count + 1) !== shardOf(edge, count))
    assert.deepEqual([...new Set(moved.map((edge) => shardOf(edge, count + 1)))], [count + 1])
    const expected = EDGES.length / (count + 1)
    assert.ok(Math.abs(moved.length - expected) < 0.15 * expected, `${moved.length} moved, not ${expected.toFixed(0)}`)
  }
})

test('shard: names that are alike when written one after the other are different edges', () => {
  const pairs = [
    [
      { source: 'a,b', destination: 'c' },
      { source: 'a', destination: 'b,c' },
    ],
    [
      { source: 'a"', destination: 'b' },
      { source: 'a', destination: '"b' },
    ],
    [
      { source: 'a\n', destination: 'b' },
      { source: 'a', destination: '\nb' },
    ],
  ] as const
  for (const [one, other] of pairs) {
    const shards = (edge: Pair): readonly number[] => [7, 97, 997].map((count) => shardOf(edge, count))
    assert.notDeepEqual(shards(one), shards(other))
  }
})

for (const { podName, ordinal } of [
  { podName: 'mesh-monitor-0', ordinal: 0 },
  { podName: 'mesh-monitor-12', ordinal: 12 },
  { podName: 'm-1-2', ordinal: 2 },
  { podName: 'mesh-monitor-01', ordinal: null },
  { podName: 'mesh-monitor-5c7d9', ordinal: null },
  { podName: 'mesh-monitor-', ordinal: null },
  { podName: '3', ordinal: null },
  { podName: '-3', ordinal: null },
  { podName: '', ordinal: null },
]) {
  test(`shard: the ordinal of the pod ${JSON.stringify(podName)} is ${ordinal}`, () => {
    assert.equal(podOrdinal(podName), ordinal)
  })
}
