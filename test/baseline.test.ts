import assert from 'node:assert/strict'
import test from 'node:test'

import { MIN_TRAINING_SAMPLES, trainingOf } from '../src/core/baseline/model.js'
import { robustBand } from '../src/core/baseline/robust-band.js'
import { bucketOf } from '../src/core/istio-buckets.js'

function expectationOf(latenciesMs: readonly number[]): { yhatMs: number; yMinMs: number; yMaxMs: number } {
  const timesSeconds = latenciesMs.map((_, i) => 1_700_000_000 + i)
  const { yhatMs, yMinMs, yMaxMs } = robustBand
    .fit({ timesSeconds, latenciesMs, requestsPerSecond: null })
    .expect(1_800_000_000)
  return { yhatMs, yMinMs, yMaxMs }
}

function close(actual: number, expected: number): void {
  assert.ok(Math.abs(actual - expected) <= 1e-9 * Math.abs(expected), `${actual} is not ${expected}`)
}

test('robust band: median and MAD of the logarithms, four sigmas to each side', () => {
  // Logarithms to base 2 are 0, 1, 2, 3, 9: median 2, distances 2, 1, 0, 1, 7, MAD 1. So in natural logarithms the
  // level is 2 ln 2 and sigma 1.4826 ln 2: the band is 4 ms times and over 2 ** (4 x 1.4826) = 2 ** 5.9304.
  const { yhatMs, yMinMs, yMaxMs } = expectationOf([1, 2, 4, 8, 512])
  close(yhatMs, 4)
  close(yMinMs, 4 / 2 ** 5.9304)
  close(yMaxMs, 4 * 2 ** 5.9304)
})

test('robust band: a flat recording has a floor of 5 % a sigma', () => {
  // 240 ms lies in the bucket (100, 250], which is narrower above: 240 e ** 0.2 = 293.1 ms.
  const { yhatMs, yMinMs, yMaxMs } = expectationOf(Array.from({ length: 50 }, () => 240))
  close(yhatMs, 240)
  close(yMinMs, 100)
  close(yMaxMs, 240 * Math.exp(4 * 0.05))
})

test('robust band: a band is never narrower than the bucket that its level lies in', () => {
  for (const latencyMs of [0.2, 0.5, 3, 7, 12, 60, 180, 400, 3_000, 45_000, 3_599_999]) {
    const { yMinMs, yMaxMs } = expectationOf(Array.from({ length: 40 }, () => latencyMs))
    const { lowerMs, upperMs } = bucketOf(latencyMs)
    assert.ok(yMinMs <= lowerMs && yMaxMs >= upperMs, `${yMinMs} .. ${yMaxMs} around ${latencyMs}`)
  }
})

test('robust band: whatever it was trained on, 0 <= yMin <= yhat <= yMax and all are finite', () => {
  for (const latenciesMs of [
    [0, 0, 0],
    [0, 0, 1e9],
    [1e9, 1e9, 1e9],
    [5e-324, 1, 2],
    [0, 1e-9, 1e9, 1e9],
    [3_600_000, 3_600_000, 3_600_001],
  ]) {
    const { yhatMs, yMinMs, yMaxMs } = expectationOf(latenciesMs)
    const told = `${yMinMs} <= ${yhatMs} <= ${yMaxMs}`
    assert.ok(0 <= yMinMs && yMinMs <= yhatMs && yhatMs <= yMaxMs && Number.isFinite(yMaxMs), told)
  }
})

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

test('training: missing samples are left out, with their times and rates', () => {
  const count = MIN_TRAINING_SAMPLES + 2
  const numbers = Array.from({ length: count }, (_, i) => i)
  const training = trainingOf(
    {
      quantile: null,
      timesSeconds: numbers.map((i) => 100 + i),
      latenciesMs: numbers.map((i) => (i === 1 || i === 3 ? NaN : 10 + i)),
      requestsPerSecond: numbers.map((i) => (i === 0 ? NaN : i / 10)),
    },
    'f.json',
  )
  const kept = numbers.filter((i) => i !== 1 && i !== 3)
  assert.deepEqual(training, {
    timesSeconds: kept.map((i) => 100 + i),
    latenciesMs: kept.map((i) => 10 + i),
    requestsPerSecond: kept.map((i) => (i === 0 ? NaN : i / 10)),
  })
})

for (const { values, message } of [
  { values: [], message: /^f\.json: no finite value in 0 samples; record a good one with: / },
  { values: [NaN, NaN], message: /^f\.json: no finite value in 2 samples; record a good one with: / },
  {
    values: [...Array.from({ length: MIN_TRAINING_SAMPLES - 1 }, () => 5), NaN],
    message: /^f\.json: too few values to train on: at least 30 needed, got 29; record a good one with: /,
  },
]) {
  test(`training: ${values.length} samples, ${values.filter(Number.isFinite).length} of them finite, are refused`, () => {
    const series = {
      quantile: null,
      timesSeconds: values.map((_, i) => i),
      latenciesMs: values,
      requestsPerSecond: null,
    }
    assert.throws(() => trainingOf(series, 'f.json'), { name: 'RecordingError', message })
  })
}
