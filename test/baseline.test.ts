import assert from 'node:assert/strict'
import test from 'node:test'

import { loadAndSeason } from '../src/core/baseline/load-and-season.js'
import { deviationIn, type Fitted, type Model, type Training, trainingOf } from '../src/core/baseline/model.js'
import { staticMad, staticSigma } from '../src/core/baseline/static.js'
import { bucketOf } from '../src/core/istio-buckets.js'
import type { Reading } from '../src/core/reading.js'
import { score, type ScoringRules } from '../src/core/score.js'
import { type Random, seededRandom } from '../src/testbed/random.js'
import { T0 } from './helpers/recordings.js'

/** Those that are fitted at once. */
const MODELS: readonly Model[] = [loadAndSeason, staticSigma, staticMad]

function close(actual: number, expected: number): void {
  assert.ok(Math.abs(actual - expected) <= 1e-9 * Math.abs(expected), `${actual} is not ${expected}`)
}

function fit(model: Model, training: Training): Fitted {
  const fitted = model.fit(training)
  assert.ok(!(fitted instanceof Promise))
  return fitted
}

function trainingWith(latenciesMs: readonly number[]): Training {
  return { timesSeconds: latenciesMs.map((_, i) => T0 + 15 * i), latenciesMs, requestsPerSecond: null }
}

for (const { latencyMs, lowerMs, upperMs } of [
  { latencyMs: 0, lowerMs: 0, upperMs: 0.5 },
  { latencyMs: 0.5, lowerMs: 0, upperMs: 0.5 },
  { latencyMs: 0.6, lowerMs: 0.5, upperMs: 1 },
  { latencyMs: 10, lowerMs: 5, upperMs: 10 },
  { latencyMs: 10.001, lowerMs: 10, upperMs: 25 },
  { latencyMs: 3_600_000, lowerMs: 1_800_000, upperMs: 3_600_000 },
  { latencyMs: 3_600_001, lowerMs: 3_600_000, upperMs: Infinity },
]) {
  test(`buckets: ${latencyMs} ms lies in (${lowerMs}, ${upperMs}]`, () => {
    assert.deepEqual(bucketOf(latencyMs), { lowerMs, upperMs })
  })
}

for (const { latencyMs, deviation } of [
  { latencyMs: 10, deviation: 0 },
  { latencyMs: 20, deviation: 1 },
  { latencyMs: 25, deviation: 1.5 },
  { latencyMs: 8, deviation: -0.5 },
  { latencyMs: 6, deviation: -1 },
  { latencyMs: 0, deviation: -2.5 },
  { latencyMs: null, deviation: 0 },
]) {
  test(`deviation: ${latencyMs ?? 'nothing'} ms in 10 ms within [6, 20] is at ${deviation}`, () => {
    assert.equal(deviationIn({ yhatMs: 10, yMinMs: 6, yMaxMs: 20 }, latencyMs), deviation)
  })
}

test('deviation: a band without width makes a large one, not an infinite one', () => {
  const point = { yhatMs: 10, yMinMs: 10, yMaxMs: 10 }
  assert.equal(deviationIn(point, 10), 0)
  assert.ok(Number.isFinite(deviationIn(point, 11)) && deviationIn(point, 11) > 1)
  assert.ok(Number.isFinite(deviationIn(point, 9)) && deviationIn(point, 9) < -1)
})

test('training: missing samples are left out, with their times and rates', () => {
  const count = loadAndSeason.minSamples + 2
  const numbers = Array.from({ length: count }, (_, i) => i)
  const training = trainingOf(
    {
      quantile: null,
      timesSeconds: numbers.map((i) => 100 + i),
      latenciesMs: numbers.map((i) => (i === 1 || i === 3 ? NaN : 10 + i)),
      requestsPerSecond: numbers.map((i) => (i === 0 ? NaN : i / 10)),
    },
    loadAndSeason,
    'f.json',
  )
  const kept = numbers.filter((i) => i !== 1 && i !== 3)
  assert.deepEqual(training, {
    timesSeconds: kept.map((i) => 100 + i),
    latenciesMs: kept.map((i) => 10 + i),
    requestsPerSecond: kept.map((i) => (i === 0 ? NaN : i / 10)),
  })
})

for (const model of MODELS) {
  const { name, minSamples } = model
  const few = Array.from({ length: minSamples - 3 }, () => 5)
  for (const { what, values, message } of [
    { what: 'nothing', values: [], message: /^f\.json: no finite value in 0 samples; record a good one with: / },
    { what: 'only NaN', values: [NaN, NaN], message: /^f\.json: no finite value in 2 samples; record / },
    {
      what: 'three samples too few',
      values: [...few, NaN, NaN, NaN],
      message: new RegExp(
        `^f\\.json: too few values to train ${name} on: at least ${minSamples} needed, got ${minSamples - 3}, 3 more; record a good one with: `,
      ),
    },
  ]) {
    test(`training: ${name} refuses ${what}, and says how much more it needs`, () => {
      const timesSeconds = values.map((_, i) => i)
      const series = { quantile: null, timesSeconds, latenciesMs: values, requestsPerSecond: null }
      assert.throws(() => trainingOf(series, model, 'f.json'), { name: 'RecordingError', message })
    })
  }

  test(`${name}: the least number of samples is enough, a constant and zeros are, too`, () => {
    for (const latencyMs of [0, 3, 240, 1e9]) {
      const fitted = fit(model, trainingWith(Array.from({ length: minSamples }, () => latencyMs)))
      const { yhatMs, yMinMs, yMaxMs, deviation } = fitted.watch().judge({
        timestampSeconds: T0 + 86_400,
        latencyMs,
        requestsPerSecond: null,
      })
      if (latencyMs > 0) close(yhatMs, latencyMs)
      assert.ok(yMinMs >= 0 && yMinMs <= yhatMs && yhatMs <= yMaxMs, `${yMinMs} ${yhatMs} ${yMaxMs}`)
      assert.ok(Number.isFinite(yMaxMs) && Math.abs(deviation) <= 1, `${latencyMs} ms deviates by ${deviation}`)
    }
  })
}

test('static-sigma: mean and three standard deviations, for good', () => {
  // 9 and 11 by turns: mean 10, standard deviation 1.
  const values = Array.from({ length: 40 }, (_, i) => (i % 2 === 0 ? 9 : 11))
  const watch = fit(staticSigma, trainingWith(values)).watch()
  for (const { latencyMs, deviation } of [
    { latencyMs: 13, deviation: 1 },
    { latencyMs: 7, deviation: -1 },
    { latencyMs: 100, deviation: 30 },
    { latencyMs: 13, deviation: 1 },
  ]) {
    const judgement = watch.judge({ timestampSeconds: T0 + 1e6, latencyMs, requestsPerSecond: 7 })
    assert.deepEqual(judgement, {
      ...{ yhatMs: 10, yMinMs: 7, yMaxMs: 13 },
      ...{ deviation, driftRatio: null, beyondTraining: false },
    })
  }
})

test('static-mad: median and five robust standard deviations, whatever the outliers', () => {
  // Median 10 and distances 1, apart from four outliers: MAD 1, sigma 1.4826.
  const values = Array.from({ length: 40 }, (_, i) => (i % 10 === 0 ? 9_000 : i % 2 === 0 ? 9 : i % 4 === 1 ? 10 : 11))
  const sorted = [...values].sort((a, b) => a - b)
  assert.deepEqual([sorted[19], sorted[20]], [10, 10])
  const { yhatMs, yMinMs, yMaxMs } = fit(staticMad, trainingWith(values))
    .watch()
    .judge({ timestampSeconds: T0, latencyMs: null, requestsPerSecond: null })
  close(yhatMs, 10)
  close(yMaxMs, 10 + 5 * 1.4826)
  close(yMinMs, 10 - 5 * 1.4826)
})

for (const { model, yMaxMs } of [
  { model: staticSigma, yMaxMs: 3.06 },
  { model: staticMad, yMaxMs: 3.06 },
]) {
  test(`${model.name}: a flat recording has a band of 2 %, not none`, () => {
    const watch = fit(model, trainingWith(Array.from({ length: 40 }, () => 3))).watch()
    close(watch.judge({ timestampSeconds: T0, latencyMs: 3, requestsPerSecond: null }).yMaxMs, yMaxMs)
  })
}

// --- whatever comes in

function pick<T>(random: Random, items: readonly T[]): T {
  return items[Math.floor(random() * items.length)] as T
}

type Draw = (random: Random) => number

const LATENCIES: readonly Draw[] = [
  (random) => 20 * Math.exp(0.3 * (random() + random() - 1)),
  () => 3,
  () => 0,
  (random) => pick(random, [0, 0, 5, 1e9]),
  (random) => 10 ** (18 * random() - 9),
  (random) => pick(random, [1e9, 1e9 - 1, 3_600_000]),
  (random) => pick(random, [1e-12, 1e-9, 1e-3]),
  (random) => (random() < 0.03 ? 1e6 : 8 + random()),
]
const RATES: readonly (Draw | null)[] = [
  null,
  null,
  (random) => 5 + random(),
  () => 0,
  (random) => (random() < 0.2 ? NaN : 10 ** (6 * random() - 3)),
  (random) => pick(random, [0, 1e-9, 1, 1e9]),
]
const STEPS: readonly Draw[] = [
  () => 15,
  () => 0.001,
  (random) => pick(random, [15, 15, 15, 30, 3_600, 90_000]),
  (random) => 1e5 * random() + 0.01,
  () => 300,
]
/** In a stream Prometheus's clock may stand still or go back. */
const STREAM_STEPS: readonly Draw[] = [...STEPS, (random) => pick(random, [15, 15, 0, -15, -1e6, 1e6])]

const RULES: ScoringRules = {
  direction: 'both',
  minRequestsPerSecond: 0,
  minDeviationMs: 0,
  minDeviationRatio: 0,
  sloMs: null,
}
const RULE_SETS: readonly ScoringRules[] = [
  RULES,
  { ...RULES, direction: 'above' },
  { ...RULES, minDeviationMs: 5, minDeviationRatio: 0.5 },
  { ...RULES, sloMs: 7 },
  { ...RULES, minDeviationMs: 1e6, sloMs: 1e-3, minRequestsPerSecond: 0.1 },
]

function hostileTraining(random: Random): Training {
  const length = pick(random, [30, 31, 40, 60, 61, 120, 200])
  const latency = pick(random, LATENCIES)
  const rate = pick(random, RATES)
  const step = pick(random, STEPS)
  let at = T0
  return {
    timesSeconds: Array.from({ length }, () => (at += step(random))),
    latenciesMs: Array.from({ length }, () => latency(random)),
    requestsPerSecond: rate === null ? null : Array.from({ length }, () => rate(random)),
  }
}

function hostileReadings(random: Random, startSeconds: number): Reading[] {
  const latency = pick(random, LATENCIES)
  const rate = pick(random, RATES)
  const step = pick(random, STREAM_STEPS)
  let timestampSeconds = startSeconds + pick(random, [0, 1, 60, 1e4, 1e8, -1e8])
  return Array.from({ length: 50 }, (): Reading => {
    timestampSeconds += step(random)
    const requestsPerSecond = rate === null || random() < 0.2 ? null : Math.max(0, rate(random) || 0)
    if (random() < 0.2) {
      return { kind: 'missing', outcome: 'nonfinite', detail: '', timestampSeconds, requestsPerSecond }
    }
    const latencies = [{ quantile: 0.5, latencyMs: latency(random) }]
    return { kind: 'sample', outcome: 'ok', sample: { timestampSeconds, latencies, requestsPerSecond } }
  })
}

for (const [index, model] of MODELS.entries()) {
  test(`${model.name}: whatever it is trained on and asked, the band holds yhat and nothing is NaN (1,000 trainings)`, () => {
    const random = seededRandom(42 + index)
    for (let i = 0; i < 1_000; i++) {
      const training = hostileTraining(random)
      const watches = [{ quantile: 0.5, watch: fit(model, training).watch() }]
      const rules = pick(random, RULE_SETS)
      for (const reading of hostileReadings(random, training.timesSeconds.at(-1) ?? T0)) {
        const { quantiles, verdict } = score(watches, reading, rules)
        const [scored] = quantiles
        assert.ok(scored !== undefined)
        const { yhatMs, yMinMs, yMaxMs, maeMs, mape, score: distance, anomalous, driftRatio } = scored
        const said = `training ${i}: ${JSON.stringify(scored)}`
        for (const value of [yhatMs, yMinMs, yMaxMs]) assert.ok(Number.isFinite(value), said)
        for (const value of [maeMs, mape, distance, driftRatio]) {
          assert.ok(value === null || (Number.isFinite(value) && value >= 0), said)
        }
        assert.ok(0 <= yMinMs && yMinMs <= yhatMs && yhatMs <= yMaxMs, said)
        assert.equal(anomalous, distance === null ? null : distance > 1, said)
        assert.equal(verdict === 'anomalous', anomalous === true, said)
      }
    }
  })
}

test('every model: what a watch learnt is its own, and fitting changes nothing of the training', () => {
  const random = seededRandom(5)
  for (const model of MODELS) {
    const training = hostileTraining(random)
    const copy = structuredClone(training)
    const fitted = fit(model, training)
    assert.deepEqual(training, copy)
    const readings = hostileReadings(random, training.timesSeconds.at(-1) ?? T0)
    const run = (): unknown[] => {
      const watches = [{ quantile: 0.5, watch: fitted.watch() }]
      return readings.map((reading) => score(watches, reading, RULES))
    }
    assert.deepEqual(run(), run())
  }
})
