import assert from 'node:assert/strict'
import test from 'node:test'

import { batchesOf, edgesPerBatch, halves, pointsPerAnswer, waitSeconds } from '../src/core/training-schedule.js'
import { HOSTILE_NAMES } from './helpers/mesh-answers.js'

test('training schedule: batches have one source each, no more edges than fit, and every edge once', () => {
  const edges = HOSTILE_NAMES.flatMap((source) =>
    HOSTILE_NAMES.flatMap((destination) => [0, 1, 2].map((i) => ({ source, destination: `${destination}${i}` }))),
  )
  const batches = batchesOf(edges, 7)
  assert.ok(batches.every(({ destinations }) => destinations.length >= 1 && destinations.length <= 7))
  assert.deepEqual(
    batches.flatMap(({ source, destinations }) => destinations.map((destination) => ({ source, destination }))),
    edges,
  )
  assert.equal(batches.length, HOSTILE_NAMES.length * Math.ceil((3 * HOSTILE_NAMES.length) / 7))
})

test('training schedule: the halves of a batch are the batch', () => {
  assert.deepEqual(halves({ source: 'a', destinations: ['b', 'c', 'd'] }), [
    { source: 'a', destinations: ['b', 'c'] },
    { source: 'a', destinations: ['d'] },
  ])
})

for (const { what, points, seriesPerEdge, edges } of [
  { what: 'a week at a minute', points: 10_081, seriesPerEdge: 2, edges: 20 },
  { what: 'a month at a minute', points: 43_201, seriesPerEdge: 2, edges: 11 },
  { what: 'more than a batch may hold', points: 2_000_000, seriesPerEdge: 2, edges: 1 },
]) {
  test(`training schedule: of ${what} a batch holds ${edges} edges`, () => {
    assert.equal(edgesPerBatch({ points, seriesPerEdge }), edges)
  })
}

test('training schedule: an answer holds a few megabytes', () => {
  assert.deepEqual([1, 40, 60, 1_000_000].map(pointsPerAnswer), [123_361, 3_084, 2_056, 1])
})

const DAY = 86_400

test('training schedule: a baseline is made anew after the interval, sooner while its history is shorter, or never', () => {
  const options = { retrainSeconds: DAY, lastWaitSeconds: 0 }
  assert.equal(waitSeconds('fitted', { ...options, spanSeconds: 7 * DAY }), DAY)
  assert.equal(waitSeconds('fitted', { ...options, spanSeconds: 3_600 }), 3_600)
  assert.equal(waitSeconds('fitted', { ...options, spanSeconds: 10 }), 600)
  assert.equal(waitSeconds('fitted', { ...options, retrainSeconds: null, spanSeconds: 3_600 }), Infinity)
  assert.equal(waitSeconds('kept', options), 1_800)
  assert.equal(waitSeconds('kept', { ...options, retrainSeconds: 900 }), 900)
})

test('training schedule: what cannot be trained is tried ever more rarely, a short history when it may be long enough', () => {
  const waits: number[] = []
  for (let lastWaitSeconds = 0; waits.length < 8; waits.push(lastWaitSeconds)) {
    lastWaitSeconds = waitSeconds('no_history', { retrainSeconds: DAY, lastWaitSeconds })
  }
  assert.deepEqual(waits, [600, 1_200, 2_400, 4_800, 9_600, 19_200, 21_600, 21_600])
  const options = { retrainSeconds: DAY, lastWaitSeconds: 600 }
  assert.equal(waitSeconds('too_short', { ...options, missingSeconds: 1_740 }), 1_740)
  assert.equal(waitSeconds('too_short', { ...options, missingSeconds: 60 }), 600)
})
