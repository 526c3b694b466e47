import assert from 'node:assert/strict'
import test from 'node:test'

import { loadAndSeason } from '../src/core/baseline/load-and-season.js'
import type { Training } from '../src/core/baseline/model.js'
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

const watches = (): Watches => []

/** Calm values around 10 ms; a name that the fit trips over has none. */
function trainable(source: string): Trainable {
  const timesSeconds = Array.from({ length: source === 'broken' ? 0 : 40 }, (_, i) => T + 15 * i)
  const latenciesMs = timesSeconds.map((_, i) => 8 + (i % 5))
  const training: Training = { timesSeconds, latenciesMs, requestsPerSecond: null }
  return { pair: edge(source), samples: latenciesMs.length, trainings: [[0.5, training]] }
}

test('mesh training: baselines are there one by one, while the event loop turns, and judge as if they were fitted here', async () => {
  const store = createBaselineStore()
  const runtime = fakeRuntime([])
  const edges = ['a', 'c', 'd'].map(trainable)
  let done = false
  void fitEdges(runtime, edges, { store, model: 'load-and-season' }).then(() => (done = true))
  const look = (): boolean => done
  const seen: number[] = []
  while (!look()) {
    seen.push(store.size())
    await new Promise((resolve) => setImmediate(resolve))
  }
  assert.equal(seen[0], 0)
  assert.ok(seen.length > 3, `${seen.length} turns`)
  assert.deepEqual([store.size(), store.ready(), edges.length], [3, true, 0])
  assert.deepEqual(
    ['a', 'c', 'd', 'e'].map((name) => store.watchesOf(edge(name)) === null),
    [false, false, false, true],
  )
  assert.deepEqual(store.summary(), { edges: 3, samples: 120, oldestSeconds: runtime.clock.nowMs() / 1000 })
  const fitted = loadAndSeason.fit(trainable('a').trainings[0]![1])
  assert.ok(!(fitted instanceof Promise))
  const observation = { timestampSeconds: T + 900, latencyMs: 12, requestsPerSecond: null }
  assert.deepEqual(store.watchesOf(edge('a'))?.[0]?.watch.judge(observation), fitted.watch().judge(observation))
})

test('mesh training: the version changes with every baseline, and the store gives the same watches until then', () => {
  const store = createBaselineStore()
  const versions = [store.version()]
  for (const name of ['a', 'c', 'a']) {
    store.put(edge(name), watches(), { samples: 40, fittedSeconds: T })
    versions.push(store.version())
  }
  assert.equal(new Set(versions).size, 4)
  assert.equal(store.watchesOf(edge('a')), store.watchesOf(edge('a')))
  assert.equal(store.size(), 2)
  assert.equal(store.ready(), false)
})

test('mesh training: a stop ends it', async () => {
  const runtime = fakeRuntime([])
  const store = createBaselineStore()
  const fitting = fitEdges(runtime, ['a', 'c', 'd'].map(trainable), { store, model: 'load-and-season' })
  while (store.size() === 0) await new Promise((resolve) => setImmediate(resolve))
  runtime.stop()
  await fitting
  assert.ok(store.size() < 3)
  assert.deepEqual([store.ready(), runtime.logged], [false, []])
})

test('mesh training: a bug in a fit is heard by whoever asks for a baseline', async () => {
  const store = createBaselineStore()
  const before = store.version()
  await fitEdges(fakeRuntime([]), [trainable('broken')], { store, model: 'static-sigma' })
  assert.notEqual(store.version(), before)
  assert.throws(() => store.watchesOf(edge('x')), {
    name: 'ThreadLost',
    message: /^the thread that fits baselines ended: /,
  })
})

test('mesh training: the oldest baseline and the samples of all are known, and one that is removed is not', () => {
  const store = createBaselineStore()
  assert.deepEqual(store.summary(), { edges: 0, samples: 0, oldestSeconds: null })
  store.put(edge('a'), watches(), { samples: 40, fittedSeconds: T + 5 })
  store.put(edge('c'), watches(), { samples: 50, fittedSeconds: T })
  assert.deepEqual(store.summary(), { edges: 2, samples: 90, oldestSeconds: T })
  const version = store.version()
  store.remove(edge('c'))
  assert.notEqual(store.version(), version)
  assert.deepEqual(store.summary(), { edges: 1, samples: 40, oldestSeconds: T + 5 })
  assert.equal(store.watchesOf(edge('c')), null)
})
