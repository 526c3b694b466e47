/*
 * The pictures of docs/detection.md: latency in its band for a surge of traffic, a slow-down of 30 %, a ramp and a load cycle.
 * The requests are simulated, one by one, through Istio's histogram; the band is the product's.
 *
 *   npm run bench:detection-plots [-- FOLDER]        docs unless given
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { parse as parseVega, View } from 'vega'
import { compile, type TopLevelSpec } from 'vega-lite'

import { fitBaselines, watchesOf } from '../src/commands/models.js'
import type { Recording } from '../src/core/recording.js'
import { replay, type Replayed } from '../src/core/replay.js'
import { lognormal, type Random, seededRandom } from '../src/testbed/random.js'
import { cartserviceMs, simulatedPair, withoutRate } from '../test/helpers/simulated-pair.js'

const folder = process.argv[2] ?? 'docs'
const START_SECONDS = 1_700_000_000
const LATER = START_SECONDS + 7 * 86_400

const RULES = {
  direction: 'above',
  minRequestsPerSecond: 0.1,
  minDeviationMs: 0,
  minDeviationRatio: 0,
  sloMs: null,
} as const

interface Panel {
  readonly title: string
  readonly replayed: readonly Replayed[]
}

interface Stretch {
  readonly what: string
  readonly fromSeconds: number
  readonly toSeconds: number
}

/** Trains on the one and watches the other; no more than two hours of the watched one are shown. */
async function scored(training: Recording, stream: Recording): Promise<Replayed[]> {
  const baselines = await fitBaselines(training, { model: 'load-and-season', quantiles: [], what: 'the training' })
  return [...replay({ watches: watchesOf(baselines), recording: stream, rules: RULES, quantileOf: () => 0.5 })]
}

async function save(name: string, panels: readonly Panel[], stretches: readonly Stretch[]): Promise<void> {
  const x = {
    field: 'minutes',
    type: 'quantitative',
    title: 'minutes',
    scale: { nice: false },
    axis: { grid: false },
  }
  const y = { type: 'quantitative', title: 'p50, ms', scale: { type: 'log', nice: false }, axis: { gridOpacity: 0.4 } }
  const spec = {
    $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
    background: 'white',
    config: {
      axis: { labelFontSize: 11, titleFontSize: 11 },
      legend: { labelLimit: 320 },
      title: { anchor: 'start', fontSize: 13 },
    },
    vconcat: panels.map(({ title, replayed }) => {
      const rows = replayed.flatMap(({ timestampSeconds, evaluation }) => {
        const [scoredQuantile] = evaluation.quantiles
        if (scoredQuantile === undefined) return []
        const { yMs, yhatMs, yMinMs, yMaxMs, anomalous } = scoredQuantile
        const shown = { low: Number(yMinMs.toPrecision(4)), high: Number(yMaxMs.toPrecision(4)) }
        return [
          {
            minutes: (timestampSeconds - LATER) / 60,
            yMs,
            expected: Number(yhatMs.toPrecision(4)),
            ...shown,
            anomalous,
          },
        ]
      })
      return {
        width: 860,
        height: 180,
        title,
        layer: [
          {
            data: {
              values: stretches.map(({ what, fromSeconds, toSeconds }) => ({
                what,
                minutes: fromSeconds / 60,
                to: toSeconds / 60,
              })),
            },
            mark: { type: 'rect', opacity: 0.12 },
            encoding: {
              x,
              x2: { field: 'to' },
              color: { field: 'what', type: 'nominal', title: null, scale: { range: ['#7a7a7a', '#e08a00'] } },
            },
          },
          {
            data: { values: rows },
            layer: [
              {
                mark: { type: 'area', color: '#2c7fb8', opacity: 0.25 },
                encoding: { x, y: { field: 'low', ...y }, y2: { field: 'high' } },
              },
              {
                mark: { type: 'line', color: '#2c7fb8', strokeWidth: 1, strokeDash: [4, 3] },
                encoding: { x, y: { field: 'expected', ...y } },
              },
              {
                mark: { type: 'line', color: '#1f4e79', strokeWidth: 1.4 },
                encoding: { x, y: { field: 'yMs', ...y } },
              },
              {
                transform: [{ filter: 'datum.anomalous' }],
                mark: { type: 'point', color: '#c4314b', filled: true, size: 20, opacity: 1 },
                encoding: { x, y: { field: 'yMs', ...y } },
              },
            ],
          },
        ],
      }
    }),
  }
  const view = new View(parseVega(compile(spec as unknown as TopLevelSpec).spec), { renderer: 'none' })
  writeFileSync(join(folder, `${name}.svg`), await view.toSVG())
}

function within(seconds: number, { fromSeconds, toSeconds }: Stretch): boolean {
  return seconds >= LATER + fromSeconds && seconds < LATER + toSeconds
}

const random: Random = seededRandom(31)
const steadyMs = (from: Random): number => lognormal(from, { median: 12, sigma: 0.5 })

// --- a surge, and a delay in a second one
{
  const surge = { what: 'surge', fromSeconds: 1_200, toSeconds: 2_100 }
  const second = { what: 'surge', fromSeconds: 3_600, toSeconds: 4_800 }
  const fault = { what: 'delay fault', fromSeconds: 3_900, toSeconds: 4_500 }
  const trained = [1_500, 3_800, 5_100, 7_900, 9_600]
  const training = simulatedPair({
    rateAt: (at) => (trained.some((from) => at >= START_SECONDS + from && at < START_SECONDS + from + 180) ? 98 : 30),
    serviceMsAt: cartserviceMs,
    startSeconds: START_SECONDS,
    durationSeconds: 3 * 3_600,
    random,
  })
  const stream = simulatedPair({
    rateAt: (at) => (within(at, surge) || within(at, second) ? 100 : 30),
    serviceMsAt: cartserviceMs,
    delayMsAt: (at) => (within(at, fault) ? 200 : 0),
    startSeconds: LATER,
    durationSeconds: 5_400,
    random,
  })
  await save(
    'detection-surge',
    [
      { title: 'with the request rate', replayed: await scored(training, stream) },
      { title: 'the same without it', replayed: await scored(withoutRate(training), withoutRate(stream)) },
    ],
    [surge, second, fault],
  )
}

// --- thirty per cent, and a ramp
{
  const quiet = { rateAt: () => 8, startSeconds: START_SECONDS, durationSeconds: 2 * 3_600, random }
  const training = simulatedPair({ ...quiet, serviceMsAt: steadyMs })
  const slow = { what: 'requests take 30 % longer', fromSeconds: 2_400, toSeconds: 3_900 }
  await save(
    'detection-slow30',
    [
      {
        title: 'a slow-down of 30 %',
        replayed: await scored(
          withoutRate(training),
          withoutRate(
            simulatedPair({
              ...quiet,
              startSeconds: LATER,
              durationSeconds: 5_400,
              serviceMsAt: (from, at) => steadyMs(from) * (within(at, slow) ? 1.3 : 1),
            }),
          ),
        ),
      },
    ],
    [slow],
  )
  const rising = { what: 'requests take longer and longer, up to twice', fromSeconds: 1_800, toSeconds: 4_200 }
  await save(
    'detection-ramp',
    [
      {
        title: 'a ramp to twice the latency in 40 minutes',
        replayed: await scored(
          withoutRate(training),
          withoutRate(
            simulatedPair({
              ...quiet,
              startSeconds: LATER,
              durationSeconds: 5_400,
              serviceMsAt: (from, at) =>
                steadyMs(from) * (within(at, rising) ? 1 + (at - LATER - rising.fromSeconds) / 2_400 : 1),
            }),
          ),
        ),
      },
    ],
    [rising],
  )
}

// --- a load cycle
{
  const cycle = (at: number): number => 1 + 0.35 * Math.sin((2 * Math.PI * at) / 1_200)
  const fault = { what: 'requests take 60 % longer', fromSeconds: 4_200, toSeconds: 5_100 }
  const pair = {
    rateAt: () => 8,
    random,
    serviceMsAt: (from: Random, at: number) => steadyMs(from) * cycle(at) * (within(at, fault) ? 1.6 : 1),
  }
  const training = simulatedPair({ ...pair, startSeconds: START_SECONDS, durationSeconds: 2 * 3_600 })
  // The stream begins elsewhere in the cycle.
  const stream = simulatedPair({ ...pair, startSeconds: LATER, durationSeconds: 6_600 })
  await save(
    'detection-cycle',
    [
      {
        title: 'a load cycle of 20 minutes, whose phase is found from the stream',
        replayed: await scored(withoutRate(training), withoutRate(stream)),
      },
    ],
    [fault],
  )
}
