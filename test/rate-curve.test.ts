import assert from 'node:assert/strict'
import test from 'node:test'

import {
  beyondTraining,
  expectedLogLatency,
  fitRateCurve,
  logRateOf,
  nearestNode,
  nodesOf,
  type RateCurve,
  scatterAt,
  withScatter,
} from '../src/core/baseline/rate-curve.js'
import { seededRandom } from '../src/testbed/random.js'
import { noise } from './helpers/streams.js'

/** 10 ms at 1 request a second, 20 ms at 2, 80 ms at 4; each scatters more. */
const CURVE: RateCurve = {
  nodes: Float32Array.of(0, Math.log(10), 0.1, Math.LN2, Math.log(20), 0.2, 2 * Math.LN2, Math.log(80), 0.3),
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
    assert.ok(Math.abs(expected / latencyMs - 1) < 1e-6, String(expected))
  })
}

test('rate curve: traffic beyond the training may cost its steepness, traffic within it nothing', () => {
  assert.deepEqual(
    [0, 1, 4].map((rate) => beyondTraining(CURVE, logRateOf(rate))),
    [0, 0, 0],
  )
  assert.ok(Math.abs(beyondTraining(CURVE, logRateOf(8)) - 4 * Math.LN2) < 1e-6)
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

test('rate curve: its scatter is that of the nearest node', () => {
  assert.ok(Math.abs(scatterAt(CURVE, logRateOf(2.9)) - 0.3) < 1e-6)
  const scattered = withScatter(CURVE, [1, 2, 4])
  assert.deepEqual(
    [0, 2, 4].map((rate) => scatterAt(scattered, logRateOf(rate))),
    [1, 2, 4],
  )
  assert.equal(expectedLogLatency(scattered, 0.3), expectedLogLatency(CURVE, 0.3))
})

test('rate curve: traffic of any range is told by at most 16 nodes', () => {
  const { curve } = fitRateCurve(recorded((rate) => rate, 40))
  assert.ok(nodesOf(curve) > 10 && nodesOf(curve) <= 16, String(nodesOf(curve)))
})

/** Traffic that wanders between 1 and 16 (base^2) requests a second; 12 h of it, a sample a minute. */
function recorded(latencyOf: (requestsPerSecond: number) => number, base = 4): Parameters<typeof fitRateCurve>[0] {
  const random = seededRandom(9)
  const rates = Array.from({ length: 720 }, (_, i) => base ** (1 + Math.sin(i / 40)) * noise(random, 0.02))
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
  assert.equal(nodesOf(curve), 1, 'pooled to one level')
  const noisy = fitRateCurve(recorded((rate) => 10 + 5 * Math.sin(rate))).curve
  for (let i = 1; i < nodesOf(noisy); i++) {
    const [rate = NaN, latency = NaN] = noisy.nodes.subarray(3 * i)
    const [rateBefore = NaN, latencyBefore = NaN] = noisy.nodes.subarray(3 * i - 3)
    assert.ok(rate > rateBefore)
    assert.ok(latency > latencyBefore)
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
