import assert from 'node:assert/strict'
import test, { type TestContext } from 'node:test'

import { Registry } from 'prom-client'

import { parseCommandLine } from '../src/commands/command-line.js'
import { fitBaselines } from '../src/commands/monitor.js'
import { replayCommand } from '../src/commands/replay.js'
import { createMonitor } from '../src/io/monitor.js'
import { readRecordingFile } from '../src/io/training-file.js'
import { fakeRuntime, matrixAnswer, vectorAnswer } from './helpers/fake-runtime.js'
import { runProgram } from './helpers/program.js'
import { CALM_MS, recordingOf, T0 } from './helpers/recordings.js'
import { temporaryFile } from './helpers/temporary-folder.js'

type Line = Readonly<Record<string, unknown>>

async function replayed(t: TestContext, series: string, args: readonly string[] = []): Promise<readonly Line[]> {
  const files = [temporaryFile(t, recordingOf(CALM_MS)), temporaryFile(t, series)]
  const parsed = parseCommandLine({
    args: ['replay', ...files, '--model=robust-band', ...args],
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
  const band = (line: Line | undefined): readonly unknown[] => ['yhat', 'y_min', 'y_max'].map((key) => line?.[key])
  assert.deepEqual(band(missing), band(first), 'a missing sample has its band')
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

test('replay: the numbers are those of the monitor, bit for bit', async (t) => {
  // Decimals that no binary fraction hits, small, large, missing, and 0.
  const texts = Array.from({ length: 200 }, (_, i) =>
    i % 17 === 5
      ? 'NaN'
      : String(i % 29 === 3 ? 0 : 0.1 + 13.7 * Math.abs(Math.sin(i)) ** 5 * (i % 41 === 0 ? 1e4 : 1)),
  )
  const lines = await replayed(t, recordingOf(texts), ['--direction=both'])
  const recording = readRecordingFile(temporaryFile(t, recordingOf(CALM_MS)), 'F')
  const baselines = fitBaselines(recording, { model: 'robust-band', quantile: 0.5, what: 'F' })
  const runtime = fakeRuntime(texts.map((value, i) => vectorAnswer([{ metric: {}, value }], T0 + 15 * i)))
  const { poll } = createMonitor(
    {
      pair: { source: 'a', destination: 'b' },
      prometheusUrl: 'http://p',
      query: 'up',
      quantiles: [0.5],
      baselines,
      rules: { direction: 'both', minRequestsPerSecond: 0.1 },
      pollIntervalMs: 5_000,
      maxAgeSeconds: null,
    },
    runtime,
    new Registry(),
  )
  while (runtime.queries.length < texts.length) await poll()
  const monitored = runtime.logged.map(({ verdict, anomalyCount, quantiles }) => {
    const [scored] = quantiles as readonly Line[]
    return [verdict, anomalyCount, scored?.['yMs'] ?? null, scored?.['score'] ?? null, scored?.['yMaxMs'] ?? null]
  })
  assert.deepEqual(
    lines.map(({ verdict, anomaly, y, score, y_max: yMax }) => [verdict, anomaly, y, score, y === null ? null : yMax]),
    monitored,
  )
  assert.deepEqual(new Set(monitored.map(([verdict]) => verdict)), new Set(['ok', 'anomalous', 'no_data']))
})

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
