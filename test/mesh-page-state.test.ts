import assert from 'node:assert/strict'
import test from 'node:test'

import { COLD_MESH, meshNext, type MeshState } from '../src/core/mesh-incident.js'
import type { MeshEdge } from '../src/core/mesh-edges.js'
import { type Pair, pairKey } from '../src/core/pair.js'
import type { Verdict } from '../src/core/score.js'
import { MAX_LISTED } from '../src/page/edge-list.js'
import { createMeshIncidentPage, MAX_MAPPED_EDGES } from '../src/page/mesh-incident-page.js'
import { createMeshMonitorPage, type MeshMonitorCounts } from '../src/page/mesh-monitor-page.js'
import { MESH_RULES } from './helpers/mesh-pages.js'

const T = 1_700_000_000.123
const MOST_BYTES = 256 * 2 ** 10
const bytes = (value: unknown): number => Buffer.byteLength(JSON.stringify(value))

const FACTS = {
  query: 'the query',
  rules: { direction: 'above', minRequestsPerSecond: 0.1, minDeviationMs: 0, minDeviationRatio: 0, sloMs: null },
  quantiles: [0.5],
  shard: { ordinal: 2, count: 5 },
  maxEdges: 50_000,
} as const

function watchedEdge(pair: Pair, scored: { readonly verdict?: Verdict; readonly score?: number | null }): MeshEdge {
  return {
    kind: 'watched',
    pair,
    verdict: null,
    score: null,
    yMs: 123.456,
    yhatMs: 10,
    anomalies: 0,
    watches: null,
    version: 0,
    seen: 0,
    series: null,
    trouble: null,
    lastTimestampSeconds: null,
    vanishedSeconds: null,
    ...scored,
  }
}

const NOTHING = { ok: 0, anomalous: 0, low_traffic: 0, no_data: 0, warming: 0 }
const COUNTS: MeshMonitorCounts = {
  verdicts: { ...NOTHING, ok: 2, anomalous: 1 },
  elsewhere: 7,
  refused: { max_edges: 0, unknown: 1, bad_name: 0 },
}

test('mesh page state: a monitor tells its edges from the furthest out to those that were never scored', () => {
  const page = createMeshMonitorPage(FACTS)
  assert.equal(page.view().now, null)
  const edges = [
    watchedEdge({ source: 'new', destination: 'x' }, { verdict: 'warming' }),
    watchedEdge({ source: 'cold', destination: 'x' }, { verdict: 'ok', score: 0 }),
    watchedEdge({ source: 'silent', destination: 'x' }, { verdict: 'no_data' }),
    watchedEdge({ source: 'hot', destination: 'x' }, { verdict: 'anomalous', score: 3.456789 }),
  ]
  page.note(edges, COUNTS, T)
  const { now, history, ...facts } = page.view()
  assert.deepEqual(facts, { kind: 'mesh-monitor', ...FACTS })
  assert.deepEqual(
    now?.edges.map(({ source, verdict, score }) => [source, verdict, score]),
    [
      ['hot', 'anomalous', 3.457],
      ['cold', 'ok', 0],
      ['silent', 'no_data', null],
      ['new', 'warming', null],
    ],
  )
  assert.deepEqual(now.edges[0], {
    ...{ source: 'hot', destination: 'x', verdict: 'anomalous', score: 3.457 },
    ...{ yMs: 123.5, yhatMs: 10 },
  })
  assert.deepEqual([now.elsewhere, now.leftOut, now.receivedSeconds], [7, 0, T])
  // Without an answer what was known stays, and says of when it is.
  page.note([], null, T + 5)
  assert.deepEqual(page.view().now, now)
  assert.deepEqual(page.view().history, {
    timesSeconds: [...history.timesSeconds, T + 5],
    edges: [3, null],
    anomalous: [1, null],
  })
})

test('mesh page state: of 50,000 edges and a poll a second for half an hour a monitor tells no more than 256 KiB', () => {
  const page = createMeshMonitorPage(FACTS)
  const edges = Array.from({ length: 50_000 }, (_, i) =>
    watchedEdge({ source: `${'"'.repeat(240)}${i}`, destination: `service-${i}` }, { verdict: 'ok', score: i % 1_009 }),
  )
  for (let i = 0; i < 1_800; i++) page.note(i === 1_799 ? edges : [], COUNTS, T + i)
  const view = page.view()
  assert.ok(bytes(view) <= MOST_BYTES, `${bytes(view)}`)
  const { now } = view
  assert.equal(now?.edges[0]?.score, 1_008)
  assert.equal(now.edges.length + now.leftOut, 50_000)
  assert.ok(now.edges.length > 50 && now.edges.length <= MAX_LISTED)
})

function heated(edges: readonly Pair[], polls: number): MeshState {
  const verdict = { kind: 'anomalous', anomalyCount: 1 } as const
  const verdicts = new Map(edges.map((edge) => [pairKey(edge), { ...edge, verdict }]))
  let state = COLD_MESH
  for (let i = 0; i < polls; i++)
    ({ state } = meshNext(state, { timestampSeconds: T - polls + i, verdicts }, MESH_RULES))
  return state
}

for (const { name, edges } of [
  {
    name: '3,000 edges of 300 incidents',
    edges: Array.from({ length: 3_000 }, (_, i) => ({ source: `caller-${i}`, destination: `callee-${i % 300}` })),
  },
  {
    name: '400 edges of 40 incidents with the longest and worst names there are',
    edges: Array.from({ length: 400 }, (_, i) => ({
      source: `${'\u0000'.repeat(245)}${i}`,
      destination: `${'購'.repeat(245)}${i % 40}`,
    })),
  },
]) {
  test(`mesh page state: of ${name} an incident daemon tells no more than 256 KiB`, () => {
    const page = createMeshIncidentPage(MESH_RULES)
    const state = heated(edges, 14)
    for (let i = 0; i < 1_800; i++) {
      const poll = { timestampSeconds: T + i, verdicts: new Map() }
      page.note({ state: i === 1_799 ? state : COLD_MESH, poll, monitors: 3 }, { nowSeconds: T + i, expected: null })
    }
    const view = page.view(() => ({ kind: 'none', because: 'x'.repeat(500) }))
    assert.ok(bytes(view) <= MOST_BYTES, `${bytes(view)}`)
    const { now } = view
    assert.ok(now !== null && now.incidents.length > 0)
    assert.equal(now.incidents.length + now.incidentsLeftOut, state.incidents.length)
    assert.equal(now.edges.length + now.edgesLeftOut, edges.length)
    assert.deepEqual([now.warm, now.hot], [edges.length, edges.length])
    assert.equal(now.incidents[0]?.map.length, Math.min(MAX_MAPPED_EDGES, 10))
  })
}

test('mesh page state: one warm edge is looked at with all of its way, and a cold one is not known', () => {
  const page = createMeshIncidentPage(MESH_RULES)
  const pair = { source: 'a', destination: 'b' }
  assert.equal(page.look(pair), undefined)
  const state = heated([pair], 12)
  const verdict = { kind: 'unknown', reason: 'stale' } as const
  const poll = { timestampSeconds: T, verdicts: new Map([[pairKey(pair), { ...pair, verdict }]]) }
  page.note({ state, poll, monitors: 1 }, { nowSeconds: T, expected: null })
  const looked = page.look(pair)
  assert.deepEqual(
    looked?.course,
    Array.from({ length: 12 }, (_, i) => [T - 12 + i, i + 1]),
  )
  const [listed] = page.find('a b').edges
  assert.ok(listed)
  assert.deepEqual(looked, { ...listed, course: looked.course })
  assert.deepEqual([listed.accumulator, listed.hot, listed.verdict], [12, true, verdict])
  assert.match(listed.incident ?? '', /^20231114T/)
  assert.equal(page.look({ source: 'a', destination: 'c' }), undefined)
})
