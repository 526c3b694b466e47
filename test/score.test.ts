import assert from 'node:assert/strict'
import test from 'node:test'

import { deviationIn, type Expectation, type Observation, type Watch } from '../src/core/baseline/model.js'
import { missing, type Reading } from '../src/core/reading.js'
import { type Evaluation, score, type ScoringRules, type Watches } from '../src/core/score.js'

const T = 1_700_000_000
const RULES: ScoringRules = {
  direction: 'above',
  minRequestsPerSecond: 0.1,
  minDeviationMs: 0,
  minDeviationRatio: 0,
  sloMs: null,
}

/** A watch that always expects the same, and notes what it was asked. */
function fixed(expectation: Expectation, asked: Observation[] = []): Watch {
  return {
    judge: (observation) => {
      asked.push(observation)
      const deviation = deviationIn(expectation, observation.latencyMs)
      return { ...expectation, deviation, driftRatio: 1.1, beyondTraining: false }
    },
  }
}

const TEN = fixed({ yhatMs: 10, yMinMs: 5, yMaxMs: 20 })
const HUNDRED = fixed({ yhatMs: 100, yMinMs: 50, yMaxMs: 300 })
const P50: Watches = [{ quantile: 0.5, watch: TEN }]
const BOTH: Watches = [
  { quantile: 0.5, watch: TEN },
  { quantile: 0.9, watch: HUNDRED },
]
/** What the model says beside the band. */
const SAID = { saturated: false, driftRatio: 1.1, beyondTraining: false }

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
        score: 0, // faster than expected
        anomalous: false,
        ...SAID,
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
      {
        ...{ quantile: 0.5, yMs: 25, yhatMs: 10, yMinMs: 5, yMaxMs: 20 },
        ...{ maeMs: 15, mape: 0.6, score: 1.5, anomalous: true },
        ...SAID,
      },
    ],
  }
  assert.deepEqual(score(P50, reading({ 0.5: 25 }), RULES), expected)
})

for (const { name, yMs, direction, verdict, distance } of [
  { name: 'the upper edge itself is inside', yMs: 20, direction: 'above', verdict: 'ok', distance: 1 },
  { name: 'a hair above is outside', yMs: 20.000001, direction: 'above', verdict: 'anomalous', distance: 1.0000001 },
  { name: 'faster than the band is no anomaly for "above"', yMs: 1, direction: 'above', verdict: 'ok', distance: 0 },
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
  const point: Watches = [{ quantile: 0.5, watch: fixed({ yhatMs: 10, yMinMs: 10, yMaxMs: 10 }) }]
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

const NOTHING: Evaluation = {
  verdict: 'no_data',
  timestampSeconds: null,
  requestsPerSecond: null,
  quantiles: [],
  anomalyCount: null,
}

for (const { name, reading: given, verdict, requestsPerSecond } of [
  { name: 'a missing sample', reading: missing('conn', 'refused'), verdict: 'no_data', requestsPerSecond: null },
  {
    name: 'a missing sample with traffic',
    reading: missing('nonfinite', '', { requestsPerSecond: 3 }),
    verdict: 'no_data',
    requestsPerSecond: 3,
  },
  {
    name: 'no latency for want of requests',
    reading: missing('nonfinite', '', { requestsPerSecond: 0 }),
    verdict: 'low_traffic',
    requestsPerSecond: 0,
  },
] as const) {
  test(`score: ${name} is ${verdict}, neither healthy nor anomalous`, () => {
    assert.deepEqual(score(P50, given, RULES), { ...NOTHING, verdict, requestsPerSecond })
  })
}

test('score: a missing sample at a known time has its band, and nothing that was measured', () => {
  const [scored, ...others] = score(P50, missing('nonfinite', '', { timestampSeconds: T }), RULES).quantiles
  assert.deepEqual(others, [])
  assert.deepEqual(scored, {
    ...{ quantile: 0.5, yMs: null, yhatMs: 10, yMinMs: 5, yMaxMs: 20 },
    ...{ maeMs: null, mape: null, score: null, anomalous: null },
    ...SAID,
  })
})

test('score: without a fitted baseline every reading is warming, a missing one too', () => {
  for (const given of [reading({ 0.5: 500 }, 7), missing('nonfinite', '', { requestsPerSecond: 7 })]) {
    assert.deepEqual(score(null, given, RULES), { ...NOTHING, verdict: 'warming', requestsPerSecond: 7 })
  }
})

test('score: of two quantiles one may be missing; the other is judged', () => {
  const evaluation = score(BOTH, reading({ 0.9: 400 }), RULES)
  assert.deepEqual(
    evaluation.quantiles.map(({ quantile, yMs, anomalous }) => [quantile, yMs, anomalous]),
    [
      [0.5, null, null],
      [0.9, 400, true],
    ],
  )
  assert.deepEqual([evaluation.verdict, evaluation.anomalyCount], ['anomalous', 1])
})

test('score: a latency that means nothing is not shown to the model, its time and traffic are', () => {
  const asked: Observation[] = []
  const watches = [{ quantile: 0.5, watch: fixed({ yhatMs: 10, yMinMs: 5, yMaxMs: 20 }, asked) }]
  score(watches, reading({ 0.5: 500 }, 0.05), RULES)
  score(watches, reading({ 0.5: 11 }, 4), RULES)
  score(watches, missing('nonfinite', '', { timestampSeconds: T, requestsPerSecond: 4 }), RULES)
  score(watches, missing('conn', ''), RULES)
  assert.deepEqual(asked, [
    { timestampSeconds: T, latencyMs: null, requestsPerSecond: 0.05 },
    { timestampSeconds: T, latencyMs: 11, requestsPerSecond: 4 },
    { timestampSeconds: T, latencyMs: null, requestsPerSecond: 4 },
  ])
})

for (const { yMs, saturated } of [
  { yMs: 3_599_999, saturated: false },
  { yMs: 3_600_000, saturated: true },
  { yMs: 4_000_000, saturated: true },
]) {
  test(`score: ${yMs} ms is ${saturated ? 'at the end of' : 'within'} what the histogram can tell`, () => {
    const [scored] = score(P50, reading({ 0.5: yMs }), RULES).quantiles
    assert.deepEqual([scored?.saturated, scored?.anomalous], [saturated, true])
  })
}

test('score: a pair that lives in the last bucket says so, and is not anomalous for it', () => {
  const slow: Watches = [{ quantile: 0.5, watch: fixed({ yhatMs: 3_600_000, yMinMs: 3_500_000, yMaxMs: 3_700_000 }) }]
  const [scored] = score(slow, reading({ 0.5: 3_600_000 }), RULES).quantiles
  assert.deepEqual([scored?.saturated, scored?.anomalous], [true, false])
})

// The band of TEN is [5, 20] around 10.
for (const { name, rules, yMs, band, anomalous, distance } of [
  {
    name: '15 ms to spare',
    rules: { minDeviationMs: 15 },
    yMs: 24,
    band: [0, 25],
    anomalous: false,
    distance: 14 / 15,
  },
  { name: 'on the widened edge', rules: { minDeviationMs: 15 }, yMs: 25, band: [0, 25], anomalous: false, distance: 1 },
  // Beyond both edges the model's own deviation counts if it is the smaller one.
  { name: 'beyond 15 ms', rules: { minDeviationMs: 15 }, yMs: 40, band: [0, 25], anomalous: true, distance: 2 },
  { name: 'less than the band', rules: { minDeviationMs: 3 }, yMs: 25, band: [5, 20], anomalous: true, distance: 1.5 },
  {
    name: '150 % to spare',
    rules: { minDeviationRatio: 1.5 },
    yMs: 24,
    band: [0, 25],
    anomalous: false,
    distance: 14 / 15,
  },
  {
    name: 'beyond 150 %',
    rules: { minDeviationRatio: 1.5 },
    yMs: 26,
    band: [0, 25],
    anomalous: true,
    distance: 16 / 15,
  },
  {
    name: 'the larger of both rules',
    rules: { minDeviationMs: 20, minDeviationRatio: 1.5 },
    ...{ yMs: 30, band: [0, 30], anomalous: false, distance: 1 },
  },
  { name: 'an SLO within the band', rules: { sloMs: 15 }, yMs: 18, band: [5, 15], anomalous: true, distance: 1.2 },
  { name: 'exactly the SLO', rules: { sloMs: 15 }, yMs: 15, band: [5, 15], anomalous: false, distance: 0.5 },
  { name: 'an SLO above the band', rules: { sloMs: 100 }, yMs: 25, band: [5, 20], anomalous: true, distance: 1.5 },
  { name: 'far beyond the SLO', rules: { sloMs: 15 }, yMs: 60, band: [5, 15], anomalous: true, distance: 5 },
  { name: 'an SLO below what is normal', rules: { sloMs: 4 }, yMs: 8, band: [5, 10], anomalous: true, distance: 2 },
  {
    name: 'an SLO, though the deviation is small',
    rules: { sloMs: 12, minDeviationMs: 50 },
    ...{ yMs: 15, band: [0, 12], anomalous: true, distance: 1.25 },
  },
]) {
  test(`score: ${name}`, () => {
    const [scored] = score(P50, reading({ 0.5: yMs }), { ...RULES, ...rules }).quantiles
    assert.deepEqual([scored?.yMinMs, scored?.yMaxMs, scored?.anomalous], [...band, anomalous])
    assert.ok(Math.abs((scored?.score ?? NaN) - distance) < 1e-12, String(scored?.score))
  })
}

for (const { direction, minDeviationMs, yMs, anomalous } of [
  { direction: 'both', minDeviationMs: 0, yMs: 4, anomalous: true },
  { direction: 'both', minDeviationMs: 7, yMs: 4, anomalous: false },
  { direction: 'both', minDeviationMs: 7, yMs: 2, anomalous: true },
  { direction: 'above', minDeviationMs: 0, yMs: 4, anomalous: false },
] as const) {
  test(`score: ${yMs} ms for ${direction} with ${minDeviationMs} ms to spare is ${anomalous ? 'one' : 'none'}`, () => {
    const { verdict } = score(P50, reading({ 0.5: yMs }), { ...RULES, direction, minDeviationMs })
    assert.equal(verdict, anomalous ? 'anomalous' : 'ok')
  })
}

test('score: what the model says of traffic and drift is passed on', () => {
  const watch: Watch = {
    judge: () => ({ yhatMs: 10, yMinMs: 5, yMaxMs: 90, deviation: 0.2, driftRatio: 1.2, beyondTraining: true }),
  }
  const [scored] = score([{ quantile: 0.5, watch: watch }], reading({ 0.5: 26 }), RULES).quantiles
  assert.deepEqual([scored?.driftRatio, scored?.beyondTraining, scored?.anomalous], [1.2, true, false])
})
