import assert from 'node:assert/strict'
import test from 'node:test'

import type { Fitted } from '../src/core/baseline/model.js'
import { missing, type Reading } from '../src/core/reading.js'
import { type Baselines, type Evaluation, score, type ScoringRules } from '../src/core/score.js'

const T = 1_700_000_000
const RULES: ScoringRules = { direction: 'above', minRequestsPerSecond: 0.1 }

/** Expects 10 ms, within [5, 20]. */
const TEN: Fitted = { expect: () => ({ yhatMs: 10, yMinMs: 5, yMaxMs: 20 }) }
/** Expects 100 ms, within [50, 300]. */
const HUNDRED: Fitted = { expect: () => ({ yhatMs: 100, yMinMs: 50, yMaxMs: 300 }) }
const P50: Baselines = new Map([[0.5, TEN]])
const BOTH: Baselines = new Map([
  [0.5, TEN],
  [0.9, HUNDRED],
])

function reading(latenciesMs: Readonly<Record<string, number>>, requestsPerSecond: number | null = 5): Reading {
  const latencies = Object.entries(latenciesMs).map(([quantile, latencyMs]) => ({
    quantile: Number(quantile),
    latencyMs,
  }))
  return { kind: 'sample', outcome: 'ok', sample: { timestampSeconds: T, latencies, requestsPerSecond } }
}

test('score: a sample inside the band is ok, with its errors as scikit-learn defines them', () => {
  const expected: Evaluation = {
    verdict: 'ok',
    timestampSeconds: T,
    requestsPerSecond: 5,
    anomalyCount: 0,
    quantiles: [
      {
        quantile: 0.5,
        yMs: 8,
        yhatMs: 10,
        yMinMs: 5,
        yMaxMs: 20,
        maeMs: 2, // |8 - 10|
        mape: 0.25, // 2 / 8
        score: 0.4, // 2 of the 5 ms from yhat down to the edge
        anomalous: false,
      },
    ],
  }
  assert.deepEqual(score(P50, reading({ 0.5: 8 }), RULES), expected)
})

test('score: a sample above the band is anomalous', () => {
  const expected: Evaluation = {
    verdict: 'anomalous',
    timestampSeconds: T,
    requestsPerSecond: 5,
    anomalyCount: 1,
    quantiles: [
      { quantile: 0.5, yMs: 25, yhatMs: 10, yMinMs: 5, yMaxMs: 20, maeMs: 15, mape: 0.6, score: 1.5, anomalous: true },
    ],
  }
  assert.deepEqual(score(P50, reading({ 0.5: 25 }), RULES), expected)
})

for (const { name, yMs, direction, verdict, distance } of [
  { name: 'the upper edge itself is inside', yMs: 20, direction: 'above', verdict: 'ok', distance: 1 },
  { name: 'a hair above is outside', yMs: 20.000001, direction: 'above', verdict: 'anomalous', distance: 1.0000001 },
  { name: 'faster than the band is no anomaly for "above"', yMs: 1, direction: 'above', verdict: 'ok', distance: 1.8 },
  { name: 'faster than the band is one for "both"', yMs: 1, direction: 'both', verdict: 'anomalous', distance: 1.8 },
  { name: 'the lower edge itself is inside for "both"', yMs: 5, direction: 'both', verdict: 'ok', distance: 1 },
  { name: 'slower is one for "both", too', yMs: 40, direction: 'both', verdict: 'anomalous', distance: 3 },
] as const) {
  test(`score: ${name}`, () => {
    const evaluation = score(P50, reading({ 0.5: yMs }), { ...RULES, direction })
    const [scored] = evaluation.quantiles
    assert.equal(evaluation.verdict, verdict)
    assert.ok(Math.abs((scored?.score ?? NaN) - distance) < 1e-9, String(scored?.score))
  })
}

test('score: a latency of 0 has no relative error', () => {
  const [scored] = score(P50, reading({ 0.5: 0 }), RULES).quantiles
  assert.deepEqual([scored?.maeMs, scored?.mape], [10, null])
})

test('score: a band without width gives a large score and not an infinite one', () => {
  const point: Baselines = new Map([[0.5, { expect: () => ({ yhatMs: 10, yMinMs: 10, yMaxMs: 10 }) }]])
  const [on, off] = [10, 11].map((yMs) => score(point, reading({ 0.5: yMs }), RULES).quantiles[0])
  assert.deepEqual([on?.score, on?.anomalous, off?.anomalous], [0, false, true])
  assert.ok(Number.isFinite(off?.score))
})

for (const { p50, p90, verdict, anomalyCount } of [
  { p50: 10, p90: 100, verdict: 'ok', anomalyCount: 0 },
  { p50: 30, p90: 100, verdict: 'anomalous', anomalyCount: 1 },
  { p50: 10, p90: 400, verdict: 'anomalous', anomalyCount: 1 },
  { p50: 30, p90: 400, verdict: 'anomalous', anomalyCount: 2 },
]) {
  test(`score: a p50 of ${p50} and a p90 of ${p90} ms have ${anomalyCount} anomalies between them`, () => {
    const evaluation = score(BOTH, reading({ 0.5: p50, 0.9: p90 }), RULES)
    assert.deepEqual([evaluation.verdict, evaluation.anomalyCount], [verdict, anomalyCount])
    assert.deepEqual(
      evaluation.quantiles.map(({ quantile, yMs, yhatMs }) => [quantile, yMs, yhatMs]),
      [
        [0.5, p50, 10],
        [0.9, p90, 100],
      ],
    )
  })
}

test('score: a quantile that was not trained is not scored', () => {
  const evaluation = score(P50, reading({ 0.5: 10, 0.9: 1e6 }), RULES)
  assert.deepEqual([evaluation.verdict, evaluation.quantiles.length], ['ok', 1])
})

for (const { requestsPerSecond, verdict } of [
  { requestsPerSecond: 0.099, verdict: 'low_traffic' },
  { requestsPerSecond: 0, verdict: 'low_traffic' },
  { requestsPerSecond: 0.1, verdict: 'anomalous' },
  { requestsPerSecond: null, verdict: 'anomalous' },
] as const) {
  test(`score: a slow sample at ${requestsPerSecond ?? 'unknown'} requests per second is ${verdict}`, () => {
    const evaluation = score(P50, reading({ 0.5: 500 }, requestsPerSecond), RULES)
    assert.equal(evaluation.verdict, verdict)
    // A latency that was not judged is shown, but counted as nothing.
    assert.equal(evaluation.anomalyCount, verdict === 'low_traffic' ? null : 1)
    assert.equal(evaluation.quantiles[0]?.yMs, 500)
    assert.equal(evaluation.timestampSeconds, T)
  })
}

for (const { name, reading: given, verdict, requestsPerSecond } of [
  { name: 'a missing sample', reading: missing('conn', 'refused'), verdict: 'no_data', requestsPerSecond: null },
  {
    name: 'a missing sample with traffic',
    reading: missing('nonfinite', '', 3),
    verdict: 'no_data',
    requestsPerSecond: 3,
  },
  {
    name: 'no latency for want of requests',
    reading: missing('nonfinite', '', 0),
    verdict: 'low_traffic',
    requestsPerSecond: 0,
  },
] as const) {
  test(`score: ${name} is ${verdict}, neither healthy nor anomalous`, () => {
    assert.deepEqual(score(P50, given, RULES), {
      verdict,
      timestampSeconds: null,
      requestsPerSecond,
      quantiles: [],
      anomalyCount: null,
    })
  })
}
