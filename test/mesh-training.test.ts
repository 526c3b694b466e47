import assert from 'node:assert/strict'
import test from 'node:test'

import { createBaselineStore } from '../src/core/mesh-baselines.js'
import { readMeshRecording } from '../src/core/mesh-recording.js'
import type { Pair } from '../src/core/pair.js'
import type { Watches } from '../src/core/score.js'
import { type Matrix, parseAnswer, ShapeError } from '../src/core/series.js'
import { fitEdges, type Trainable } from '../src/io/mesh-training.js'
import { fakeRuntime, matrixAnswer } from './helpers/fake-runtime.js'
import { HOSTILE_NAMES } from './helpers/mesh-answers.js'

const LABELS = { sourceLabel: 'source_app', destinationLabel: 'destination_app' }
const T = 1_700_000_000

const edge = (source: string, destination = 'b'): Pair => ({ source, destination })

function matrixOf(
  series: readonly {
    readonly pair: Pair
    readonly more?: Readonly<Record<string, string>>
    readonly values: readonly string[]
  }[],
): Matrix {
  const result = series.map(({ pair, more, values }) => ({
    metric: { source_app: pair.source, destination_app: pair.destination, ...more },
    values: values.map((value, i): readonly [number, string] => [T + 15 * i, value]),
  }))
  return parseAnswer(JSON.parse(matrixAnswer(result)), 'matrix')
}

test('mesh recording: the series of each edge are a recording of their own', () => {
  const { edges, unusable } = readMeshRecording(
    matrixOf([
      { pair: edge('a'), more: { quantile: '0.95' }, values: ['20', '21'] },
      { pair: edge('c'), values: ['5', 'NaN'] },
      { pair: edge('a'), more: { series: 'requests_per_second' }, values: ['3', '4'] },
      { pair: edge('a'), more: { quantile: '0.5' }, values: ['10', '11'] },
      { pair: edge('a'), more: { series: 'sample_timestamp_seconds' }, values: ['1', '2'] },
    ]),
    LABELS,
  )
  const timesSeconds = [T, T + 15]
  assert.deepEqual(unusable, [])
  assert.deepEqual(edges, [
    {
      pair: edge('a'),
      recording: {
        reordered: 0,
        rejected: 0,
        series: [
          { quantile: 0.5, timesSeconds, latenciesMs: [10, 11], requestsPerSecond: [3, 4] },
          { quantile: 0.95, timesSeconds, latenciesMs: [20, 21], requestsPerSecond: [3, 4] },
        ],
      },
    },
    {
      pair: edge('c'),
      recording: {
        reordered: 0,
        rejected: 0,
        series: [{ quantile: null, timesSeconds, latenciesMs: [5, NaN], requestsPerSecond: null }],
      },
    },
  ])
})

test('mesh recording: hostile names are told apart', () => {
  const pairs = HOSTILE_NAMES.flatMap((source) => HOSTILE_NAMES.map((destination) => ({ source, destination })))
  const { edges } = readMeshRecording(matrixOf(pairs.map((pair) => ({ pair, values: ['1'] }))), LABELS)
  assert.deepEqual(
    edges.map(({ pair }) => pair),
    pairs,
  )
})

test('mesh recording: an edge whose series contradict each other is unusable, and the others are not', () => {
  const { edges, unusable } = readMeshRecording(
    matrixOf([
      { pair: edge('a'), values: ['1'] },
      { pair: edge('bad'), more: { quantile: '2' }, values: ['1'] },
      { pair: edge('twice'), more: { x: '1' }, values: ['1'] },
      { pair: edge('twice'), more: { x: '2' }, values: ['1'] },
      { pair: edge('rate only'), more: { series: 'requests_per_second' }, values: ['1'] },
    ]),
    LABELS,
  )
  assert.deepEqual(
    edges.map(({ pair }) => pair.source),
    ['a'],
  )
  assert.deepEqual(
    unusable.map(({ pair, reason }) => [pair.source, reason.split(',')[0]]),
    [
      ['bad', 'data.result: expected a quantile label between 0 and 1'],
      ['twice', 'data.result: expected one latency series per quantile'],
      ['rate only', 'data.result: expected at least one latency series'],
    ],
  )
})

test('mesh recording: a series that does not say of which edge it is makes the file one of another kind', () => {
  const matrix = parseAnswer(
    JSON.parse(matrixAnswer([{ metric: { quantile: '0.5', source_app: 'a' }, values: [[T, '1']] }])),
    'matrix',
  )
  assert.throws(
    () => readMeshRecording(matrix, LABELS),
    (error: unknown) =>
      error instanceof ShapeError &&
      error.message ===
        'data.result[0].metric: expected the labels source_app and destination_app, got {"quantile":"0.5","source_app":"a"}',
  )
})

const watches = (): Watches => new Map()

test('mesh training: baselines are there one by one, with turns of the event loop between them', async () => {
  const store = createBaselineStore()
  const seen: number[] = []
  const edges = ['a', 'c', 'd'].map((name): Trainable => ({ pair: edge(name), fit: watches }))
  const fitting = fitEdges(fakeRuntime([]), edges, store)
  let done = false
  void fitting.then(() => (done = true))
  const look = (): boolean => done
  while (!look()) {
    seen.push(store.size())
    await new Promise((resolve) => setImmediate(resolve))
  }
  assert.deepEqual([...new Set(seen)], [0, 1, 2, 3])
  assert.deepEqual([store.size(), store.ready(), edges.length], [3, true, 0])
  assert.deepEqual(
    ['a', 'c', 'd', 'e'].map((name) => store.watchesOf(edge(name)) === null),
    [false, false, false, true],
  )
})

test('mesh training: the version changes with every baseline, and the store gives the same watches until then', () => {
  const store = createBaselineStore()
  const versions = [store.version()]
  for (const name of ['a', 'c', 'a']) {
    store.put(edge(name), watches())
    versions.push(store.version())
  }
  assert.equal(new Set(versions).size, 4)
  assert.equal(store.watchesOf(edge('a')), store.watchesOf(edge('a')))
  assert.equal(store.size(), 2)
  assert.equal(store.ready(), false)
})

test('mesh training: one that takes its time is waited for, and a stop ends it', async () => {
  const runtime = fakeRuntime([])
  const store = createBaselineStore()
  let ready: () => void = () => undefined
  const slow = new Promise<Watches>((resolve) => {
    ready = () => resolve(watches())
  })
  // They are taken from the end.
  const edges: Trainable[] = [
    { pair: edge('never'), fit: watches },
    { pair: edge('slow'), fit: () => slow },
  ]
  const fitting = fitEdges(runtime, edges, store)
  await new Promise((resolve) => setImmediate(resolve))
  assert.equal(store.size(), 0)
  runtime.stop()
  ready()
  await fitting
  assert.deepEqual([store.size(), store.ready(), runtime.logged], [1, false, []])
})

test('mesh training: a bug in a fit is heard by whoever asks for a baseline', async () => {
  const store = createBaselineStore()
  const before = store.version()
  const broken = (): never => {
    throw new RangeError('no fit')
  }
  await fitEdges(fakeRuntime([]), [{ pair: edge('a'), fit: broken }], store)
  assert.notEqual(store.version(), before)
  assert.throws(() => store.watchesOf(edge('x')), { name: 'RangeError', message: 'no fit' })
})
