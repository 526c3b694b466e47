/*
 * What scoring costs: fitting each model on a week of samples, judging a sample once it is fitted, and `meshfever replay` of a
 * million samples. Each is also shown as a multiple of the speed of Prophet's own prediction of one sample, which is what the
 * original asked for at each poll.
 *
 *   npm run bench:speed [-- --models a,b]
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

import { median } from 'simple-statistics'

import { MODELS } from '../src/commands/models.js'
import type { Fitted, Model, Observation, Training } from '../src/core/baseline/model.js'
import { score, type ScoringRules } from '../src/core/score.js'
import type { Reading } from '../src/core/reading.js'
import { fitWithLibrary } from '../src/io/prophet-library.js'
import { lognormal, seededRandom } from '../src/testbed/random.js'
import { benchRuntime } from './runtime.js'

const DAY_SECONDS = 86_400
const START_SECONDS = 1_700_000_000
const STEP_SECONDS = 30
const WEEK = (7 * DAY_SECONDS) / STEP_SECONDS
const FITS = 5
const JUDGED = 200_000
const REPLAYED = 1_000_000

/** Traffic and latency that makes a model choose each of its shapes. */
const SHAPES = {
  level: () => ({ latencyMs: 20, requestsPerSecond: null }),
  day: (t: number) => ({
    latencyMs: 100 * Math.exp(0.4 * Math.sin((2 * Math.PI * t) / DAY_SECONDS)),
    requestsPerSecond: null,
  }),
  cycle: (t: number) => ({
    latencyMs: 4 * Math.exp(0.3 * Math.sin((2 * Math.PI * t) / 1_200)),
    requestsPerSecond: null,
  }),
  longCycle: (t: number) => ({
    latencyMs: 4 * Math.exp(0.3 * Math.sin((2 * Math.PI * t) / 7_200)),
    requestsPerSecond: null,
  }),
  rate: (t: number) => {
    const requestsPerSecond = 5 * Math.exp(0.5 * Math.sin(t / 9_000) + 0.3 * Math.sin(t / 1_117))
    return { latencyMs: 10 + requestsPerSecond, requestsPerSecond }
  },
} as const satisfies Record<string, (t: number) => { latencyMs: number; requestsPerSecond: number | null }>

const RULES: ScoringRules = {
  direction: 'above',
  minRequestsPerSecond: 0.1,
  minDeviationMs: 0,
  minDeviationRatio: 0,
  sloMs: null,
}

const { values: options } = parseArgs({
  options: { models: { type: 'string', default: MODELS.map(({ name }) => name).join(',') } },
})
const wanted = options.models.split(',')
const models: readonly Model[] = MODELS.filter(({ name }) => wanted.includes(name))

function stream(shape: keyof typeof SHAPES, samples: number, startSeconds: number): Observation[] {
  const random = seededRandom(7)
  return Array.from({ length: samples }, (_, i) => {
    const timestampSeconds = startSeconds + i * STEP_SECONDS
    const { latencyMs, requestsPerSecond } = SHAPES[shape](timestampSeconds)
    return {
      timestampSeconds,
      latencyMs: latencyMs * lognormal(random, { median: 1, sigma: 0.08 }),
      requestsPerSecond,
    }
  })
}

function trainingOn(observations: readonly Observation[]): Training {
  const rates = observations.map(({ requestsPerSecond }) => requestsPerSecond ?? NaN)
  return {
    timesSeconds: observations.map(({ timestampSeconds }) => timestampSeconds),
    latenciesMs: observations.map(({ latencyMs }) => latencyMs ?? NaN),
    requestsPerSecond: rates.some(Number.isNaN) ? null : rates,
  }
}

async function fitting(model: Model, training: Training): Promise<{ fitted: Fitted; milliseconds: number }> {
  let fitted = await model.fit(training)
  const spent: number[] = []
  for (let i = 0; i < FITS && spent.reduce((a, b) => a + b, 0) < 20_000; i++) {
    const from = performance.now()
    fitted = await model.fit(training)
    spent.push(performance.now() - from)
  }
  return { fitted, milliseconds: median(spent) }
}

/** Microseconds a sample, of the fastest of three passes: others use this machine, too. */
function judging(observations: readonly Observation[], judge: (observation: Observation) => unknown): number {
  const passes = [0, 1, 2].map((pass) => {
    const size = observations.length / 3
    const part = observations.slice(pass * size, (pass + 1) * size)
    const from = performance.now()
    for (const observation of part) judge(observation)
    return (1000 * (performance.now() - from)) / part.length
  })
  return Math.min(...passes)
}

/** Microseconds of Prophet's own prediction of one sample, with its interval of 1,000 draws: the median of several. */
async function libraryPrediction(): Promise<number> {
  const training = trainingOn(stream('cycle', WEEK, START_SECONDS))
  const { prophet } = await fitWithLibrary(training, { uncertaintySamples: 1_000 })
  const spent = Array.from({ length: 20 }, (_, i) => {
    const from = performance.now()
    prophet.predict({ ds: [START_SECONDS + 30 * DAY_SECONDS + i * STEP_SECONDS] })
    return 1000 * (performance.now() - from)
  })
  return median(spent)
}

function readingOf({ timestampSeconds, latencyMs, requestsPerSecond }: Observation): Reading {
  const latencies = [{ quantile: 0.5, latencyMs: latencyMs ?? 0 }]
  return { kind: 'sample', outcome: 'ok', sample: { timestampSeconds, latencies, requestsPerSecond } }
}

function matrix(observations: readonly Observation[]): string {
  const values = observations.map(({ timestampSeconds, latencyMs }) => [
    timestampSeconds,
    String(latencyMs?.toFixed(4)),
  ])
  return JSON.stringify({ status: 'success', data: { resultType: 'matrix', result: [{ metric: {}, values }] } })
}

async function replaying(model: string, files: readonly string[]): Promise<number> {
  const { nodePath, scriptPath } = benchRuntime().program
  const from = performance.now()
  const child = spawn(nodePath, [scriptPath, 'replay', '--model', model, ...files], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let bytes = 0
  child.stdout.on('data', (data: Buffer) => (bytes += data.length))
  const [code] = (await once(child, 'close')) as [number | null]
  if (code !== 0 || bytes === 0) throw new Error(`replay ended with ${code ?? 'a signal'} after ${bytes} bytes`)
  return (performance.now() - from) / 1000
}

const folder = mkdtempSync(join(tmpdir(), 'meshfever-speed-'))
try {
  const measured = []
  for (const model of models) {
    for (const shape of Object.keys(SHAPES) as (keyof typeof SHAPES)[]) {
      const training = trainingOn(stream(shape, WEEK, START_SECONDS))
      const { fitted, milliseconds } = await fitting(model, training)
      const live = stream(shape, JUDGED, START_SECONDS + 30 * DAY_SECONDS)
      const watch = fitted.watch()
      const scored = fitted.watch()
      measured.push({
        model: model.name,
        shape,
        found: fitted.summary,
        fitMs: round(milliseconds),
        judgeMicroseconds: round(judging(live, (sample) => watch.judge(sample))),
        scoreMicroseconds: round(
          judging(live, (sample) => score([{ quantile: 0.5, watch: scored }], readingOf(sample), RULES)),
        ),
      })
    }
  }
  const files = ['training', 'series'].map((name) => join(folder, `${name}.json`))
  writeFileSync(files[0] ?? '', matrix(stream('cycle', WEEK, START_SECONDS)))
  writeFileSync(files[1] ?? '', matrix(stream('cycle', REPLAYED, START_SECONDS + 30 * DAY_SECONDS)))
  const replays = []
  for (const { name } of models) {
    replays.push({ model: name, samples: REPLAYED, replaySeconds: round(await replaying(name, files)) })
  }
  const predictMicroseconds = await libraryPrediction()
  console.log(
    JSON.stringify(
      {
        trainingSamples: WEEK,
        stepSeconds: STEP_SECONDS,
        prophetPredictMicroseconds: round(predictMicroseconds),
        measured: measured.map((row) => ({
          ...row,
          timesFasterThanProphetPredicts: round(predictMicroseconds / row.scoreMicroseconds),
        })),
        replays,
      },
      null,
      2,
    ),
  )
} finally {
  rmSync(folder, { recursive: true, force: true })
}

function round(value: number): number {
  return Number(value.toPrecision(3))
}
