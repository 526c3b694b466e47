import assert from 'node:assert/strict'
import test from 'node:test'

import { fitBaselines, watchesOf } from '../src/commands/models.js'
import type { Recording } from '../src/core/recording.js'
import { replay, type Replayed } from '../src/core/replay.js'
import type { ScoringRules } from '../src/core/score.js'
import { seededRandom } from '../src/testbed/random.js'
import { T0 } from './helpers/recordings.js'
import { cartserviceMs, simulatedPair, withoutRate } from './helpers/simulated-pair.js'

const RULES: ScoringRules = {
  direction: 'above',
  minRequestsPerSecond: 0.1,
  minDeviationMs: 0,
  minDeviationRatio: 0,
  sloMs: null,
}
/** Requests a second; the testbed's cartservice can do 133. */
const CALM = 30
const HOUR = 3_600
const STREAM = T0 + 24 * HOUR

const random = seededRandom(20)
/** Three hours of calm traffic with five surges of two to four minutes, each as busy as the other or less. */
const SURGES = [1_500, 3_800, 5_100, 7_900, 9_600].map((from, i) => ({
  from: T0 + from,
  to: T0 + from + 120 + 60 * (i % 3),
  rate: 90 + 5 * (i % 4),
}))
const training = simulatedPair({
  rateAt: (at) => SURGES.find(({ from, to }) => at >= from && at < to)?.rate ?? CALM * (1 + 0.2 * Math.sin(at / 900)),
  serviceMsAt: cartserviceMs,
  startSeconds: T0,
  durationSeconds: 3 * HOUR,
  random,
})

/** The day after: calm, a surge of 15 minutes, calm, and a surge with a delay of 200 ms in the middle of it. */
const SURGE = [STREAM + 1_200, STREAM + 2_100] as const
const FAULT = [STREAM + 4_200, STREAM + 4_800] as const
const stream = simulatedPair({
  rateAt: (at) => (inside(at, SURGE) || inside(at, [FAULT[0] - 300, FAULT[1] + 300]) ? 100 : CALM),
  serviceMsAt: cartserviceMs,
  delayMsAt: (at) => (inside(at, FAULT) ? 200 : 0),
  startSeconds: STREAM,
  durationSeconds: 5_400,
  random,
})

function inside(at: number, [from, to]: readonly [from: number, to: number]): boolean {
  return at >= from && at < to
}

function scored(change: (recording: Recording) => Recording): readonly Replayed[] {
  const baselines = fitBaselines(change(training), { model: 'load-and-season', quantiles: [], what: 'the training' })
  assert.ok(!(baselines instanceof Promise))
  return [...replay({ watches: watchesOf(baselines), recording: change(stream), rules: RULES, quantileOf: () => 0.5 })]
}

/** Anomalies between two times; a minute later, because a rate window shows a change in full only then. */
function anomalies(replayed: readonly Replayed[], [from, to]: readonly [number, number]): string {
  const there = replayed.filter(({ timestampSeconds: at }) => at >= from + 60 && at < to)
  return `${there.filter(({ evaluation }) => evaluation.verdict === 'anomalous').length} of ${there.length}`
}

const KNOWN = scored((recording) => recording)
const UNKNOWN = scored(withoutRate)

test('surge: a queue that the traffic explains is no anomaly with the request rate, and is many without', (t) => {
  const series = stream.series[0]
  const during = series?.latenciesMs.filter((_, i) => inside(series.timesSeconds[i] ?? 0, SURGE)) ?? []
  t.diagnostic(
    `p50 in the surge: up to ${Math.max(...during).toFixed(0)} ms; ${anomalies(KNOWN, SURGE)} with, ${anomalies(UNKNOWN, SURGE)} without`,
  )
  assert.ok(Math.max(...during) > 2 * Math.min(...during))
  assert.deepEqual([anomalies(KNOWN, SURGE), anomalies(UNKNOWN, SURGE)], ['0 of 56', '50 of 56'])
})

test('surge: a delay in the middle of one is found all the same', () => {
  assert.equal(anomalies(KNOWN, FAULT), '36 of 36')
})

test('surge: outside of surges and faults nothing is found', () => {
  assert.equal(anomalies(KNOWN, [STREAM, SURGE[0]]), '0 of 76')
})
