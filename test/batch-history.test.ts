import assert from 'node:assert/strict'
import test from 'node:test'

import { staticSigma } from '../src/core/baseline/static.js'
import {
  type BatchHistory,
  createBatchHistory,
  type EdgeTraining,
  type Untrainable,
} from '../src/core/batch-history.js'
import type { Pair } from '../src/core/pair.js'
import { type Matrix, parseAnswer } from '../src/core/series.js'
import { matrixAnswer } from './helpers/fake-runtime.js'

const T = 1_700_000_040
const STEP = 60
const RANGE = {
  sourceLabel: 'source_app',
  destinationLabel: 'destination_app',
  startSeconds: T,
  endSeconds: T + 199 * STEP,
  stepSeconds: STEP,
  windowSeconds: 120,
}
const edge = (source: string): Pair => ({ source, destination: 'b' })

interface Made {
  readonly source: string
  readonly more?: Readonly<Record<string, string>>
  /** The text of the value at step `i`; undefined for none. */
  readonly at: (i: number) => string | undefined
}

/** The answer for the steps from `from` on. */
function answer(series: readonly Made[], from = 0, steps = 200): Matrix {
  const result = series.map(({ source, more = { quantile: '0.5' }, at }) => ({
    metric: { source_app: source, destination_app: 'b', ...more },
    values: Array.from({ length: steps }, (_, k) => from + k).flatMap((i): [number, string][] => {
      const value = at(i)
      return value === undefined ? [] : [[T + i * STEP, value]]
    }),
  }))
  return parseAnswer(JSON.parse(matrixAnswer(result)), 'matrix')
}

function heat(source: string, from: number, to: number): Matrix {
  const values = Array.from({ length: to - from + 1 }, (_, k): [number, string] => [T + (from + k) * STEP, '1'])
  return parseAnswer(JSON.parse(matrixAnswer([{ metric: { source, destination: 'b' }, values }])), 'matrix')
}

function found(history: BatchHistory, source: string, quantiles = [0.5]): EdgeTraining | Untrainable {
  return history.trainable(edge(source), { quantiles, model: staticSigma })
}

function trained(history: BatchHistory, source: string, quantiles?: number[]): EdgeTraining {
  const training = found(history, source, quantiles)
  assert.ok(training.kind === 'trainable', JSON.stringify(training))
  return training
}

function trouble(history: BatchHistory, source: string, quantiles?: number[]): Omit<Untrainable, 'kind'> {
  const { kind, ...rest } = found(history, source, quantiles) as Untrainable
  assert.equal(kind, 'untrainable')
  return rest
}

test('batch history: answers that follow each other are one history of each edge and quantile', () => {
  const history = createBatchHistory(RANGE)
  const series: readonly Made[] = [
    { source: 'a', at: (i) => String(10 + i) },
    { source: 'a', more: { quantile: '0.9' }, at: (i) => (i < 100 ? 'NaN' : String(20 + i)) },
    { source: 'a', more: { series: 'requests_per_second' }, at: (i) => String(i / 10) },
    { source: 'c', at: () => '5' },
  ]
  for (const from of [0, 80, 160]) history.take(answer(series, from, Math.min(80, 200 - from)))
  const { trainings, ...rest } = trained(history, 'a', [0.5, 0.9])
  assert.deepEqual(rest, {
    kind: 'trainable',
    samples: 100,
    fromSeconds: T + 100 * STEP,
    toSeconds: T + 199 * STEP,
    leftOut: 0,
    lastHotSeconds: null,
  })
  assert.deepEqual(
    trainings.map(([quantile, { timesSeconds, latenciesMs, requestsPerSecond }]) => [
      quantile,
      [timesSeconds.length, timesSeconds[0], latenciesMs[0], latenciesMs.at(-1), requestsPerSecond?.at(-1)],
    ]),
    [
      [0.5, [200, T, 10, 209, 19.9]],
      [0.9, [100, T + 100 * STEP, 120, 219, 19.9]],
    ],
  )
  assert.equal(trained(history, 'c').samples, 200)
})

test('batch history: the times at which an edge was hot, the five minutes before and the rate window after are left out, of it alone', () => {
  const history = createBatchHistory(RANGE)
  for (const from of [0, 100]) {
    history.take(
      answer(
        ['a', 'c'].map((source) => ({ source, at: (i) => String(i) })),
        from,
        100,
      ),
    )
  }
  history.takeHeat(heat('a', 50, 70))
  history.takeHeat(heat('a', 71, 80))
  const hot = trained(history, 'a')
  // From 50 - 5 to 80 + 2.
  const left = Array.from({ length: 200 }, (_, i) => i).filter((i) => i < 45 || i > 82)
  assert.deepEqual(hot.trainings[0]?.[1].latenciesMs, left)
  assert.deepEqual([hot.samples, hot.leftOut, hot.lastHotSeconds], [162, 38, T + 80 * STEP])
  assert.equal(trained(history, 'c').samples, 200)
})

test('batch history: it says why an edge cannot be trained, and how many samples that takes', () => {
  const history = createBatchHistory(RANGE)
  history.take(
    answer([
      { source: 'idle', at: () => 'NaN' },
      { source: 'rate only', more: { series: 'requests_per_second' }, at: () => '1' },
      { source: 'short', at: (i) => (i < 190 ? undefined : '10') },
      { source: 'hot', at: () => '10' },
      { source: 'half', at: () => '10' },
      { source: 'twice', more: { quantile: '0.5', pod: '1' }, at: () => '10' },
      { source: 'twice', more: { quantile: '0.5', pod: '2' }, at: () => '10' },
      { source: 'absurd', at: () => '+Inf' },
    ]),
  )
  history.takeHeat(heat('hot', 0, 190))
  const wanted = 'static-sigma takes at least 30 samples'
  for (const [source, expected] of [
    ['absent', { trouble: 'no_history', detail: 'Prometheus has no such series', missingSamples: 30 }],
    ['idle', { trouble: 'no_history', detail: 'no request in the range', missingSamples: 30 }],
    ['rate only', { trouble: 'no_history', detail: 'no request in the range', missingSamples: 30 }],
    ['absurd', { trouble: 'no_history', detail: 'no request in the range', missingSamples: 30 }],
    ['short', { trouble: 'too_short', detail: `${wanted}, there are 10`, missingSamples: 20 }],
    ['hot', { trouble: 'incident', detail: `${wanted}, 7 of 200 are left without its incidents`, missingSamples: 23 }],
  ] as const) {
    assert.deepEqual(trouble(history, source), expected, source)
  }
  assert.deepEqual(trouble(history, 'half', [0.5, 0.9]).trouble, 'no_history')
  const twice = trouble(history, 'twice')
  assert.equal(twice.trouble, 'unusable')
  assert.match(twice.detail, /^data.result: expected one latency series per quantile, got 2/)
})

test('batch history: a query of one quantile need not name it', () => {
  const history = createBatchHistory(RANGE)
  history.take(answer([{ source: 'a', more: {}, at: () => '10' }]))
  assert.equal(trained(history, 'a', [0.9]).trainings[0]?.[0], 0.9)
})
