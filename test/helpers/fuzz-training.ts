import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import fc from 'fast-check'

import { loadAndSeason } from '../../src/core/baseline/load-and-season.js'
import {
  type Fitted,
  HOW_TO,
  type Judgement,
  type Model,
  type Observation,
  type Training,
  trainingOf,
} from '../../src/core/baseline/model.js'
import { staticMad, staticSigma } from '../../src/core/baseline/static.js'
import { RecordingError } from '../../src/core/errors.js'
import { readMeshRecording } from '../../src/core/mesh-recording.js'
import { pairKey } from '../../src/core/pair.js'
import { MAX_LATENCY_MS, missing, type Reading } from '../../src/core/reading.js'
import { readRecording } from '../../src/core/recording.js'
import { score, type ScoringRules } from '../../src/core/score.js'
import { parseAnswer, ShapeError } from '../../src/core/series.js'
import { prophet } from '../../src/io/prophet.js'
import { readRecordingFile } from '../../src/io/training-file.js'
import { matrixAnswer } from './fake-runtime.js'
import { type FuzzProperty, property } from './fuzz.js'
import { damaged, latencyMs, matrixDocument, timeNumber, valueText } from './fuzz-inputs.js'
import { packageRoot } from './package-root.js'

const T0 = 1_700_000_000
const DAY_SECONDS = 86_400
const MODELS: readonly Model[] = [loadAndSeason, staticSigma, staticMad]

const folder = mkdtempSync(join(tmpdir(), 'meshfever-fuzz-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
const path = join(folder, 'training.json')
const WHAT = `--training-data-file: ${path}`

/** Recordings that people have. */
const RECORDED = [
  ...readdirSync(join(packageRoot(), 'training'))
    .filter((name) => name.endsWith('.json'))
    .slice(0, 3)
    .map((name) => readFileSync(join(packageRoot(), 'training', name))),
  Buffer.from(
    matrixAnswer([
      { metric: { quantile: '0.5' }, values: Array.from({ length: 40 }, (_, i) => [T0 + 15 * i, String(8 + (i % 5))]) },
      {
        metric: { quantile: '0.99' },
        values: Array.from({ length: 40 }, (_, i) => [T0 + 15 * i, i % 7 === 0 ? 'NaN' : '24.5']),
      },
      {
        metric: { series: 'requests_per_second' },
        values: Array.from({ length: 40 }, (_, i) => [T0 + 15 * i, String(i % 9)]),
      },
    ]),
  ),
]

/** Almost a recording that can be trained on. */
const trainable: fc.Arbitrary<Buffer> = fc
  .array(
    fc.record({
      metric: fc.constantFrom<Readonly<Record<string, string>>>(
        {},
        { quantile: '0.5' },
        { quantile: '0.99' },
        { series: 'requests_per_second' },
        { series: 'odd' },
        { quantile: '1' },
      ),
      values: fc.array(
        fc.tuple(
          fc.oneof(
            { weight: 60, arbitrary: fc.integer({ min: T0, max: T0 + 5_000 }) },
            { weight: 1, arbitrary: timeNumber },
          ),
          fc.oneof({ weight: 30, arbitrary: latencyMs.map(String) }, { weight: 1, arbitrary: valueText }),
        ),
        { minLength: 20, maxLength: 90 },
      ),
    }),
    { minLength: 1, maxLength: 3 },
  )
  .map((result) => Buffer.from(JSON.stringify({ status: 'success', data: { resultType: 'matrix', result } })))

const files = fc.oneof(
  { weight: 4, arbitrary: damaged([...RECORDED, '', '\x1f\x8b']) },
  { weight: 4, arbitrary: trainable },
  { weight: 1, arbitrary: matrixDocument.map((document) => Buffer.from(JSON.stringify(document))) },
)

const steps = fc.oneof(
  fc.constantFrom(15, 5, 60, 300, 0.001, DAY_SECONDS),
  fc.double({ min: 0.01, max: 100_000, noNaN: true }),
)

const shape: fc.Arbitrary<(i: number) => number> = fc.oneof(
  latencyMs.map((level) => () => level),
  fc.tuple(latencyMs, latencyMs).map(
    ([a, b]) =>
      (i: number) =>
        i % 2 === 0 ? a : b,
  ),
  fc.tuple(fc.double({ min: 1, max: 1_000, noNaN: true }), fc.integer({ min: 2, max: 40 })).map(
    ([level, period]) =>
      (i: number) =>
        level * (1 + 0.5 * Math.sin((2 * Math.PI * i) / period)),
  ),
  fc.array(latencyMs, { minLength: 1, maxLength: 60 }).map((values) => (i: number) => values[i % values.length]!),
)

const rate = fc.oneof(fc.constantFrom(0, NaN, 1e-9, 1e9, 1e300, 5e-324), fc.double({ min: 0, max: 1_000, noNaN: true }))

/** Anything that the interface allows: times that rise, latencies of any size, rates that are known or not. */
const training: fc.Arbitrary<Training> = fc
  .record({
    length: fc.oneof(fc.integer({ min: 30, max: 80 }), fc.integer({ min: 30, max: 250 })),
    start: fc.constantFrom(0, T0, 1e11 - 1e9),
    step: steps,
    gaps: fc.dictionary(fc.integer({ min: 0, max: 249 }).map(String), fc.constantFrom(3_600, DAY_SECONDS, 0.5, 1e7), {
      maxKeys: 3,
    }),
    latency: shape,
    rates: fc.oneof(
      fc.constant(null),
      fc.array(rate, { minLength: 1, maxLength: 20 }),
      shape.map((at) => Array.from({ length: 40 }, (_, i) => at(i))),
    ),
  })
  .map(({ length, start, step, gaps, latency, rates }) => {
    const timesSeconds: number[] = []
    let time = start
    for (let i = 0; i < length; i++) {
      const next: number = time + step + (gaps[String(i)] ?? 0)
      time = next > time ? next : time + 1
      timesSeconds.push(time)
    }
    return {
      timesSeconds,
      latenciesMs: timesSeconds.map((_, i) => latency(i)),
      requestsPerSecond: rates === null ? null : timesSeconds.map((_, i) => rates[i % rates.length]!),
    }
  })

/** What comes after the training, in time order or not. */
const stream: fc.Arbitrary<readonly Observation[]> = fc
  .array(
    fc.record({
      elapsed: fc.oneof(fc.constantFrom(0, 5, 15, -60, 3_600, 1e7), fc.double({ min: 0, max: 300, noNaN: true })),
      latencyMs: fc.oneof({ weight: 4, arbitrary: latencyMs }, { weight: 1, arbitrary: fc.constant(null) }),
      requestsPerSecond: fc.oneof(fc.constant(null), rate.filter(Number.isFinite)),
    }),
    { minLength: 1, maxLength: 25 },
  )
  .map((polls) => {
    let timestampSeconds = T0 + 10_000
    return polls.map(({ elapsed, ...poll }) => {
      timestampSeconds = Math.max(0, timestampSeconds + elapsed)
      return { ...poll, timestampSeconds }
    })
  })

const rules: fc.Arbitrary<ScoringRules> = fc.record({
  direction: fc.constantFrom('above', 'both'),
  minRequestsPerSecond: fc.constantFrom(0, 0.1, 1e9),
  minDeviationMs: fc.constantFrom(0, 1, 1e9),
  minDeviationRatio: fc.constantFrom(0, 0.1, 10),
  sloMs: fc.constantFrom(null, 1e-9, 100, 1e9),
})

function checkJudgement(judgement: Judgement): void {
  const { yhatMs, yMinMs, yMaxMs, deviation, driftRatio } = judgement
  const told = JSON.stringify({ ...judgement, deviation: String(deviation) })
  assert.ok([yhatMs, yMinMs, yMaxMs, deviation].every(Number.isFinite), told)
  assert.ok(yMinMs >= 0 && yMinMs <= yhatMs && yhatMs <= yMaxMs, told)
  assert.ok(driftRatio === null || (Number.isFinite(driftRatio) && driftRatio > 0), told)
}

function readingOf({ timestampSeconds, latencyMs: ms, requestsPerSecond }: Observation): Reading {
  if (ms === null) return missing('nonfinite', 'no requests', { timestampSeconds, requestsPerSecond })
  const sample = { timestampSeconds, latencies: [{ quantile: 0.5, latencyMs: ms }], requestsPerSecond }
  return { kind: 'sample', outcome: 'ok', sample }
}

/** Everything that a model says of a stream, and what is made of it, is a number; bands are in order. */
function checkFitted(fitted: Fitted, observations: readonly Observation[], scoring: ScoringRules): void {
  assert.doesNotMatch(fitted.summary, /NaN|undefined|\n/)
  const watch = fitted.watch()
  for (const observation of observations) checkJudgement(watch.judge(observation))
  const watches = [{ quantile: 0.5, watch: fitted.watch() }]
  for (const observation of observations) {
    const { quantiles, verdict, anomalyCount } = score(watches, readingOf(observation), scoring)
    assert.equal(anomalyCount === null, verdict !== 'ok' && verdict !== 'anomalous')
    for (const scored of quantiles) {
      const { yhatMs, yMinMs, yMaxMs, maeMs, mape, score: distance } = scored
      assert.ok([yhatMs, yMinMs, yMaxMs].every(Number.isFinite), JSON.stringify(scored))
      assert.ok(yMinMs >= 0 && yMinMs <= yhatMs && yhatMs <= yMaxMs, JSON.stringify(scored))
      for (const value of [maeMs, mape, distance])
        assert.ok(value === null || (Number.isFinite(value) && value >= 0), JSON.stringify(scored))
    }
  }
}

/** @returns undefined for a RecordingError that says which file, and how to get a good one */
function recorded<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch (error) {
    assert.ok(error instanceof RecordingError, String(error))
    assert.ok(error.message.startsWith(WHAT), error.message)
    assert.ok(error.message.endsWith(HOW_TO), error.message)
    return undefined
  }
}

export const properties: readonly FuzzProperty[] = [
  property(
    { name: 'a training file trains every model, or is refused with its name', runs: 1_500 },
    fc.tuple(files, stream, rules),
    async ([bytes, observations, scoring]) => {
      writeFileSync(path, bytes)
      const recording = recorded(() => readRecordingFile(path, '--training-data-file'))
      if (recording === undefined) return
      for (const series of recording.series) {
        const { timesSeconds, latenciesMs, requestsPerSecond } = series
        timesSeconds.forEach((time, i) => assert.ok(i === 0 || time > timesSeconds[i - 1]!))
        assert.equal(latenciesMs.length, timesSeconds.length)
        for (const ms of latenciesMs) assert.ok(Number.isNaN(ms) || (ms >= 0 && ms <= MAX_LATENCY_MS))
        for (const value of requestsPerSecond ?? [])
          assert.ok(Number.isNaN(value) || (value >= 0 && Number.isFinite(value)))
        for (const model of MODELS) {
          const samples = recorded(() => trainingOf(series, model, WHAT))
          if (samples !== undefined) checkFitted(await model.fit(samples), observations, scoring)
        }
      }
    },
  ),

  property(
    { name: 'whatever the training, a model says numbers, in bands that are in order', runs: 1_500 },
    fc.tuple(training, stream, rules),
    async ([samples, observations, scoring]) => {
      for (const model of MODELS) checkFitted(await model.fit(samples), observations, scoring)
    },
  ),

  property({ name: 'a recording of a mesh loses no edge', runs: 2_000 }, matrixDocument, (document) => {
    let read
    let matrix
    try {
      matrix = parseAnswer(JSON.parse(JSON.stringify(document)), 'matrix')
      read = readMeshRecording(matrix, { sourceLabel: 'source_app', destinationLabel: 'destination_app' })
    } catch (error) {
      assert.ok(error instanceof ShapeError, String(error))
      assert.match(error.message, /expected|status is "error"/)
      return
    }
    const wanted = new Set(
      matrix.result.map(({ labels }) =>
        pairKey({ source: labels.get('source_app') ?? '', destination: labels.get('destination_app') ?? '' }),
      ),
    )
    const found = [...read.edges, ...read.unusable].map(({ pair }) => pairKey(pair))
    assert.deepEqual(found.sort(), [...wanted].sort())
    for (const { reason } of read.unusable) assert.ok(reason.length <= 1_000, `${reason.length} characters`)
    for (const { recording } of read.edges) assert.ok(recording.series.length > 0)
    try {
      readRecording(matrix)
    } catch (error) {
      assert.ok(error instanceof ShapeError, String(error))
    }
  }),

  // A second of WebAssembly each.
  property(
    { name: 'prophet says numbers, in bands that are in order, or that it cannot be fitted', runs: 3 },
    fc.tuple(training, stream, rules),
    async ([samples, observations, scoring]) => {
      let fitted
      try {
        fitted = await prophet.fit(samples)
      } catch (error) {
        assert.ok(error instanceof RecordingError, String(error))
        return
      }
      checkFitted(fitted, observations, scoring)
    },
  ),
]
