import assert from 'node:assert/strict'
import test, { type TestContext } from 'node:test'

import { Registry } from 'prom-client'

import { parseCommandLine } from '../src/commands/command-line.js'
import { fitBaselines, MODELS, watchesOf } from '../src/commands/models.js'
import { replayCommand } from '../src/commands/replay.js'
import { createMonitor } from '../src/io/monitor.js'
import { readRecordingFile } from '../src/io/training-file.js'
import { fakeRuntime, matrixAnswer, vectorAnswer } from './helpers/fake-runtime.js'
import { runProgram } from './helpers/program.js'
import { CALM_MS, recordingOf, T0 } from './helpers/recordings.js'
import { temporaryFile } from './helpers/temporary-folder.js'

type Line = Readonly<Record<string, unknown>>

async function replayed(
  t: TestContext,
  series: string,
  args: readonly string[] = [],
  training = recordingOf(CALM_MS),
): Promise<readonly Line[]> {
  const files = [temporaryFile(t, training), temporaryFile(t, series)]
  const parsed = parseCommandLine({
    args: ['replay', ...files, ...args],
    environment: {},
    commands: [replayCommand],
    version: '1',
  })
  assert.ok(parsed.kind === 'job')
  const runtime = fakeRuntime([])
  assert.equal(await parsed.job.run(runtime), 0)
  const lines = runtime.written().split('\n')
  assert.equal(lines.pop(), '', 'the last line is ended')
  return lines.map((line) => JSON.parse(line) as Line)
}

const KEYS = ['t', 'y', 'yhat', 'y_min', 'y_max', 'anomaly', 'verdict', 'score']

test('replay: one line a sample, in time order, with exactly the keys of the contract', async (t) => {
  const values = [
    [T0 + 30, '500'],
    [T0, '10'],
    [T0 + 15, 'NaN'],
    [T0 + 45, '0'],
  ] as const
  const lines = await replayed(t, matrixAnswer([{ values }]))
  for (const line of lines) assert.deepEqual(Object.keys(line), KEYS)
  assert.deepEqual(
    lines.map(({ t: time, y, anomaly, verdict }) => [time, y, anomaly, verdict]),
    [
      [T0, 10, 0, 'ok'],
      [T0 + 15, null, null, 'no_data'],
      [T0 + 30, 500, 1, 'anomalous'],
      [T0 + 45, 0, 0, 'ok'],
    ],
  )
  const [first, missing, slow] = lines
  for (const line of [first, missing]) {
    const [low, middle, high] = ['y_min', 'yhat', 'y_max'].map((key) => Number(line?.[key]))
    assert.ok((low ?? 9) < 9 && (high ?? 0) > 11 && Math.abs((middle ?? 0) - 10) < 0.2, 'a missing sample has its band')
  }
  assert.deepEqual(
    lines.map(({ score }) => score === null),
    [false, true, false, false],
  )
  assert.ok(Number(slow?.['score']) > 1 && Number(slow?.['y_max']) < 500)
})

test('replay: times that are no whole seconds are kept as they are', async (t) => {
  const [line] = await replayed(t, matrixAnswer([{ values: [[1700000000.123, '10']] }]))
  assert.equal(line?.['t'], 1700000000.123)
})

test('replay: a sample with too little traffic is shown and not judged', async (t) => {
  const series = matrixAnswer([
    { values: [[T0, '500']] },
    { metric: { series: 'requests_per_second' }, values: [[T0, '0.01']] },
  ])
  const [line] = await replayed(t, series)
  assert.deepEqual(
    [line?.['y'], line?.['anomaly'], line?.['verdict'], line?.['score']],
    [500, null, 'low_traffic', null],
  )
  const [judged] = await replayed(t, series, ['--min-requests-per-second=0'])
  assert.deepEqual([judged?.['anomaly'], judged?.['verdict']], [1, 'anomalous'])
})

test('replay: --direction both finds what is too fast', async (t) => {
  const series = recordingOf([0.001])
  const above = await replayed(t, series)
  const both = await replayed(t, series, ['--direction=both'])
  assert.deepEqual([above[0]?.['anomaly'], both[0]?.['anomaly']], [0, 1])
})

test('replay: --incident prints the transitions behind the samples that made them', async (t) => {
  const values = [...Array.from({ length: 11 }, () => 500), 'NaN', 'NaN', ...Array.from({ length: 10 }, () => 10)]
  const lines = await replayed(t, recordingOf(values), ['--incident'])
  const transitions = lines.filter((line) => 'incident' in line)
  assert.equal(lines.length, values.length + 2)
  assert.deepEqual(transitions, [
    { t: T0 + 150, incident: 'opened', severity: 2, temperature: 11 },
    // 11, twice kept in silence, then 9, 7, 5.
    { t: T0 + 15 * 15, incident: 'resolved', severity: null, temperature: 5 },
  ])
  for (const transition of transitions) {
    const index = lines.indexOf(transition)
    assert.equal(lines[index - 1]?.['t'], transition['t'])
  }
})

/** Two quantiles and the request rate, which rises all the way beyond what the training below saw. */
function twoQuantiles(count: number, startSeconds: number, busiest: number): string {
  const at = Array.from({ length: count }, (_, i) => startSeconds + 15 * i)
  const rate = (i: number): number => 2 + (busiest - 2) * Math.abs(Math.sin(i / 9))
  const latency = (i: number, factor: number): string =>
    i % 17 === 5
      ? 'NaN'
      : String(i % 29 === 3 ? 0 : factor * (10 + rate(i)) * (1 + 0.1 * Math.sin(7 * i)) * (i % 41 === 0 ? 1e3 : 1))
  return matrixAnswer([
    ...[0.5, 0.95].map((quantile) => ({
      metric: { quantile: String(quantile) },
      values: at.map((time, i) => [time, latency(i, 4 * quantile)] as const),
    })),
    { metric: { series: 'requests_per_second' }, values: at.map((time, i) => [time, String(rate(i))] as const) },
  ])
}

for (const { name } of MODELS.filter((model) => model.name !== 'prophet')) {
  for (const { what, training, series } of [
    {
      what: 'one quantile',
      training: recordingOf(CALM_MS),
      // Decimals that no binary fraction hits, small, large, missing, and 0.
      series: recordingOf(
        Array.from({ length: 200 }, (_, i) =>
          i % 17 === 5
            ? 'NaN'
            : String(i % 29 === 3 ? 0 : 0.1 + 13.7 * Math.abs(Math.sin(i)) ** 5 * (i % 41 === 0 ? 1e4 : 1)),
        ),
      ),
    },
    { what: 'two quantiles and traffic', training: twoQuantiles(300, T0, 20), series: twoQuantiles(200, T0 + 1e5, 60) },
  ]) {
    test(`replay: the numbers of ${name} on ${what} are those of the monitor, bit for bit`, async (t) => {
      const lines = await replayed(t, series, ['--direction=both', `--model=${name}`], training)
      const baselines = fitBaselines(readRecordingFile(temporaryFile(t, training), 'F'), {
        model: name,
        quantiles: [],
        what: 'F',
      })
      assert.ok(!(baselines instanceof Promise))
      const { data } = JSON.parse(series) as {
        data: { result: { metric: Record<string, string>; values: [number, string][] }[] }
      }
      const count = data.result[0]?.values.length ?? 0
      const answers = Array.from({ length: count }, (_, i) =>
        vectorAnswer(
          data.result.map(({ metric, values }) => ({ metric, value: values[i]?.[1] ?? '' })),
          data.result[0]?.values[i]?.[0],
        ),
      )
      const runtime = fakeRuntime(answers)
      const { poll } = createMonitor(
        {
          pair: { source: 'a', destination: 'b' },
          prometheusUrl: 'http://p',
          query: 'up',
          quantiles: [...baselines.keys()],
          watches: watchesOf(baselines),
          rules: { direction: 'both', minRequestsPerSecond: 0.1, minDeviationMs: 0, minDeviationRatio: 0, sloMs: null },
          pollIntervalMs: 5_000,
          maxAgeSeconds: null,
        },
        runtime,
        new Registry(),
      )
      while (runtime.queries.length < count) await poll()
      const monitored = runtime.logged
        .filter(({ msg }) => msg === 'evaluated')
        .map(({ verdict, quantiles }) => [
          verdict,
          (quantiles as readonly Line[]).map((scored) => [
            scored['yMs'],
            scored['yhatMs'],
            scored['yMaxMs'],
            scored['score'],
          ]),
        ])
      assert.deepEqual(
        lines.map((line) => [
          line['verdict'],
          [line, ...((line['others'] as readonly Line[] | undefined) ?? [])]
            .filter(({ y }) => y !== null)
            .map(({ y, yhat, y_max: yMax, score }) => [y, yhat, yMax, score]),
        ]),
        monitored,
      )
      assert.deepEqual(new Set(monitored.map(([verdict]) => verdict)), new Set(['ok', 'anomalous', 'no_data']))
    })
  }
}

test('replay: several quantiles vote, the first in the keys of the contract and the others behind it', async (t) => {
  const lines = await replayed(t, twoQuantiles(6, T0 + 1e5, 5), [], twoQuantiles(300, T0, 20))
  assert.deepEqual(Object.keys(lines[0] ?? {}), [...KEYS, 'quantile', 'others'])
  const [other, ...more] = lines[0]?.['others'] as readonly Line[]
  assert.deepEqual([lines[0]?.['quantile'], other?.['quantile'], more], [0.5, 0.95, []])
  const only = await replayed(t, twoQuantiles(6, T0 + 1e5, 5), ['--quantile=0.95'], twoQuantiles(300, T0, 20))
  assert.deepEqual(Object.keys(only[0] ?? {}), KEYS)
  assert.deepEqual(
    only.map(({ yhat, y_max: yMax }) => [yhat, yMax]),
    lines.map(({ others }) => [(others as readonly Line[])[0]?.['yhat'], (others as readonly Line[])[0]?.['y_max']]),
  )
})

for (const { flags, anomaly } of [
  { flags: [], anomaly: 1 },
  { flags: ['--min-deviation-ms=100'], anomaly: 0 },
  { flags: ['--min-deviation-ratio=10'], anomaly: 0 },
  { flags: ['--min-deviation-ms=100', '--slo-ms=39'], anomaly: 1 },
  { flags: ['--min-deviation-ms=100', '--slo-ms=40'], anomaly: 0 },
]) {
  test(`replay: 40 ms where 10 are normal, ${flags.join(' ') || 'by the band alone'}: ${anomaly}`, async (t) => {
    const [line] = await replayed(t, recordingOf([40]), flags)
    assert.equal(line?.['anomaly'], anomaly)
  })
}

test('replay: the program writes lines to stdout, and its log to stderr', async (t) => {
  const training = temporaryFile(t, recordingOf(CALM_MS))
  const unsorted = temporaryFile(
    t,
    matrixAnswer([
      {
        values: [
          [T0 + 15, '10'],
          [T0, '10'],
        ],
      },
    ]),
  )
  const { code, stdout, stderr } = await runProgram(t, ['replay', training, unsorted])
  assert.equal(code, 0)
  assert.deepEqual(
    stdout
      .trim()
      .split('\n')
      .map((line) => (JSON.parse(line) as Line)['t']),
    [T0, T0 + 15],
  )
  assert.match(stderr, /samples out of order or double were put right/)
  const missing = await runProgram(t, ['replay', training, '/nowhere.json'])
  assert.deepEqual([missing.code, missing.stdout], [2, ''])
  assert.match(missing.stderr, /^meshfever: SERIES: \/nowhere\.json: no such file; /)
})
