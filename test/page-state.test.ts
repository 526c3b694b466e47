import assert from 'node:assert/strict'
import test from 'node:test'

import type { IncidentRules, IncidentState, PairVerdict } from '../src/core/incident.js'
import { coldState, next } from '../src/core/incident.js'
import type { Evaluation, ScoredQuantile } from '../src/core/score.js'
import { createIncidentPage } from '../src/page/incident-page.js'
import { createMonitorPage } from '../src/page/monitor-page.js'
import { MAX_POINTS, type Point, SHOWN_SECONDS, withPoint } from '../src/page/ring.js'

const T = 1_700_000_000

function ringOf(times: readonly number[]): readonly number[] {
  return times
    .reduce<readonly Point[]>((points, timeSeconds) => withPoint(points, { timeSeconds }), [])
    .map(({ timeSeconds }) => timeSeconds)
}

test('page: half an hour is kept, and nothing older', () => {
  const times = Array.from({ length: 800 }, (_, i) => T + 5 * i)
  const kept = ringOf(times)
  assert.equal(kept.length, SHOWN_SECONDS / 5)
  assert.deepEqual([kept[0], kept.at(-1)], [T + 799 * 5 - SHOWN_SECONDS + 5, T + 799 * 5])
})

test('page: fast polls are bounded in number', () => {
  const kept = ringOf(Array.from({ length: 3_000 }, (_, i) => T + i / 10))
  assert.deepEqual([kept.length, kept.at(-1)], [MAX_POINTS, T + 299.9])
})

for (const { name, times, kept } of [
  { name: 'a history read once more takes the place of what was there', times: [1, 2, 3, 4, 2], kept: [1, 2] },
  { name: 'a time that comes twice stands once', times: [1, 2, 2], kept: [1, 2] },
  { name: 'after a long silence the old is gone', times: [1, 2, 5_000], kept: [5_000] },
]) {
  test(`page: ${name}`, () => {
    assert.deepEqual(ringOf(times), kept)
  })
}

const QUANTILE: ScoredQuantile = {
  quantile: 0.5,
  yMs: 8.123456789,
  yhatMs: 9,
  yMinMs: 6,
  yMaxMs: 14,
  maeMs: 0.9,
  mape: 0.1,
  score: 0.2,
  anomalous: false,
  saturated: false,
  driftRatio: null,
  beyondTraining: false,
}

function evaluation(timestampSeconds: number | null, more: Partial<ScoredQuantile> = {}): Evaluation {
  const quantiles = timestampSeconds === null ? [] : [{ ...QUANTILE, ...more }]
  const anomalous = more.anomalous === true
  return {
    verdict: timestampSeconds === null ? 'no_data' : anomalous ? 'anomalous' : 'ok',
    timestampSeconds,
    requestsPerSecond: timestampSeconds === null ? null : 5,
    quantiles,
    anomalyCount: timestampSeconds === null ? null : Number(anomalous),
  }
}

const FACTS = {
  pair: { source: 'a', destination: 'b' },
  query: 'q',
  rules: { direction: 'above', minRequestsPerSecond: 0.1, minDeviationMs: 0, minDeviationRatio: 0, sloMs: null },
  training: null,
} as const

test('page: a monitor shows its polls in columns, gaps as null, placed by the clock of Prometheus', () => {
  const page = createMonitorPage(FACTS, [0.5])
  // Our own clock is 100 s behind.
  page.note(evaluation(T), T - 100)
  page.note(evaluation(null), T - 95)
  page.note(evaluation(T + 10, { yMs: 200, anomalous: true }), T - 90)
  assert.deepEqual(page.view().history, {
    timesSeconds: [T, T + 5, T + 10],
    verdicts: ['ok', 'no_data', 'anomalous'],
    quantiles: [
      {
        quantile: 0.5,
        yMs: [8.1235, null, 200],
        yhatMs: [9, null, 9],
        yMinMs: [6, null, 6],
        yMaxMs: [14, null, 14],
        anomalous: [false, null, true],
      },
    ],
  })
})

test('page: a monitor without an answer keeps the last sample with the time it came, apart from the verdict of now', () => {
  const page = createMonitorPage(FACTS, [0.5])
  assert.deepEqual([page.view().evaluation, page.view().sampled], [null, null])
  page.note(evaluation(T), T + 1)
  page.note(evaluation(null), T + 6)
  const { evaluation: now, sampled } = page.view()
  assert.deepEqual([now?.verdict, sampled?.evaluation.verdict, sampled?.receivedSeconds], ['no_data', 'ok', T + 1])
})

const RULES: IncidentRules = {
  pairs: [
    { source: 'a', destination: 'b', accumulatorThreshold: 1 },
    { source: 'c', destination: 'd', accumulatorThreshold: 1 },
  ],
  incidentThreshold: 2,
  clearThreshold: 1,
  coolBy: 2,
  accumulatorMax: 20,
  noDataTimeoutSeconds: 600,
}
const BAD: PairVerdict = { kind: 'anomalous', anomalyCount: 1 }
const OK: PairVerdict = { kind: 'ok' }
const SILENT: PairVerdict = { kind: 'unknown', reason: 'no_data' }

test('page: the incident daemon shows temperature, severity and the accumulators that were not cold', () => {
  const page = createIncidentPage(RULES)
  let state: IncidentState = coldState(RULES)
  for (const [i, verdicts] of [
    [SILENT, SILENT],
    [BAD, OK],
    [BAD, OK],
    [BAD, SILENT],
  ].entries()) {
    const poll = { timestampSeconds: T + i, verdicts }
    state = next(state, poll, RULES)
    page.note(state, poll, { nowSeconds: T + i + 50, expected: null })
  }
  const { now, history, contract } = page.view()
  assert.deepEqual(history, {
    // What came before anyone was heard of was not measured.
    timesSeconds: [T + 1, T + 2, T + 3],
    temperatures: [1, 2, 3],
    severities: [0, 0, 2],
    accumulators: [{ pair: 0, levels: [1, 2, 3] }],
  })
  assert.deepEqual(now, {
    timestampSeconds: T + 3,
    receivedSeconds: T + 53,
    temperature: 3,
    open: { startedSeconds: T + 3, severity: 2 },
    expected: null,
    pairs: [
      { accumulator: 3, verdict: BAD, heardSeconds: T + 3 },
      { accumulator: 0, verdict: SILENT, heardSeconds: T + 2 },
    ],
  })
  assert.equal(contract.toSev2, 3)
})
