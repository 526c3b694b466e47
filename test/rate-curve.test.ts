import assert from 'node:assert/strict'
import test from 'node:test'

import {
  beyondTraining,
  expectedLogLatency,
  fitRateCurve,
  logRateOf,
  nearestNode,
  type RateCurve,
} from '../src/core/baseline/rate-curve.js'
import { seededRandom } from '../src/testbed/random.js'
import { noise } from './helpers/streams.js'

/** 10 ms at 1 request a second, 20 ms at 2, 80 ms at 4. */
const CURVE: RateCurve = {
  logRates: [0, Math.LN2, 2 * Math.LN2],
  logLatencies: [10, 20, 80].map(Math.log),
  busiestLogRate: 2.5 * Math.LN2,
  steepness: 4,
}

for (const { requestsPerSecond, latencyMs } of [
  { requestsPerSecond: 0, latencyMs: 10 },
  { requestsPerSecond: 0.5, latencyMs: 10 },
  { requestsPerSecond: 1, latencyMs: 10 },
  { requestsPerSecond: Math.SQRT2, latencyMs: 10 * Math.SQRT2 },
  { requestsPerSecond: 2, latencyMs: 20 },
  { requestsPerSecond: 2 * Math.SQRT2, latencyMs: 40 },
  { requestsPerSecond: 4, latencyMs: 80 },
  // The last slope, 2, goes on up to the busiest sample: half a doubling more traffic, one doubling more latency.
  { requestsPerSecond: 4 * Math.SQRT2, latencyMs: 160 },
  { requestsPerSecond: 1_000, latencyMs: 160 },
]) {
  test(`rate curve: ${requestsPerSecond.toFixed(2)} requests a second are expected to take ${latencyMs.toFixed(0)} ms`, () => {
    const expected = Math.exp(expectedLogLatency(CURVE, logRateOf(requestsPerSecond)))
    assert.ok(Math.abs(expected / latencyMs - 1) < 1e-12, String(expected))
  })
}

test('rate curve: traffic beyond the training may cost its steepness, traffic within it nothing', () => {
  assert.deepEqual(
    [0, 1, 4].map((rate) => beyondTraining(CURVE, logRateOf(rate))),
    [0, 0, 0],
  )
  assert.ok(Math.abs(beyondTraining(CURVE, logRateOf(8)) - 4 * Math.LN2) < 1e-12)
})

for (const { requestsPerSecond, node } of [
  { requestsPerSecond: 0, node: 0 },
  { requestsPerSecond: 1.4, node: 0 },
  { requestsPerSecond: 1.5, node: 1 },
  { requestsPerSecond: 2.8, node: 1 },
  { requestsPerSecond: 2.9, node: 2 },
  { requestsPerSecond: 99, node: 2 },
]) {
  test(`rate curve: ${requestsPerSecond} requests a second are nearest to node ${node}`, () => {
    assert.equal(nearestNode(CURVE, logRateOf(requestsPerSecond)), node)
  })
}

/** Traffic that wanders between 1 and 16 requests a second; 12 h of it, a sample a minute. */
function recorded(latencyOf: (requestsPerSecond: number) => number): Parameters<typeof fitRateCurve>[0] {
  const random = seededRandom(9)
  const rates = Array.from({ length: 720 }, (_, i) => 4 ** (1 + Math.sin(i / 40)) * noise(random, 0.02))
  return {
    timesSeconds: rates.map((_, i) => 60 * i),
    logRates: rates.map(logRateOf),
    logLatencies: rates.map((rate) => Math.log(latencyOf(rate) * noise(random, 0.05))),
  }
}

test('rate curve: a queue is found, to a few per cent, and its residuals are what traffic does not explain', () => {
  const queue = (rate: number): number => 10 / (1 - rate / 20)
  const samples = recorded(queue)
  const { curve, residuals } = fitRateCurve(samples)
  for (const rate of [1.5, 3, 6, 12]) {
    const expected = Math.exp(expectedLogLatency(curve, Math.log(rate)))
    assert.ok(Math.abs(expected / queue(rate) - 1) < 0.08, `${expected} at ${rate}`)
  }
  const deviation = Math.sqrt(residuals.reduce((sum, value) => sum + value * value, 0) / residuals.length)
  assert.ok(deviation > 0.04 && deviation < 0.09, String(deviation))
})

test('rate curve: it never falls with traffic, though the recording does', () => {
  const { curve } = fitRateCurve(recorded((rate) => 40 / rate))
  assert.equal(curve.logLatencies.length, 1, 'pooled to one level')
  const noisy = fitRateCurve(recorded((rate) => 10 + 5 * Math.sin(rate))).curve
  for (let i = 1; i < noisy.logRates.length; i++) {
    assert.ok((noisy.logRates[i] ?? 0) > (noisy.logRates[i - 1] ?? 0))
    assert.ok((noisy.logLatencies[i] ?? 0) > (noisy.logLatencies[i - 1] ?? 0))
  }
})

test('rate curve: a sample is predicted by the other blocks of the recording, not by its own', () => {
  // One eighth of the recording is ten times slower, at a rate of its own: the other seven cannot know.
  const slow = (i: number): boolean => i >= 210 && i < 240
  const { residuals } = fitRateCurve({
    timesSeconds: Array.from({ length: 240 }, (_, i) => 15 * i),
    logRates: Array.from({ length: 240 }, (_, i) => Math.log(slow(i) ? 50 : 5)),
    logLatencies: Array.from({ length: 240 }, (_, i) => Math.log(slow(i) ? 100 : 10)),
  })
  residuals.forEach((residual, i) => assert.ok(Math.abs(residual - (slow(i) ? Math.log(10) : 0)) < 1e-9, `${i}`))
})

test('rate curve: beyond a gentle slope traffic may cost as much as it grew, beyond a steep one twice the last doubling', () => {
  const flat = fitRateCurve(recorded(() => 10)).curve
  assert.equal(flat.steepness, 1)
  const steep = fitRateCurve(recorded((rate) => rate ** 3)).curve
  assert.ok(steep.steepness > 4.5 && steep.steepness < 7, String(steep.steepness))
})
