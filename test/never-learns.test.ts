import assert from 'node:assert/strict'
import test from 'node:test'

import { median } from 'simple-statistics'

import { loadAndSeason } from '../src/core/baseline/load-and-season.js'
import type { Fitted } from '../src/core/baseline/model.js'
import { coldState, type IncidentRules, next } from '../src/core/incident.js'
import type { Reading } from '../src/core/reading.js'
import { score, type ScoringRules } from '../src/core/score.js'
import { seededRandom } from '../src/testbed/random.js'
import { T0 } from './helpers/recordings.js'
import { DAY_SECONDS, noise, type Sample, samplesOf, trainingOn } from './helpers/streams.js'

const HOUR = 3_600
const POLL_SECONDS = 5
const PAIR = { source: 'a', destination: 'b' }

const RULES: ScoringRules = {
  direction: 'above',
  minRequestsPerSecond: 0.1,
  minDeviationMs: 0,
  minDeviationRatio: 0,
  sloMs: null,
}
const INCIDENT: IncidentRules = {
  pairs: [{ ...PAIR, accumulatorThreshold: 5 }],
  incidentThreshold: 10,
  clearThreshold: 5,
  coolBy: 2,
  accumulatorMax: 20,
  noDataTimeoutSeconds: 600,
}

type Latency = Parameters<typeof samplesOf>[0]

const random = seededRandom(77)
const trafficAt = (time: number): number => 5 * Math.exp(0.7 * Math.sin(time / 2_900) + 0.4 * Math.sin(time / 1_130))
const SERVICES: readonly { readonly name: string; readonly latency: Latency; readonly hours: number }[] = [
  { name: 'a level', latency: () => 8 * noise(random, 0.05), hours: 2 },
  { name: 'a level with much noise', latency: () => 20 * noise(random, 0.2), hours: 2 },
  {
    name: 'a load cycle',
    latency: (time) => 4 * Math.exp(0.3 * Math.sin((2 * Math.PI * time) / 1_200)) * noise(random, 0.07),
    hours: 2,
  },
  {
    name: 'a day',
    latency: (time) => 100 * Math.exp(0.4 * Math.sin((2 * Math.PI * time) / DAY_SECONDS)) * noise(random, 0.08),
    hours: 48,
  },
  {
    name: 'a queue with its request rate',
    latency: (time) => [(10 / (1 - trafficAt(time) / 20)) * noise(random, 0.05), trafficAt(time)],
    hours: 24,
  },
]

interface Outcome {
  readonly incidents: number
  /** When the first one opened and the last one closed, seconds since the fault's onset; null when it did not. */
  readonly openedAfter: number | null
  readonly closedAfter: number | null
  /** Share of the fault's polls, from its full height on, with an open incident. */
  readonly openShare: number
}

/** Five-second polls through the monitor's scoring and the incident rule: an hour of calm, the fault, an hour of calm. */
function watchFault(
  fitted: Fitted,
  latency: Latency,
  fault: { factorAt: (s: number) => number; full: number; end: number },
): Outcome {
  const onset = T0 + 5 * DAY_SECONDS
  const count = (2 * HOUR + fault.end) / POLL_SECONDS
  const stream = samplesOf(latency, { count, startSeconds: onset - HOUR, stepSeconds: POLL_SECONDS })
  const watches = [{ quantile: 0.5, watch: fitted.watch() }]
  let state = coldState(INCIDENT)
  let incidents = 0
  let openedAfter: number | null = null
  let closedAfter: number | null = null
  let held = 0
  let open = 0
  for (const sample of stream) {
    const since = sample.timestampSeconds - onset
    const factor = since >= 0 && since < fault.end ? fault.factorAt(since) : 1
    const { verdict, anomalyCount } = score(watches, readingOf(sample, factor), RULES)
    const said = verdict === 'anomalous' ? { kind: verdict, anomalyCount: anomalyCount ?? 1 } : { kind: 'ok' as const }
    const after = next(state, { timestampSeconds: sample.timestampSeconds, verdicts: [said] }, INCIDENT)
    if (state.open === null && after.open !== null) {
      incidents++
      openedAfter ??= since
    }
    if (state.open !== null && after.open === null) closedAfter = since
    state = after
    if (since < fault.full || since >= fault.end) continue
    held++
    if (state.open !== null) open++
  }
  return { incidents, openedAfter, closedAfter: state.open === null ? closedAfter : null, openShare: open / held }
}

function readingOf({ timestampSeconds, latencyMs, requestsPerSecond }: Sample, factor: number): Reading {
  const latencies = [{ quantile: 0.5, latencyMs: latencyMs * factor }]
  return { kind: 'sample', outcome: 'ok', sample: { timestampSeconds, latencies, requestsPerSecond } }
}

/** A rise over some hours to a factor that is then held for six. */
function ramp(hours: number, factor: number): { factorAt: (s: number) => number; full: number; end: number } {
  return {
    factorAt: (since) => 1 + (factor - 1) * Math.min(1, since / (hours * HOUR)),
    full: hours * HOUR,
    end: (hours + 6) * HOUR,
  }
}

/** Trainings and streams of each service, each with noise of its own. */
const STREAMS = 5

for (const { name, latency, hours } of SERVICES) {
  const trained = Array.from(
    { length: STREAMS },
    () => loadAndSeason.fit(trainingOn(samplesOf(latency, { count: (hours * HOUR) / 30 }))) as Fitted,
  )
  for (const { what, fault, within, most = 1 } of [
    { what: 'a tenfold step', fault: { factorAt: () => 10, full: 60, end: 6 * HOUR }, within: 60 },
    { what: 'a twofold step', fault: { factorAt: () => 2, full: 300, end: 6 * HOUR }, within: 300 },
    { what: 'a ramp of an hour to ten times', fault: ramp(1, 10), within: HOUR, most: 2 },
    { what: 'a ramp of two hours to twice', fault: ramp(2, 2), within: 2 * HOUR, most: 2 },
  ]) {
    test(`never learns: on ${name}, ${what} is an incident for six hours, and ends with the fault`, () => {
      const outcomes = trained.map((fitted) => watchFault(fitted, latency, fault))
      const told = JSON.stringify(outcomes)
      for (const { openedAfter, closedAfter, openShare } of outcomes) {
        assert.equal(openShare, 1, told)
        assert.ok(openedAfter !== null && openedAfter >= 0 && openedAfter <= within, told)
        assert.ok(closedAfter !== null && closedAfter >= fault.end && closedAfter <= fault.end + 120, told)
      }
      // On its way up a slow ramp may look like noise once more; from its full height on it does not.
      assert.ok(median(outcomes.map(({ incidents }) => incidents)) <= most, told)
    })
  }
}
