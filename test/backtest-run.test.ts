import assert from 'node:assert/strict'
import { appendFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'

import { Registry } from 'prom-client'

import { backtestCommand } from '../src/commands/backtest.js'
import { parseCommandLine } from '../src/commands/command-line.js'
import { fitBaselines, watchesOf } from '../src/commands/models.js'
import { readPolls } from '../src/core/anomaly-history.js'
import { UsageError } from '../src/core/errors.js'
import {
  observedOf,
  pollsAsSeen,
  rescored,
  rescoredSample,
  verdictAgreement,
  verdictsByPair,
} from '../src/core/recorded-run.js'
import { createMonitor } from '../src/io/monitor.js'
import { readRunFolder } from '../src/io/run-folder.js'
import { readRecordingFile } from '../src/io/training-file.js'
import { type FakeAnswer, fakeRuntime, matrixAnswer, vectorAnswer } from './helpers/fake-runtime.js'
import { CALM_MS, recordingOf, T0 } from './helpers/recordings.js'
import { temporaryFolder } from './helpers/temporary-folder.js'

type Json = Readonly<Record<string, unknown>>

const PAIR = { source: 'a', destination: 'b' }
const SCORING = {
  direction: 'above',
  minRequestsPerSecond: 0.1,
  minDeviationMs: 1,
  minDeviationRatio: 0,
  sloMs: null,
} as const

/** The monitor polls each ten seconds, off the beat; the incident daemon on the beat, and sees the sample before. */
const START = T0 + 1_000_000
const sampleSeconds = (i: number): number => Number((START + 10 * i + 0.123).toFixed(3))
const pollSeconds = (i: number): number => START + 10 * i + 15

/**
 * Fifty polls. Slow from 10 on to 25, when Prometheus is away; slow again from 28 to 33, with no traffic to speak of; then
 * calm, with a latency that nobody measured.
 */
function readingAt(i: number): { readonly ms: string; readonly rate: string } | null {
  if (i >= 25 && i < 28) return null
  if (i === 40) return { ms: 'NaN', rate: '0' }
  if (i >= 10 && i < 25) return { ms: String(100 + i / 7), rate: '5' }
  if (i >= 28 && i < 34) return { ms: '120', rate: '0.05' }
  return { ms: String(10 + 0.1 * (i % 7)), rate: '5' }
}

const COUNT = 50

/** What the monitor logs of the readings, one poll after the other. */
async function monitored(training: string): Promise<readonly Json[]> {
  const baselines = fitBaselines(readRecordingFile(training, 'F'), {
    model: 'load-and-season',
    quantiles: [],
    what: 'F',
  })
  assert.ok(!(baselines instanceof Promise))
  const answers = Array.from({ length: COUNT }, (_, i): FakeAnswer => {
    const reading = readingAt(i)
    if (reading === null) return { status: 503, body: '' }
    const metric = { series: 'requests_per_second' }
    const values = [
      { metric: { quantile: '0.5' }, value: reading.ms },
      { metric, value: reading.rate },
    ]
    return vectorAnswer(values, sampleSeconds(i))
  })
  const runtime = fakeRuntime(answers)
  const { poll } = createMonitor(
    {
      ...{ pair: PAIR, prometheusUrl: 'http://p', query: 'up', quantiles: [0.5], rules: SCORING },
      ...{ watches: watchesOf(baselines), pollIntervalMs: 10_000, maxAgeSeconds: null },
    },
    runtime,
    new Registry(),
  )
  for (let i = 0; i < COUNT; i++) await poll()
  return runtime.logged
    .filter(({ msg }) => msg === 'evaluated')
    .map((line, i) => ({ ...line, time: new Date(1000 * sampleSeconds(i)).toISOString() }))
}

/** What Prometheus has of the monitor at each poll of the incident daemon: what it exported a poll before. */
function historyOf(lines: readonly Json[]): string {
  const exported = new Map<string, [number, string][]>()
  lines.forEach(({ verdict, anomalyCount, timestampSeconds, quantiles }, i) => {
    const put = (name: string, value: unknown, labels: object = {}): void => {
      const metric = JSON.stringify({ __name__: name, ...PAIR, instance: 'm:1', ...labels })
      exported.set(metric, [...(exported.get(metric) ?? []), [pollSeconds(i), String(value)]])
    }
    put('lab7_verdict', 1, { verdict })
    if (anomalyCount !== null) put('lab7_anomaly_count', anomalyCount)
    if ((quantiles as readonly unknown[]).length > 0) put('lab7_sample_timestamp_seconds', timestampSeconds)
  })
  const clock = lines.map((_, i): [number, string] => [pollSeconds(i), '1'])
  return matrixAnswer([
    { metric: { series: 'poll' }, values: clock },
    ...[...exported].map(([metric, values]) => ({ metric: JSON.parse(metric) as Record<string, string>, values })),
  ])
}

/** As the incident daemon would have announced it: 11 polls to Sev 2; 15 at most; 15 - 2 n <= 5 at the fifth calm poll. */
const TRANSITIONS = [
  { at: 20, transition: 'opened', severity: 2, temperature: 11 },
  { at: 38, transition: 'resolved', severity: null, temperature: 5 },
].map(({ at, temperature, ...happened }) => ({
  ...happened,
  timestampSeconds: pollSeconds(at),
  startedSeconds: pollSeconds(20),
  temperature,
  accumulators: { 'a -> b': temperature },
  text: [`a sentence about ${happened.transition}`],
  msg: 'incident transition',
}))

const RUN = {
  name: 'made up',
  startedSeconds: START,
  observedFromSeconds: START,
  endedSeconds: START + 600,
  partial: false,
  seed: 1,
  target: 'test',
  application: 'none',
  versions: {},
  pairs: [{ ...PAIR, accumulatorThreshold: 5 }],
  quantiles: [0.5],
  model: 'load-and-season',
  scoring: SCORING,
  incident: { incidentThreshold: 10, clearThreshold: 5, coolBy: 2, accumulatorMax: 20, noDataTimeoutSeconds: 600 },
  pollIntervalSeconds: 10,
  staleAfterSeconds: 60,
  recordStepSeconds: 10,
}

const TRUTH = { faults: [{ name: 'slow', from: START + 95, to: START + 250, pairs: [PAIR] }], transients: [] }

async function runFolder(t: TestContext, run: object = RUN): Promise<string> {
  const folder = temporaryFolder(t)
  mkdirSync(join(folder, 'training'))
  mkdirSync(join(folder, 'metrics'))
  const training = join(folder, 'training/a-b.json')
  writeFileSync(training, recordingOf(CALM_MS))
  const lines = await monitored(training)
  const ndjson = (all: readonly object[]): string => all.map((line) => `${JSON.stringify(line)}\n`).join('')
  writeFileSync(join(folder, 'verdicts.ndjson'), ndjson(lines))
  writeFileSync(join(folder, 'incidents.ndjson'), ndjson(TRANSITIONS))
  writeFileSync(join(folder, 'metrics/anomaly-history.json'), historyOf(lines))
  writeFileSync(join(folder, 'ground-truth.json'), JSON.stringify(TRUTH))
  writeFileSync(join(folder, 'run.json'), JSON.stringify(run))
  return folder
}

async function backtest(args: readonly string[]): Promise<{ readonly code: number; readonly stdout: string }> {
  const commands = [backtestCommand]
  const parsed = parseCommandLine({ args: ['backtest', ...args], environment: {}, commands, version: '1' })
  assert.ok(parsed.kind === 'job')
  const runtime = fakeRuntime([])
  return { code: await parsed.job.run(runtime), stdout: runtime.written() }
}

async function settingsOf(
  args: readonly string[],
): Promise<readonly { name: string; scoring: Json; rules: Json; measures: Json }[]> {
  const { stdout } = await backtest([...args, '--json'])
  return (JSON.parse(stdout) as { settings: { name: string; scoring: Json; rules: Json; measures: Json }[] }).settings
}

test('backtest: a run folder is replayed with its own settings, truth and polls', async (t) => {
  const { code, stdout } = await backtest(['--run', await runFolder(t)])
  assert.equal(code, 0, stdout)
  assert.match(stdout, /\n50 of 50 verdicts and 2 of 2 transitions are the live ones\.\n/)
  // From 95 s: sampled at 100.123, opened at the poll at 215; ended at 250, resolved at 395.
  assert.match(stdout, /\nas recorded +1 +\S+ +100 +5\.1 +120 +- +145 +0 +0 +-\n/)
})

test('backtest: every verdict there is comes in the recorded readings', async (t) => {
  const { verdicts } = readRunFolder(await runFolder(t))
  assert.deepEqual(
    new Set(verdicts.map(({ line }) => line.verdict)),
    new Set(['ok', 'anomalous', 'low_traffic', 'no_data']),
  )
  assert.deepEqual(
    verdicts.filter(({ line }) => line.timestampSeconds === null).map(({ loggedSeconds }) => loggedSeconds),
    [25, 26, 27].map(sampleSeconds),
  )
})

test('backtest: samples that are judged again are seen at the polls at which they were seen live', async (t) => {
  const folder = await runFolder(t)
  const run = readRunFolder(folder)
  const baselines = await fitBaselines(readRecordingFile(join(folder, 'training/a-b.json'), 'F'), {
    ...{ model: 'load-and-season', quantiles: [0.5], what: 'F' },
  })
  const [lines = []] = verdictsByPair(run)
  const samples = [rescored(lines, watchesOf(baselines), run.scoring).map(rescoredSample)]
  const live = readPolls(run.history, { pairs: run.rules.pairs, staleAfterSeconds: run.staleAfterSeconds })
  assert.equal(live.length, 50)
  assert.deepEqual(pollsAsSeen(run, samples), live)
  assert.deepEqual(observedOf(run).polls, live)
})

test('backtest: another model and other settings are folded over the same polls', async (t) => {
  const folder = await runFolder(t)
  const settings = await settingsOf([
    '--run',
    folder,
    '--model=static-mad',
    '--sweep',
    'min-requests-per-second=0,0.1,10',
  ])
  assert.deepEqual(
    settings.map(({ name, measures }) => [name, measures['toSev2Seconds'], measures['toResolvedSeconds']]),
    [
      ['as recorded', 120, 145],
      // Six anomalies more, up to 20; 20 - 2 n <= 5 at the eighth calm poll, one of silence between them.
      ['static-mad, min-requests-per-second 0', 120, 185],
      ['static-mad, min-requests-per-second 0.1', 120, 145],
      ['static-mad, min-requests-per-second 10', null, null],
    ],
  )
})

test('backtest: a setting that is the recorded one is not said twice', async (t) => {
  const settings = await settingsOf(['--run', await runFolder(t), '--sweep', 'incident-threshold=10,12'])
  assert.deepEqual(
    settings.map(({ name, scoring }) => [name, scoring['minDeviationMs']]),
    [
      ['as recorded', 1],
      ['incident-threshold 12', 1],
    ],
    'what is not given is as it was recorded',
  )
})

test("backtest: what is given beside --run is one setting more, and a threshold is every pair's then", async (t) => {
  const folder = await runFolder(t)
  const settings = await settingsOf(['--run', folder, '--cool-by', '5', '--sweep', 'accumulator-threshold=5,7'])
  assert.deepEqual(
    settings.map(({ name, rules, measures }) => [
      name,
      rules['coolBy'],
      (rules['pairs'] as readonly Json[])[0]?.['accumulatorThreshold'],
      measures['toResolvedSeconds'],
    ]),
    [
      ['as recorded', 2, 5, 145],
      ['cool-by 5, accumulator-threshold 5', 5, 5, 115],
      ['cool-by 5, accumulator-threshold 7', 5, 7, 115],
    ],
  )
})

test('backtest: transitions that the incident daemon warmed up from, and those after its end, are not asked for', async (t) => {
  const polls = { fromSeconds: pollSeconds(20), toSeconds: pollSeconds(37) }
  const folder = await runFolder(t, { ...RUN, incidentPolls: polls })
  writeFileSync(join(folder, 'incidents.ndjson'), '')
  const { code, stdout } = await backtest(['--run', folder])
  assert.equal(code, 0, stdout)
  assert.match(stdout, /\n50 of 50 verdicts and 0 of 0 transitions are the live ones\.\n/)
  const wider = await runFolder(t, { ...RUN, incidentPolls: { ...polls, toSeconds: pollSeconds(38) } })
  writeFileSync(join(wider, 'incidents.ndjson'), '')
  const other = await backtest(['--run', wider])
  assert.equal(other.code, 1)
  assert.match(other.stdout, /verdicts and 0 of 1 transitions are the live ones/)
})

for (const { what, edit, difference } of [
  {
    what: 'a verdict',
    edit: (line: Json) => ({ ...line, verdict: 'ok' }),
    difference: /a -> b at \S+Z: verdict: live ok, replayed anomalous\n/,
  },
  {
    what: 'a score',
    edit: (line: Json) => ({ ...line, quantiles: [{ ...(line['quantiles'] as Json[])[0], score: 1 }] }),
    difference: /a -> b at \S+Z: quantiles\.0\.score: live 1, replayed \d/,
  },
  {
    what: 'a latency, which changes what is learnt from then on',
    edit: (line: Json) => ({ ...line, quantiles: [{ ...(line['quantiles'] as Json[])[0], yMs: 11 }] }),
    difference: /Not as live\n(a -> b at .*\n){20}and \d+ more\n/,
  },
]) {
  test(`backtest: ${what} that is not the live one is listed, with exit code 1`, async (t) => {
    const folder = await runFolder(t)
    const path = join(folder, 'verdicts.ndjson')
    const lines = readFileSync(path, 'utf8').trim().split('\n')
    writeFileSync(path, lines.with(12, JSON.stringify(edit(JSON.parse(lines[12]!) as Json))).join('\n'))
    const { code, stdout } = await backtest(['--run', folder])
    assert.equal(code, 1)
    assert.match(stdout, difference)
  })
}

test('backtest: a monitor that was still fitting its baseline learnt nothing, and is replayed so', async (t) => {
  const folder = await runFolder(t)
  const run = readRunFolder(folder)
  const recording = readRecordingFile(join(folder, 'training/a-b.json'), 'F')
  const fit = async () =>
    watchesOf(await fitBaselines(recording, { model: 'load-and-season', quantiles: [], what: 'F' }))
  const [lines = []] = verdictsByPair(run)
  const warming = lines.map((logged, i) =>
    i < 5
      ? { ...logged, line: { ...logged.line, verdict: 'warming' as const, anomalyCount: null, quantiles: [] } }
      : logged,
  )
  const again = rescored(warming, await fit(), run.scoring)
  assert.deepEqual(
    again.slice(0, 5).map(({ evaluation: { verdict } }) => verdict),
    Array.from({ length: 5 }, () => 'warming'),
  )
  const late = rescored(lines.slice(5), await fit(), run.scoring)
  assert.deepEqual(
    again.slice(5).map(({ evaluation }) => evaluation),
    late.map(({ evaluation }) => evaluation),
  )
  const { same, of } = verdictAgreement(again.slice(0, 5))
  assert.deepEqual({ same, of }, { same: 5, of: 5 })
})

test('backtest: a run that was cut short is replayed as far as it goes', async (t) => {
  const folder = await runFolder(t, { ...RUN, partial: true })
  for (const name of ['ground-truth.json', 'incidents.ndjson', 'metrics']) {
    rmSync(join(folder, name), { recursive: true })
  }
  appendFileSync(join(folder, 'verdicts.ndjson'), '{"source":"a","desti')
  const { code, stdout } = await backtest(['--run', folder])
  assert.equal(code, 0)
  assert.match(stdout, /\nNothing is known of faults\.\n50 of 50 verdicts and 0 of 0 transitions are the live ones\.\n/)
  assert.match(stdout, /\nas recorded +0( +-){9}\n/)
})

test('backtest: the evidence of a live run is in the report of its replay', async (t) => {
  const output = join(temporaryFolder(t), 'out')
  const { code } = await backtest(['--run', await runFolder(t), '--output', output])
  assert.equal(code, 0)
  const text = readFileSync(join(output, 'report.md'), 'utf8')
  assert.match(text, /Backtest of made up/)
  assert.match(text, /a sentence about opened/)
})

for (const { what, file, content, args = [], message } of [
  { what: 'no run.json', file: 'run.json', content: null, message: 'run.json: no such file' },
  { what: 'no JSON', file: 'run.json', content: '{', message: /^run\.json: not JSON: / },
  {
    what: 'a field that is missing',
    file: 'run.json',
    content: JSON.stringify({ ...RUN, scoring: { ...SCORING, minDeviationMs: undefined } }),
    message: 'run.json: scoring: minDeviationMs: expected a number, got nothing',
  },
  {
    what: 'no pairs',
    file: 'run.json',
    content: JSON.stringify({ ...RUN, pairs: [] }),
    message: 'run.json: pairs: expected at least one, got none',
  },
  {
    what: 'a model that is none',
    file: 'run.json',
    content: JSON.stringify({ ...RUN, model: 'lstm' }),
    message: '--run: model must be one of load-and-season, static-sigma, static-mad, prophet, got "lstm"',
  },
  {
    what: 'no interval',
    file: 'run.json',
    content: JSON.stringify({ ...RUN, pollIntervalSeconds: 0 }),
    message: 'run.json: pollIntervalSeconds: expected a positive number, got 0',
  },
  {
    what: 'quantiles that are none',
    file: 'run.json',
    content: JSON.stringify({ ...RUN, quantiles: [0.5, '0.9'] }),
    message: 'run.json: quantiles: 1: expected a number, got "0.9"',
  },
  { what: 'no verdicts', file: 'verdicts.ndjson', content: null, message: 'verdicts.ndjson: no such file' },
  {
    what: 'empty verdicts',
    file: 'verdicts.ndjson',
    content: '',
    message: '--run: FOLDER: nothing was observed: verdicts.ndjson is empty',
  },
  {
    what: 'a torn line in a run that is whole',
    file: 'verdicts.ndjson',
    content: '{"source":',
    message: /^verdicts\.ndjson: line 1: not JSON: /,
  },
  {
    what: 'a line without its verdict',
    file: 'verdicts.ndjson',
    content: '{"time":"2026-01-01T00:00:00Z","source":"a","destination":"b","timestampSeconds":1}',
    message:
      'verdicts.ndjson: line 1: verdict: expected one of ok, anomalous, low_traffic, no_data, warming, got nothing',
  },
  {
    what: 'a line without a time',
    file: 'verdicts.ndjson',
    content: '{"time":"noon"}',
    message: 'verdicts.ndjson: line 1: time: expected a time such as 2026-01-31T12:00Z, got "noon"',
  },
  {
    what: 'a transition that is none',
    file: 'incidents.ndjson',
    content: JSON.stringify({ ...TRANSITIONS[0], transition: 'worse' }),
    message:
      'incidents.ndjson: line 1: transition: expected one of opened, escalated, de-escalated, resolved, expired, got "worse"',
  },
  {
    what: 'a history that is none',
    file: 'metrics/anomaly-history.json',
    content: '{"status":"success","data":{"resultType":"vector","result":[]}}',
    message:
      'metrics/anomaly-history.json: not a saved answer of Prometheus: data.resultType: expected "matrix", got "vector"',
  },
  {
    what: 'no training',
    file: 'training/a-b.json',
    content: null,
    message: /^--run: training\/a-b\.json: no such file; /,
  },
  {
    what: 'ground truth that is none',
    file: 'ground-truth.json',
    content: '[]',
    message: 'ground-truth.json: expected an object, got an array of 0',
  },
  {
    what: 'pairs of its own',
    file: null,
    content: null,
    args: ['--pair', 'a:b'],
    message: '--pair cannot be given with --run, which has its own',
  },
  {
    what: 'polls of its own',
    file: null,
    content: null,
    args: ['--poll-interval-seconds', '5'],
    message: '--poll-interval-seconds cannot be given with --run, which has its own',
  },
]) {
  test(`backtest: a run with ${what} is refused in one line`, async (t) => {
    const folder = await runFolder(t)
    if (file !== null && content === null) rmSync(join(folder, file))
    if (file !== null && content !== null) writeFileSync(join(folder, file), content)
    await assert.rejects(
      () => backtest(['--run', folder, ...args]),
      (error) => {
        assert.ok(error instanceof UsageError, String(error))
        const text = error.message.replaceAll(`${folder}/`, '').replaceAll(folder, 'FOLDER')
        if (typeof message === 'string') assert.equal(text, message)
        else assert.match(text, message)
        return true
      },
    )
  })
}
