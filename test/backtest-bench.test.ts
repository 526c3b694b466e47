/*
 * Our measures against a scorer that knows nothing of us: the same series, the same labels, the same incident rule, its own
 * code. Without its recordings beside the checkout there is nothing to hold them against.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'node:test'
import { gunzipSync } from 'node:zlib'

import { median } from 'simple-statistics'

import { fitBaselines, type MODELS, watchesOf } from '../src/commands/models.js'
import { courseOf, judgedSample, pollsOf, stepSecondsOf } from '../src/core/backtest.js'
import { type FaultOutcome, measure, type Measures } from '../src/core/detection-measures.js'
import type { FaultWindow } from '../src/core/ground-truth.js'
import { readRecording, type Recording } from '../src/core/recording.js'
import { replay } from '../src/core/replay.js'
import { parseAnswer } from '../src/core/series.js'
import { packageRoot } from './helpers/package-root.js'
import { PROGRAM } from './helpers/program.js'
import { temporaryFolder } from './helpers/temporary-folder.js'

const BENCH = join(packageRoot(), '../shared/bench')

/** One with a poll a sample, and one with ten polls a sample. */
const DATASETS = ['sim-short', 'petshop-drift'] as const
const MODEL = 'load-and-season' satisfies (typeof MODELS)[number]['name']

const PAIR = { source: 'source', destination: 'destination', accumulatorThreshold: 5 }
const SCORING = {
  direction: 'above',
  minRequestsPerSecond: 0.1,
  minDeviationMs: 0,
  minDeviationRatio: 0,
  sloMs: null,
} as const
/** Quicker than by default, so that there are false incidents and transients that are not tolerated. */
const RULES = {
  pairs: [PAIR],
  incidentThreshold: 3,
  clearThreshold: 1,
  coolBy: 2,
  accumulatorMax: 20,
  noDataTimeoutSeconds: 1e9,
}

interface Labelled {
  readonly id: string
  readonly train: string
  readonly series: string
  readonly step: number
  readonly windows: readonly {
    readonly start: number
    readonly end: number
    readonly expect: string
    readonly kind: string
  }[]
  readonly ignore?: readonly (readonly [number, number])[]
}

/** What the scorer says of a data set, as far as it is compared. */
interface Scored {
  readonly recall_anomaly: number
  readonly recall_incident: number
  readonly ttd_anomaly_s: number | null
  readonly ttd_incident_s: number | null
  readonly clear_s: number | null
  readonly false_incidents: number
  readonly normal_days: number
  readonly tolerated: number | null
  readonly by_series: readonly {
    readonly id: string
    readonly recall: number
    readonly fp_per_1000: number
    readonly false_incidents: number
  }[]
}

function recordingIn(dataset: string): Recording {
  const text = gunzipSync(readFileSync(join(BENCH, 'public', dataset))).toString()
  return readRecording(parseAnswer(JSON.parse(text), 'matrix'))
}

async function measuredHere({ train, series, windows, ignore = [] }: Labelled): Promise<Measures> {
  const baselines = await fitBaselines(recordingIn(train), { model: MODEL, quantiles: [], what: train })
  const recording = recordingIn(series)
  const quantileOf = (): number => 0.5
  const samples = [
    Array.from(replay({ watches: watchesOf(baselines), recording, rules: SCORING, quantileOf }), judgedSample),
  ]
  const stepSeconds = stepSecondsOf(recording.series[0]!.timesSeconds)!
  const pollIntervalSeconds = Math.min(stepSeconds, 30)
  const polls = pollsOf(samples, { pollIntervalSeconds, staleAfterSeconds: [0.999 * stepSeconds] })
  const elsewhere = { source: 'not', destination: 'watched' }
  const faults = windows.flatMap(({ start, end, expect, kind }): readonly FaultWindow[] => {
    if (expect === 'tolerate') return []
    // What it calls neither normal nor an event is here a fault that none of our pairs can see.
    const pairs = expect === 'incident' ? [] : [elsewhere]
    return [{ name: kind, fromSeconds: start, toSeconds: end, pairs }]
  })
  const ignored = ignore.map(([fromSeconds, toSeconds]) => ({ name: '-', fromSeconds, toSeconds, pairs: [elsewhere] }))
  const transients = windows
    .filter(({ expect }) => expect === 'tolerate')
    .map(({ start, end, kind }) => ({ name: kind, fromSeconds: start, toSeconds: end }))
  return measure({
    ...{ pairs: [PAIR], samples, polls, course: courseOf(polls, RULES) },
    truth: { faults: [...faults, ...ignored], transients },
    // Its windows say when the effect showed.
    rules: { pollIntervalSeconds, tailSeconds: 0, transientAfterSeconds: 300 },
  })
}

test(
  `backtest: what ${MODEL} is worth on ${DATASETS.join(' and ')} is what the shared scorer says`,
  { skip: existsSync(join(BENCH, 'score.mjs')) ? false : 'no recordings in ../shared/bench' },
  async (t) => {
    const out = join(temporaryFolder(t), 'scored.json')
    // A missing sample has a line of ours, which the scorer would take for a calm one.
    const detector = `"${process.execPath}" "${PROGRAM}" replay --model ${MODEL} {train} {series} | grep -v '"y":null'`
    const scorer = spawnSync(
      process.execPath,
      [
        ...[
          'score.mjs',
          '--datasets',
          DATASETS.join(','),
          '--threshold',
          '3',
          '--clear-threshold',
          '1',
          '--acc-max',
          '20',
        ],
        ...['--by-series', '--no-pr', '--out', out, '--detector', detector],
      ],
      { cwd: BENCH, encoding: 'utf8' },
    )
    assert.equal(scorer.status, 0, scorer.stderr)
    const [{ datasets } = { datasets: {} as Record<string, Scored> }] = JSON.parse(readFileSync(out, 'utf8')) as {
      readonly datasets: Readonly<Record<string, Scored>>
    }[]
    for (const dataset of DATASETS) {
      const { series } = JSON.parse(readFileSync(join(BENCH, 'public', dataset, 'manifest.json'), 'utf8')) as {
        readonly series: readonly Labelled[]
      }
      const scored = datasets[dataset]!
      const ours = await Promise.all(series.map(measuredHere))
      const events = ours.flatMap(({ faults }) => faults.filter(({ found }) => found !== null))
      const middle = (value: (event: FaultOutcome) => number | null): number | null => {
        const values = events.flatMap((event) => value(event) ?? [])
        return values.length === 0 ? null : median(values)
      }
      const transients = ours.flatMap((one) => one.transients)
      const share = (part: number, all: number): number | null => (all === 0 ? null : part / all)
      const falseIncidents = ours.reduce((sum, one) => sum + one.falseIncidents!, 0)
      assert.deepEqual(
        {
          recallAnomaly: share(events.filter((one) => one.toAnomalySeconds !== null).length, events.length),
          recallIncident: share(events.filter(({ found }) => found).length, events.length),
          toAnomalySeconds: middle((event) => event.toAnomalySeconds),
          toSev2Seconds: middle((event) => event.toSev2Seconds),
          toResolvedSeconds: middle((event) => event.toResolvedSeconds),
          normalDays: ours.reduce((sum, one) => sum + one.normalSeconds!, 0) / 86_400,
          falseIncidents,
          tolerated: share(transients.filter((one) => one.tolerated === true).length, transients.length),
          series: series.map(({ id }, i) => ({
            id,
            recall: ours[i]!.eventRecall,
            falseAnomalies: ours[i]!.falseAnomaliesPerThousand?.toFixed(6),
            falseIncidents: ours[i]!.falseIncidents,
          })),
        },
        {
          recallAnomaly: scored.recall_anomaly,
          recallIncident: scored.recall_incident,
          toAnomalySeconds: scored.ttd_anomaly_s,
          toSev2Seconds: scored.ttd_incident_s,
          toResolvedSeconds: scored.clear_s,
          normalDays: scored.normal_days,
          falseIncidents: scored.false_incidents,
          tolerated: scored.tolerated,
          series: scored.by_series.map((one) => ({
            id: one.id,
            recall: one.recall,
            falseAnomalies: one.fp_per_1000.toFixed(6),
            falseIncidents: one.false_incidents,
          })),
        },
        dataset,
      )
    }
  },
)
