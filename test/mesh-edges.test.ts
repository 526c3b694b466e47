import assert from 'node:assert/strict'
import test from 'node:test'

import { createEdgeTable, type EdgeTable, type EdgeTableOptions } from '../src/core/mesh-edges.js'
import type { Pair } from '../src/core/pair.js'
import type { Watches } from '../src/core/score.js'
import { ShapeError } from '../src/core/series.js'
import { HOSTILE_NAMES, type MeshElement, meshElements } from './helpers/mesh-answers.js'

const T = 1_700_000_000

const OPTIONS: EdgeTableOptions = {
  sourceLabel: 'source_app',
  destinationLabel: 'destination_app',
  maxEdges: 100,
  graceSeconds: 900,
  shard: { ordinal: 1, count: 1 },
  baselines: { watchesOf: () => null, version: () => 0, ready: () => true },
  quantiles: [0.5],
  maxAgeSeconds: 45,
}

const edge = (source: string, destination = 'b'): Pair => ({ source, destination })

function taken(table: EdgeTable, elements: readonly MeshElement[]): void {
  table.begin()
  for (const element of elements) table.take(element)
}

const healthy = (pairs: readonly Pair[], k = 0): readonly MeshElement[] =>
  pairs.flatMap((pair) => meshElements(pair, T + 5 * k, { 0.5: '8' }))

const watched = (table: EdgeTable): readonly Pair[] => [...table.edges].map(({ pair }) => pair)

/** What each edge's reading came to, by source. */
function outcomes(table: EdgeTable): Readonly<Record<string, string>> {
  return Object.fromEntries([...table.edges].map((each) => [each.pair.source, table.read(each, 0).outcome]))
}

test('mesh edges: every edge of an answer is read by itself, in whatever order its series come', () => {
  const pairs = HOSTILE_NAMES.flatMap((source) => HOSTILE_NAMES.map((destination) => ({ source, destination })))
  const elements = pairs.flatMap((pair, i) =>
    meshElements(pair, T, { 0.5: String(i) }, { requestsPerSecond: String(i + 1) }),
  )
  const table = createEdgeTable({ ...OPTIONS, maxEdges: 1_000 })
  taken(table, elements.toReversed())
  const read = new Map([...table.edges].map((each) => [JSON.stringify(each.pair), table.read(each, 0)]))
  assert.equal(read.size, pairs.length)
  pairs.forEach((pair, i) => {
    assert.deepEqual(read.get(JSON.stringify(pair)), {
      kind: 'sample',
      outcome: 'ok',
      sample: { timestampSeconds: T, latencies: [{ quantile: 0.5, latencyMs: i }], requestsPerSecond: i + 1 },
    })
  })
})

for (const { name, spoil, outcome } of [
  { name: 'NaN', spoil: { value: [T, 'NaN'] }, outcome: 'nonfinite' },
  { name: 'infinity', spoil: { value: [T, '+Inf'] }, outcome: 'nonfinite' },
  { name: 'a negative latency', spoil: { value: [T, '-1'] }, outcome: 'out_of_domain' },
  { name: 'a native histogram', spoil: { histogram: [T, { count: '1' }] }, outcome: 'histogram' },
  { name: 'a number that is no text', spoil: { value: [T, 8] }, outcome: 'bad_shape' },
  { name: 'a text that is no number', spoil: { value: [T, ''] }, outcome: 'bad_shape' },
  { name: 'a time in milliseconds', spoil: { value: [T * 1000, '8'] }, outcome: 'bad_shape' },
] as const) {
  test(`mesh edges: ${name} is the trouble of its edge alone`, () => {
    const table = createEdgeTable(OPTIONS)
    const [latency, ...rest] = healthy([edge('bad')])
    taken(table, [
      ...healthy([edge('first')]),
      { metric: latency!.metric, ...spoil },
      ...rest,
      ...healthy([edge('last')]),
    ])
    assert.deepEqual(outcomes(table), { first: 'ok', bad: outcome, last: 'ok' })
    taken(table, healthy([edge('first'), edge('bad'), edge('last')], 1))
    assert.deepEqual(outcomes(table), { first: 'ok', bad: 'ok', last: 'ok' }, 'and is over with the next answer')
  })
}

test('mesh edges: two series for one quantile are the trouble of their edge, two rates only hide the rate', () => {
  const table = createEdgeTable(OPTIONS)
  const [latency] = healthy([edge('two')])
  const [, rate] = healthy([edge('rates')])
  taken(table, [...healthy([edge('two'), edge('rates'), edge('one')]), latency!, rate!])
  assert.deepEqual(outcomes(table), { two: 'multi', rates: 'ok', one: 'ok' })
  taken(table, [...healthy([edge('rates')], 1), rate!])
  const reading = table.read(
    [...table.edges].find(({ pair }) => pair.source === 'rates')!,
    0,
  )
  assert.equal(reading.kind === 'sample' && reading.sample.requestsPerSecond, null)
})

test('mesh edges: an old sample, an answer given again, and an edge without an age are stale', () => {
  const table = createEdgeTable(OPTIONS)
  const old = meshElements(edge('old'), T, { 0.5: '8' }, { ageSeconds: 46 })
  const ageless = healthy([edge('ageless')]).slice(0, 2)
  taken(table, [...old, ...ageless, ...healthy([edge('new')])])
  assert.deepEqual(outcomes(table), { old: 'stale', ageless: 'stale', new: 'ok' })
  taken(table, healthy([edge('new')]))
  assert.deepEqual(outcomes(table), { old: 'empty', ageless: 'empty', new: 'stale' })
})

test('mesh edges: warnings of the answer are those of each sample', () => {
  const table = createEdgeTable(OPTIONS)
  taken(table, healthy([edge('a')]))
  assert.equal(table.read([...table.edges][0]!, 1).outcome, 'warnings')
})

for (const { name, pair, reason } of [
  { name: 'from unknown', pair: edge('unknown'), reason: 'unknown' },
  { name: 'to unknown', pair: edge('a', 'unknown'), reason: 'unknown' },
  { name: 'from nobody', pair: edge(''), reason: 'unknown' },
  { name: 'to nobody', pair: edge('a', ''), reason: 'unknown' },
  { name: 'with a name of 254 letters', pair: edge('a', 'x'.repeat(254)), reason: 'bad_name' },
  { name: 'with half a character in its name', pair: edge('\ud83d'), reason: 'bad_name' },
] as const) {
  test(`mesh edges: an edge ${name} is not watched, and counted once an answer`, () => {
    const table = createEdgeTable(OPTIONS)
    for (const k of [0, 1]) {
      taken(table, healthy([pair, edge('good')], k))
      table.end()
      assert.deepEqual(table.passedOver(), {
        elsewhere: 0,
        refused: { max_edges: 0, unknown: 0, bad_name: 0, [reason]: 1 },
      })
      assert.deepEqual(watched(table), [edge('good')])
    }
  })
}

test('mesh edges: a series without labels is nobody’s, and names of 253 letters are names', () => {
  const table = createEdgeTable(OPTIONS)
  taken(table, [{ metric: {}, value: [T, '8'] }, ...healthy([edge('x'.repeat(253))])])
  assert.equal(table.passedOver().refused.unknown, 1)
  assert.equal(table.edges.size, 1)
})

test('mesh edges: the labels that name an edge are those asked for', () => {
  const table = createEdgeTable({ ...OPTIONS, sourceLabel: 'from', destinationLabel: 'to' })
  taken(table, [{ metric: { from: 'x', to: 'y', source_app: 'a', destination_app: 'b' }, value: [T, '8'] }])
  assert.deepEqual(watched(table), [edge('x', 'y')])
})

test('mesh edges: beyond --max-edges edges are refused and counted; those that are watched stay, whatever comes first', () => {
  const table = createEdgeTable({ ...OPTIONS, maxEdges: 3, graceSeconds: 10 })
  const pairs = ['a', 'b', 'c', 'd', 'e'].map((name) => edge(name))
  taken(table, healthy(pairs))
  table.end()
  const first = watched(table)
  assert.deepEqual(first, pairs.slice(0, 3))
  for (const k of [1, 2, 3]) {
    taken(table, healthy(pairs.toReversed(), k))
    table.end()
    assert.deepEqual(watched(table), first)
    assert.equal(table.passedOver().refused.max_edges, 2)
  }
})

test('mesh edges: room that an edge leaves goes to one that was refused', () => {
  const table = createEdgeTable({ ...OPTIONS, maxEdges: 1, graceSeconds: 10 })
  taken(table, healthy([edge('a'), edge('b')]))
  taken(table, healthy([edge('b')], 1))
  const [a] = [...table.edges]
  assert.equal(table.removeVanished(a!, 100), false)
  assert.deepEqual(watched(table), [edge('a')])
  assert.equal(table.removeVanished(a!, 110), true)
  taken(table, healthy([edge('b'), edge('a')], 2))
  assert.deepEqual(watched(table), [edge('b')])
  assert.equal(table.passedOver().refused.max_edges, 1)
})

test('mesh edges: an edge is removed once it is gone for the grace time, counted anew whenever it is seen', () => {
  const table = createEdgeTable({ ...OPTIONS, graceSeconds: 30 })
  taken(table, healthy([edge('a'), edge('b')]))
  const [a, b] = [...table.edges]
  const poll = (k: number, pairs: readonly Pair[], nowSeconds: number): readonly boolean[] => {
    taken(table, healthy(pairs, k))
    return [a!, b!].map((each) => table.removeVanished(each, nowSeconds))
  }
  assert.deepEqual(poll(1, [edge('b')], 100), [false, false])
  assert.deepEqual(poll(2, [edge('b')], 129), [false, false])
  assert.deepEqual(poll(3, [edge('a'), edge('b')], 135), [false, false])
  assert.deepEqual(poll(4, [edge('b')], 140), [false, false])
  assert.deepEqual(poll(5, [edge('b')], 169), [false, false])
  assert.deepEqual(poll(6, [edge('b')], 170), [true, false])
  assert.deepEqual(watched(table), [edge('b')])
})

test('mesh edges: a shard watches its own edges only, and counts none of the others as refused', () => {
  const pairs = Array.from({ length: 40 }, (_, i) => edge(`service-${i}`))
  const found = [1, 2, 3].map((ordinal) => {
    const table = createEdgeTable({ ...OPTIONS, shard: { ordinal, count: 3 } })
    taken(table, healthy(pairs))
    const { elsewhere, refused } = table.passedOver()
    assert.equal(elsewhere + table.edges.size, pairs.length)
    assert.deepEqual(refused, { max_edges: 0, unknown: 0, bad_name: 0 })
    return watched(table)
  })
  assert.deepEqual(
    found
      .flat()
      .map(({ source }) => source)
      .sort(),
    pairs.map(({ source }) => source).sort(),
  )
})

test('mesh edges: edges that are not watched and not seen again are forgotten', () => {
  const table = createEdgeTable({ ...OPTIONS, maxEdges: 1 })
  const names = (prefix: string, count: number): readonly Pair[] =>
    Array.from({ length: count }, (_, i) => edge(`${prefix}-${i}`))
  taken(table, healthy(names('watched', 1)))
  taken(table, healthy([...names('watched', 1), ...names('old', 3_000)], 1))
  table.end()
  taken(table, healthy([...names('watched', 1), ...names('new', 1_500)], 2))
  table.end()
  assert.equal(table.passedOver().refused.max_edges, 1_500)
  taken(table, healthy([...names('watched', 1), ...names('old', 10), ...names('new', 10)], 3))
  assert.equal(table.passedOver().refused.max_edges, 20)
  assert.deepEqual(watched(table), names('watched', 1))
})

for (const element of [
  null,
  'x',
  [],
  {},
  { metric: 'x' },
  { metric: { source_app: 1, destination_app: 'b' }, value: [T, '8'] },
]) {
  test(`mesh edges: ${JSON.stringify(element)} is nothing that Prometheus answers`, () => {
    const table = createEdgeTable(OPTIONS)
    table.begin()
    assert.throws(() => table.take(element), ShapeError)
  })
}

test('mesh edges: the source of baselines is asked again when it has something new, and only then', () => {
  const asked: string[] = []
  let version = 1
  let watches: Watches | null = null
  const table = createEdgeTable({
    ...OPTIONS,
    baselines: {
      watchesOf: ({ source }) => {
        asked.push(source)
        return watches
      },
      version: () => version,
      ready: () => true,
    },
  })
  taken(table, healthy([edge('a')]))
  const [a] = [...table.edges]
  assert.equal(table.watchesOf(a!), null)
  assert.equal(table.watchesOf(a!), null)
  watches = []
  version++
  assert.equal(table.watchesOf(a!), watches)
  assert.equal(table.watchesOf(a!), watches)
  assert.deepEqual(asked, ['a', 'a'])
})
