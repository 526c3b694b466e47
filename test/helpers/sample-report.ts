import { fitBaselines, watchesOf } from '../../src/commands/models.js'
import type { GroundTruth } from '../../src/core/ground-truth.js'
import {
  coldState,
  type IncidentRules,
  next,
  type PairVerdict,
  temperatureOf,
  transition,
} from '../../src/core/incident.js'
import type { Pair } from '../../src/core/pair.js'
import { replay } from '../../src/core/replay.js'
import type { Report, ReportedPair, ReportedPoll, ReportedTransition } from '../../src/report/report.js'
import { lognormal, seededRandom } from '../../src/testbed/random.js'
import { simulatedPair } from './simulated-pair.js'

export const START_SECONDS = 1_700_000_000
const OBSERVED_SECONDS = 1_500
const TRAINING_SECONDS = 2_400
const SCORING = {
  direction: 'above',
  minRequestsPerSecond: 0.1,
  minDeviationMs: 0,
  minDeviationRatio: 0,
  sloMs: null,
} as const

/** When the second pair had no samples, seconds since the start. */
export const OUTAGE = { from: 180, to: 300 } as const

export const PAIRS: readonly Pair[] = [
  { source: 'frontend', destination: 'cartservice' },
  { source: 'checkoutservice', destination: 'paymentservice' },
]

export const GROUND_TRUTH: GroundTruth = {
  faults: [
    {
      name: 'cart delay',
      fromSeconds: START_SECONDS + 600,
      toSeconds: START_SECONDS + 1_050,
      pairs: [{ source: 'frontend', destination: 'cartservice' }],
    },
    {
      name: 'payment delay',
      fromSeconds: START_SECONDS + 750,
      toSeconds: START_SECONDS + 1_050,
      pairs: [{ source: 'checkoutservice', destination: 'paymentservice' }],
    },
  ],
  transients: [{ name: '+400 users', fromSeconds: START_SECONDS + 330, toSeconds: START_SECONDS + 350 }],
}

/** A run of 25 minutes as the product would have seen it: a burst of users, two delays, and an outage of one pair's samples. */
export async function sampleReport(): Promise<Report> {
  const random = seededRandom(11)
  const at = (seconds: number): number => seconds - START_SECONDS
  const pairs: ReportedPair[] = []
  for (const [i, pair] of PAIRS.entries()) {
    const fault = GROUND_TRUTH.faults[i]!
    const traffic = { rateAt: () => 12 - 5 * i, random }
    const serviceMs = (seconds: number): number => {
      const burst = GROUND_TRUTH.transients.some((one) => seconds >= one.fromSeconds && seconds < one.toSeconds)
      return lognormal(random, { median: 9 + 14 * i, sigma: 0.4 }) * (burst ? 3.5 : 1)
    }
    const training = simulatedPair({
      ...traffic,
      serviceMsAt: (_, seconds) => serviceMs(seconds),
      startSeconds: START_SECONDS - TRAINING_SECONDS,
      durationSeconds: TRAINING_SECONDS,
    })
    const observed = simulatedPair({
      ...traffic,
      serviceMsAt: (_, seconds) => serviceMs(seconds),
      delayMsAt: (seconds) => (seconds >= fault.fromSeconds && seconds < fault.toSeconds ? 200 : 0),
      startSeconds: START_SECONDS,
      durationSeconds: OBSERVED_SECONDS,
    })
    const recording = {
      ...observed,
      series: observed.series.map((series) => ({
        ...series,
        latenciesMs: series.latenciesMs.map((latencyMs, n) => {
          const since = at(series.timesSeconds[n]!)
          return i === 1 && since >= OUTAGE.from && since < OUTAGE.to ? NaN : latencyMs
        }),
      })),
    }
    const baselines = await fitBaselines(training, { model: 'load-and-season', quantiles: [], what: 'the training' })
    const replayed = replay({ watches: watchesOf(baselines), recording, rules: SCORING, quantileOf: () => 0.5 })
    const points = [...replayed].map(({ timestampSeconds, evaluation: { verdict, quantiles } }) => ({
      timestampSeconds,
      yMs: quantiles[0]?.yMs ?? null,
      yhatMs: quantiles[0]?.yhatMs ?? null,
      yMinMs: quantiles[0]?.yMinMs ?? null,
      yMaxMs: quantiles[0]?.yMaxMs ?? null,
      verdict,
    }))
    pairs.push({ pair, quantile: 0.5, points, accumulatorThreshold: 5 })
  }
  return {
    title: 'lab7-double-delay',
    summary: [
      'Online Boutique on the testbed, 25 minutes: two delays of 200 ms and a burst of 400 users.',
      'Sev 2 came 165 s after the first fault and Sev 1 after 240 s; the incident was resolved 150 s after the last fault. Nobody was paged for the burst.',
    ],
    partial: false,
    startSeconds: START_SECONDS,
    endSeconds: START_SECONDS + OBSERVED_SECONDS,
    pairs,
    ...folded(pairs),
    groundTruth: GROUND_TRUTH,
    incidentThreshold: 10,
    clearThreshold: 5,
    tables: [
      {
        title: 'Expected and seen',
        columns: ['what', 'expected', 'seen', 'after, s'],
        rows: [
          ['highest severity', 'Sev 1', 'Sev 1', null],
          ['Sev 2', 'within 240 s', 'yes', 165],
          ['false anomalies | per thousand', 'few', 'yes', 1.23456789],
        ],
        note: 'Times are from the start of the first fault.',
      },
    ],
    tradeOffs: [
      {
        title: 'Accumulator threshold: time to Sev 1 against false incidents',
        xTitle: 'false incidents per day',
        yTitle: 'time to Sev 1, s',
        points: [3, 4, 5, 6, 7, 8, 9, 10].flatMap((threshold) => [
          { series: 'load-and-season', label: `${threshold}`, x: 12 / threshold ** 1.6, y: 60 + 15 * threshold },
          { series: 'static-sigma', label: `${threshold}`, x: 31 / threshold ** 1.3, y: 75 + 18 * threshold },
        ]),
      },
    ],
  }
}

function folded(pairs: readonly ReportedPair[]): Pick<Report, 'polls' | 'transitions'> {
  const rules: IncidentRules = {
    pairs: pairs.map(({ pair, accumulatorThreshold }) => ({ ...pair, accumulatorThreshold })),
    incidentThreshold: 10,
    clearThreshold: 5,
    coolBy: 2,
    accumulatorMax: 20,
    noDataTimeoutSeconds: 600,
  }
  const polls: ReportedPoll[] = []
  const transitions: ReportedTransition[] = []
  let state = coldState(rules)
  for (const [i, { timestampSeconds }] of pairs[0]!.points.entries()) {
    const verdicts = pairs.map(({ points }): PairVerdict => {
      const verdict = points[i]?.verdict ?? 'no_data'
      if (verdict === 'anomalous') return { kind: 'anomalous', anomalyCount: 1 }
      return verdict === 'ok' ? { kind: 'ok' } : { kind: 'unknown', reason: verdict }
    })
    const before = state
    state = next(state, { timestampSeconds, verdicts }, rules)
    const severity = state.open?.severity ?? null
    const happened = transition(before, state)
    if (happened !== null) {
      const text = [`Temperature ${temperatureOf(state.accumulators)} of ${rules.incidentThreshold}.`]
      if (happened === 'opened')
        text.push('Suspect: the way from frontend to cartservice: its latency is 21 times what is expected.')
      transitions.push({ timestampSeconds, transition: happened, severity, text })
    }
    polls.push({
      timestampSeconds,
      accumulators: state.accumulators,
      temperature: temperatureOf(state.accumulators),
      severity,
    })
  }
  return { polls, transitions }
}
