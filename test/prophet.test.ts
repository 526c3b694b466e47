import assert from 'node:assert/strict'
import { performance } from 'node:perf_hooks'
import test from 'node:test'

import { type Fitted, type Judgement, type Training, trainingOf, type Watch } from '../src/core/baseline/model.js'
import { RecordingError } from '../src/core/errors.js'
import { prophet } from '../src/io/prophet.js'
import { fitWithLibrary } from '../src/io/prophet-library.js'
import { readRecordingFile } from '../src/io/training-file.js'
import { lognormal, seededRandom } from '../src/testbed/random.js'
import { matrixAnswer } from './helpers/fake-runtime.js'
import { runProgram } from './helpers/program.js'
import { recordingOf, T0 } from './helpers/recordings.js'
import { temporaryFile } from './helpers/temporary-folder.js'

function trainingWith(latenciesMs: readonly number[], stepSeconds = 15): Training {
  return { timesSeconds: latenciesMs.map((_, i) => T0 + stepSeconds * i), latenciesMs, requestsPerSecond: null }
}

/** Two hours that follow the hour, with scatter. */
function hourly(count: number, stepSeconds = 15): readonly number[] {
  const random = seededRandom(7)
  return Array.from(
    { length: count },
    (_, i) =>
      (20 + 5 * Math.sin((2 * Math.PI * stepSeconds * i) / 3_600)) * lognormal(random, { median: 1, sigma: 0.1 }),
  )
}

const HOURLY = trainingWith(hourly(480))

async function fit(training: Training): Promise<Fitted> {
  return await prophet.fit(training)
}

function judge(watch: Watch, timestampSeconds: number, latencyMs: number | null = 20): Judgement {
  return watch.judge({ timestampSeconds, latencyMs, requestsPerSecond: null })
}

test('prophet: what is normal is what the library predicts', async () => {
  const { prophet: library } = await fitWithLibrary(HOURLY, { uncertaintySamples: 20_000 })
  // A prime step: phases of the hour that the training did not have, over a day.
  const ds = Array.from({ length: 200 }, (_, i) => T0 + 433 * i)
  const { point, intervals } = library.predict({ ds }).yhat
  assert.equal(intervals?.level, 0.99)
  const watch = (await fit(HOURLY)).watch()
  const ratios = ds.map((t, i) => {
    const { yhatMs, yMinMs, yMaxMs } = judge(watch, t)
    const expected = point[i]!
    assert.ok(Math.abs(yhatMs - expected) <= 1e-6 * expected, `yhat at ${t}: ${yhatMs} is not ${expected}`)
    return [(yMaxMs - yhatMs) / (intervals.upper[i]! - expected), (yhatMs - yMinMs) / (expected - intervals.lower[i]!)]
  })
  // A 0.5 % quantile of 20 000 draws has a standard error of 1.4 %; the mean of 400 of them one of 0.07 %.
  for (const ratio of ratios.flat()) assert.ok(Math.abs(ratio - 1) < 0.07, `the band is ${ratio} of the library's`)
  const mean = ratios.flat().reduce((sum, ratio) => sum + ratio, 0) / (2 * ratios.length)
  assert.ok(Math.abs(mean - 1) < 0.005, `the band is ${mean} of the library's on average`)
})

test('prophet: two fits of one training are the same, to the last digit', async () => {
  const [one, two] = await Promise.all([fit(HOURLY), fit(HOURLY)])
  assert.equal(one.summary, two.summary)
  assert.deepEqual(judge(one.watch(), T0), judge(two.watch(), T0))
})

test('prophet: a stream begins where the training began, whenever it begins', async () => {
  const fitted = await fit(HOURLY)
  const [past, later] = [fitted.watch(), fitted.watch()]
  for (const t of [0, 15, 900, 3_600, 86_400]) assert.deepEqual(judge(later, T0 + 1_234_567.8 + t), judge(past, T0 + t))
})

test('prophet: the stream begins with its first sample, not with what was missing before', async () => {
  const fitted = await fit(HOURLY)
  const [watch, started] = [fitted.watch(), fitted.watch()]
  const start = judge(started, T0)
  assert.deepEqual(judge(watch, T0 + 1_000, null), { ...start, deviation: 0 })
  assert.deepEqual(judge(watch, T0 + 1_700, null), { ...start, deviation: 0 })
  assert.deepEqual(judge(watch, T0 + 5_000), start)
  assert.deepEqual(judge(watch, T0 + 5_300, null), { ...judge(started, T0 + 300), deviation: 0 })
})

test('prophet: nothing is learnt from the stream, and the judgement is linear in the band', async () => {
  const watch = (await fit(HOURLY)).watch()
  const before = judge(watch, T0)
  for (let i = 0; i < 1_000; i++) judge(watch, T0 + 15 * i, 500)
  assert.deepEqual(judge(watch, T0), before)
  const { yhatMs, yMinMs, yMaxMs } = before
  assert.deepEqual(
    [yhatMs, yMinMs, yMaxMs].map((latencyMs) => judge(watch, T0, latencyMs).deviation),
    [0, -1, 1],
  )
  assert.deepEqual([before.driftRatio, before.beyondTraining], [null, false])
})

test('prophet: the event loop idles while a week is fitted', async () => {
  const week = trainingWith(hourly(20_160, 30), 30)
  const before = performance.eventLoopUtilization()
  const fitting = fit(week)
  const { summary } = await fitting
  const { utilization } = performance.eventLoopUtilization(before)
  assert.match(summary, /^a level of 20\.\d+ ms and an hourly swing of 1\d\.\d ms; band \+-5\.\d+ ms$/)
  assert.ok(utilization < 0.5, `the event loop was busy for ${utilization} of the time`)
})

const ROUGH = [3, 9, 4, 200, 5, 3, 7, 4, 6, 30]
const GAPPY = hourly(480).flatMap((latencyMs, i) =>
  i % 7 < 3 || (i > 100 && i < 250) ? [] : [[i, latencyMs] as const],
)

for (const { what, training } of [
  { what: 'a flat recording', training: trainingWith(Array<number>(100).fill(3)) },
  {
    what: 'a recording flat but for rounding',
    training: trainingWith(Array.from({ length: 200 }, (_, i) => 3 + 1e-12 * (i % 3))),
  },
  { what: 'zeros', training: trainingWith(Array<number>(100).fill(0)) },
  { what: 'zeros and one latency', training: trainingWith(Array.from({ length: 60 }, (_, i) => (i === 30 ? 5 : 0))) },
  {
    what: 'a recording much shorter than the hour',
    training: trainingWith(Array.from({ length: 30 }, (_, i) => ROUGH[i % 10]!)),
  },
  {
    what: 'a recording with gaps',
    training: {
      timesSeconds: GAPPY.map(([i]) => T0 + 15 * i),
      latenciesMs: GAPPY.map(([, y]) => y),
      requestsPerSecond: null,
    },
  },
  {
    what: 'times that are no whole seconds',
    training: { ...HOURLY, timesSeconds: HOURLY.timesSeconds.map((t) => t + 0.5 + (t % 0.3)) },
  },
  { what: 'the largest latencies', training: trainingWith(hourly(120).map((y) => 1e6 * y)) },
]) {
  test(`prophet: ${what}: finite, in order, not below 0`, async () => {
    const watch = (await fit(training)).watch()
    for (let t = 0; t < 7_200; t += 45) {
      for (const latencyMs of [null, 0, 1, 3, 1e9]) {
        const { yhatMs, yMinMs, yMaxMs, deviation } = judge(watch, T0 + 1e6 + t, latencyMs)
        assert.ok([yhatMs, yMinMs, yMaxMs, deviation].every(Number.isFinite))
        assert.ok(0 <= yMinMs && yMinMs <= yhatMs && yhatMs <= yMaxMs, `${yMinMs} ${yhatMs} ${yMaxMs}`)
      }
    }
  })
}

test('prophet: a flat recording is taken at its word, as by the original', async () => {
  const watch = (await fit(trainingWith(Array<number>(100).fill(3)))).watch()
  assert.equal(judge(watch, T0, 3).deviation, 0)
  assert.ok(judge(watch, T0 + 15, 3.01).deviation > 1)
})

for (const { what, training, reason } of [
  {
    what: 'that is a sine to the last digit',
    training: trainingWith(Array.from({ length: 480 }, (_, i) => 3 * (1 + 1e-6 * Math.sin((2 * Math.PI * i) / 240)))),
    reason: /Line search failed/,
  },
  {
    what: 'that lasts no second',
    training: { ...HOURLY, timesSeconds: HOURLY.timesSeconds.map((_, i) => T0 + i / 1e4) },
    reason: /Not enough data/,
  },
]) {
  test(`prophet: a recording ${what} is refused with the library's reason`, async () => {
    await assert.rejects(
      async () => fit(training),
      (error) => {
        assert.ok(error instanceof RecordingError)
        assert.match(error.message, /^prophet could not be fitted to the training data: .*; record a good one with/)
        assert.match(error.message, reason)
        return true
      },
    )
  })
}

test('prophet: a training that is too short says how much more it needs', (t) => {
  const { series } = readRecordingFile(temporaryFile(t, recordingOf(hourly(12))), 'F')
  assert.throws(
    () => trainingOf(series[0]!, prophet, 'F'),
    new RegExp('^RecordingError: F: too few values to train prophet on: at least 30 needed, got 12, 18 more; '),
  )
})

test('prophet: order and doubles in the file change nothing', async (t) => {
  const values = hourly(240).map((y, i): [number, string] => [T0 + 15 * i, String(y)])
  const shuffled = [...values, ...values.slice(30, 60)].map((value, i, all) => all[(i * 101) % all.length] ?? value)
  const [tidy, untidy] = await Promise.all(
    [values, shuffled].map(async (given) => {
      const { series } = readRecordingFile(temporaryFile(t, matrixAnswer([{ values: given }])), 'F')
      return await fit(trainingOf(series[0]!, prophet, 'F'))
    }),
  )
  assert.deepEqual(judge(untidy!.watch(), T0), judge(tidy!.watch(), T0))
})

test('prophet: replay scores every sample, and the program ends by itself', async (t) => {
  const training = temporaryFile(t, recordingOf(hourly(240)))
  const series = temporaryFile(t, recordingOf([...hourly(20), 500]))
  const { code, stdout, stderr } = await runProgram(t, ['replay', '--model=prophet', training, series])
  assert.deepEqual({ code, stderr }, { code: 0, stderr: '' })
  const lines = stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as { readonly anomaly: number })
  assert.equal(lines.length, 21)
  assert.equal(lines.at(-1)?.anomaly, 1)
})
