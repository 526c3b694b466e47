import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'node:test'

import { backtestCommand } from '../src/commands/backtest.js'
import { parseCommandLine } from '../src/commands/command-line.js'
import { combinations, sweepFlag } from '../src/commands/sweep-flag.js'
import { courseOf, type JudgedSample, pollsOf } from '../src/core/backtest.js'
import { UsageError } from '../src/core/errors.js'
import { fakeRuntime, matrixAnswer } from './helpers/fake-runtime.js'
import { istioHistory, startFilledPrometheus } from './helpers/filled-prometheus.js'
import { startHttpServer } from './helpers/local-server.js'
import { runProgram, startProgram } from './helpers/program.js'
import { CALM_MS, recordingOf, T0 } from './helpers/recordings.js'
import { temporaryFile, temporaryFolder } from './helpers/temporary-folder.js'

type Json = Readonly<Record<string, unknown>>

interface Backtested {
  readonly code: number
  readonly stdout: string
  readonly logged: readonly Json[]
}

async function backtest(args: readonly string[]): Promise<Backtested> {
  const parsed = parseCommandLine({
    args: ['backtest', ...args],
    environment: {},
    commands: [backtestCommand],
    version: '1',
  })
  assert.ok(parsed.kind === 'job')
  const runtime = fakeRuntime([])
  const code = await parsed.job.run(runtime)
  return { code, stdout: runtime.written(), logged: runtime.logged }
}

interface Document {
  readonly pairs: readonly Json[]
  readonly startSeconds: number
  readonly endSeconds: number
  readonly pollIntervalSeconds: number
  readonly settings: readonly {
    readonly name: string
    readonly model: string
    readonly scoring: Json
    readonly rules: Json & { readonly pairs: readonly Json[] }
    readonly measures: Json
  }[]
  readonly live: unknown
}

async function documentOf(args: readonly string[]): Promise<Document> {
  return JSON.parse((await backtest([...args, '--json'])).stdout) as Document
}

// --- polls

function samplesAt(timesSeconds: readonly number[], anomalous: (time: number) => boolean | null): JudgedSample[] {
  return timesSeconds.map((timestampSeconds) => {
    const bad = anomalous(timestampSeconds)
    return {
      timestampSeconds,
      verdict: bad === null ? 'no_data' : bad ? 'anomalous' : 'ok',
      anomalyCount: bad === null ? null : Number(bad),
      quantiles: [],
    }
  })
}

function told(polls: ReturnType<typeof pollsOf>): readonly (readonly (string | number)[])[] {
  return polls.map(({ timestampSeconds, verdicts }) => [
    timestampSeconds,
    ...verdicts.map((verdict) => (verdict.kind === 'unknown' ? verdict.reason : verdict.kind)),
  ])
}

test('backtest: a poll takes the newest sample of each pair, and nothing of one that is gone', () => {
  const a = samplesAt([0, 10, 20, 40, 50], (time) => (time === 20 ? null : time === 40))
  const b = samplesAt([5, 15, 25, 35], () => false)
  const polls = pollsOf([a, b], { pollIntervalSeconds: 10, staleAfterSeconds: [9.99, 12] })
  assert.deepEqual(told(polls), [
    [0, 'ok', 'no_data'],
    [10, 'ok', 'ok'],
    [20, 'no_data', 'ok'],
    [30, 'stale', 'ok'], // the recording leaves 30 out: Prometheus had nothing of the pair
    [40, 'anomalous', 'ok'],
    [50, 'ok', 'stale'],
  ])
})

test('backtest: samples from five minutes apart are polled as often as a daemon would, the last as often as the others', () => {
  const samples = samplesAt([0, 300, 900], (time) => time === 300)
  const polls = pollsOf([samples], { pollIntervalSeconds: 30, staleAfterSeconds: [0.999 * 300] })
  const kinds = told(polls).map(([, kind]) => kind)
  const times = (kind: string): number => kinds.filter((one) => one === kind).length
  assert.deepEqual([kinds.length, times('ok'), times('anomalous'), times('stale')], [40, 20, 10, 10])
})

test('backtest: polls lie on the times of the samples, whatever fractions they have', () => {
  const times = Array.from({ length: 50 }, (_, i) => Number((1_700_000_000.1 + 0.2 * i).toFixed(3)))
  const polls = pollsOf([samplesAt(times, () => false)], { pollIntervalSeconds: 0.2, staleAfterSeconds: [0.1998] })
  assert.deepEqual(
    told(polls),
    times.map((time) => [time, 'ok']),
  )
})

test('backtest: no sample at all makes no poll', () => {
  assert.deepEqual(pollsOf([[], []], { pollIntervalSeconds: 1, staleAfterSeconds: [1, 1] }), [])
})

test('backtest: the course has the state after each poll and what happened at it', () => {
  const pairs = ['a', 'b'].map((source) => ({ source, destination: 'x', accumulatorThreshold: 0 }))
  const rules = {
    pairs,
    incidentThreshold: 1,
    clearThreshold: 0,
    coolBy: 2,
    accumulatorMax: 5,
    noDataTimeoutSeconds: 9e9,
  }
  const [bad, ok] = [{ kind: 'anomalous', anomalyCount: 1 } as const, { kind: 'ok' } as const]
  const verdicts = [
    [bad, ok],
    [bad, ok],
    [bad, bad],
    [ok, ok],
    [ok, ok],
  ]
  const polls = verdicts.map((of, i) => ({ timestampSeconds: 10 * i, verdicts: of }))
  const { polls: states, transitions } = courseOf(polls, rules)
  assert.deepEqual(
    states.map(({ accumulators, temperature, severity }) => [...accumulators, temperature, severity]),
    [
      [1, 0, 1, null],
      [2, 0, 2, 2],
      [3, 1, 4, 1],
      [1, 0, 1, 2],
      [0, 0, 0, null],
    ],
  )
  const at = (i: number): object => states[i]!
  assert.deepEqual(transitions, [
    { ...at(1), transition: 'opened', startedSeconds: 10 },
    { ...at(2), transition: 'escalated', startedSeconds: 10 },
    { ...at(3), transition: 'de-escalated', startedSeconds: 10 },
    { ...at(4), transition: 'resolved', startedSeconds: 10 },
  ])
})

// --- sweeps

for (const { text, values } of [
  { text: 'accumulator-threshold=3..7', values: ['3', '4', '5', '6', '7'] },
  { text: 'accumulator_threshold=3', values: ['3'] },
  { text: '--cool-by=0.1..0.4:0.1', values: ['0.1', '0.2', '0.3', '0.4'] },
  { text: 'cool-by=1..2:0.4', values: ['1', '1.4', '1.8'] },
  { text: 'cool-by=0.25, 1,4', values: ['0.25', '1', '4'] },
]) {
  test(`backtest: --sweep ${text} is ${values.join(', ')}`, () => {
    const sweep = sweepFlag(['accumulator-threshold', 'cool-by'])(text, '--sweep')
    assert.deepEqual(sweep, { flag: text.includes('acc') ? 'accumulator-threshold' : 'cool-by', values })
  })
}

test('backtest: several sweeps are every combination, the last changing fastest', () => {
  const all = combinations(
    [
      { flag: 'a', values: ['1', '2'] },
      { flag: 'b', values: ['x', 'y'] },
    ],
    '--sweep',
  )
  assert.deepEqual(
    all.map((one) => [...one.values()].join('')),
    ['1x', '1y', '2x', '2y'],
  )
  assert.deepEqual(combinations([], '--sweep'), [new Map()])
})

// --- recordings

/** Slow at samples 20 to 39: eleven polls to an incident, and eight after its end to the end of it. */
const SLOW = Array.from({ length: 80 }, (_, i) => (i >= 20 && i < 40 ? 500 : 10))

function named(values: readonly (number | string)[], pair: object, options = {}): string {
  return JSON.stringify({ ...(JSON.parse(recordingOf(values, options)) as object), meshfever: { pair } })
}

const AB = { source: 'a', destination: 'b' }
const CD = { source: 'c', destination: 'd' }

test('backtest: one recording is replayed, and measured against its ground truth', async (t) => {
  const truth = {
    faults: [{ name: 'slow', from: T0 + 15 * 20, to: T0 + 15 * 40 }],
    transients: [{ name: 'burst', from: T0 + 15 * 5, to: T0 + 15 * 7 }],
  }
  const { code, stdout } = await backtest([
    ...['--training-data-file', temporaryFile(t, recordingOf(CALM_MS)), '--model', 'static-mad'],
    ...['--series', temporaryFile(t, recordingOf(SLOW))],
    ...['--truth', temporaryFile(t, JSON.stringify(truth))],
  ])
  assert.equal(code, 0)
  const expected = [
    '80 samples of source -> destination in 80 polls, one each 15 s, 2023-11-14T22:13:20Z to 2023-11-14T22:33:05Z.',
    'Known: 1 fault and 1 transient.',
    '',
    'Detection',
    'setting     incidents  incidents per week  event recall, %  to anomaly, s  to Sev 2, s  to Sev 1, s  to resolve, s  false anomalies per 1000 samples  false incidents per day  transients tolerated, %',
    // 20 anomalies heat to 20; 20 - 2 n <= 5 at the eighth calm poll, 15 * 7 s after the end. A week is 504 times 1200 s.
    'static-mad          1                 504              100              0          150            -            105                                 0                        0                      100',
    'Times are medians: from the start of a fault, and to resolve from its end. A dash: nothing to say it of.',
    '',
    'Faults',
    'fault  from                  pairs  found  to anomaly, s  to Sev 2, s  to Sev 1, s  to resolve, s',
    'slow   2023-11-14T22:18:20Z  all    yes                0          150            -            105',
    '',
    'Transients',
    'transient  from                  anomalies  tolerated',
    'burst      2023-11-14T22:14:35Z          0  yes',
    '',
  ]
  assert.deepEqual(stdout.split('\n'), expected)
})

test('backtest: without ground truth there are dashes where it is needed', async (t) => {
  const { stdout } = await backtest([
    ...['--training-data-file', temporaryFile(t, recordingOf(CALM_MS))],
    ...['--series', temporaryFile(t, recordingOf(SLOW))],
  ])
  assert.match(stdout, /\nNothing is known of faults\.\n/)
  assert.match(stdout, /\nload-and-season +1 +504( +-){8}\n/)
})

test('backtest: pairs are found by what record wrote into the files, in any order, and their heat adds up', async (t) => {
  const file = (content: string): string => temporaryFile(t, content)
  const { pairs, settings } = await documentOf([
    ...['--training-data-file', file(named(CALM_MS, AB)), '--training-data-file', file(named(CALM_MS, CD))],
    ...['--series', file(named(SLOW, CD)), '--series', file(named(SLOW.slice(0, 40), AB))],
    ...['--truth', file(JSON.stringify({ faults: [{ name: 'f', from: T0 + 300, to: T0 + 600, pairs: [CD] }] }))],
  ])
  assert.deepEqual(pairs, [AB, CD])
  const { measures } = settings[0]!
  // Two pairs heat twice as fast: the sixth poll is the first above 10, and both are above 5 then.
  assert.deepEqual([measures['toSev2Seconds'], measures['toSev1Seconds']], [75, 75])
})

test('backtest: --pair names recordings that do not say, in their order, and may give thresholds', async (t) => {
  const file = (content: string): string => temporaryFile(t, content)
  const { pairs, settings } = await documentOf([
    ...['--training-data-file', file(recordingOf(CALM_MS)), '--training-data-file', file(recordingOf(CALM_MS))],
    ...['--series', file(recordingOf(SLOW)), '--series', file(recordingOf(SLOW))],
    ...['--pair', 'a:b=7', '--pair', 'c:d'],
  ])
  assert.deepEqual(pairs, [AB, CD])
  assert.deepEqual(settings[0]?.rules.pairs, [
    { ...AB, accumulatorThreshold: 7 },
    { ...CD, accumulatorThreshold: 5 },
  ])
})

test('backtest: --poll-interval-seconds and --stale-after-seconds make the polls', async (t) => {
  const args = [
    ...['--training-data-file', temporaryFile(t, recordingOf(CALM_MS))],
    ...['--series', temporaryFile(t, recordingOf([10, 10, 500, 500, 10, 10, 10, 10]))],
  ]
  // Two anomalies of 15 s each are six polls of 5 s, and three more while the last one is held.
  const { pollIntervalSeconds, settings } = await documentOf([
    ...[...args, '--poll-interval-seconds=5', '--incident-threshold=5', '--json'],
  ])
  assert.deepEqual([pollIntervalSeconds, settings[0]?.measures['incidents']], [5, 1])
  const held = await documentOf([...args, '--poll-interval-seconds=5', '--stale-after-seconds=100'])
  const brief = await documentOf([...args, '--poll-interval-seconds=5', '--stale-after-seconds=4'])
  assert.deepEqual(
    [held, brief].map(({ endSeconds, settings: [one] }) => [endSeconds - T0, one?.measures['observedSeconds']]),
    [
      [205, 210],
      [105, 40],
    ],
  )
})

test('backtest: what was recorded in long steps is polled each thirty seconds, as a daemon would', async (t) => {
  const slow = matrixAnswer([{ values: SLOW.map((ms, i) => [T0 + 300 * i, String(ms)] as const) }])
  const training = matrixAnswer([{ values: CALM_MS.map((ms, i) => [T0 - 30_000 + 300 * i, String(ms)] as const) }])
  const { pollIntervalSeconds, settings } = await documentOf([
    ...['--training-data-file', temporaryFile(t, training), '--series', temporaryFile(t, slow), '--model=static-mad'],
    ...['--truth', temporaryFile(t, JSON.stringify({ faults: [{ name: 'f', from: T0 + 6_000, to: T0 + 12_000 }] }))],
  ])
  assert.deepEqual([pollIntervalSeconds, settings[0]?.measures['toSev2Seconds']], [30, 300])
})

test('backtest: models and sweeps are compared, one row each, and nothing that contradicts itself', async (t) => {
  const { settings } = await documentOf([
    ...['--training-data-file', temporaryFile(t, recordingOf(CALM_MS))],
    ...['--series', temporaryFile(t, recordingOf(SLOW))],
    ...['--model', 'static-mad,static-sigma', '--sweep', 'incident-threshold=4..12:4', '--sweep', 'cool-by=1,2'],
    ...['--truth', temporaryFile(t, JSON.stringify({ faults: [{ name: 'f', from: T0 + 300, to: T0 + 600 }] }))],
  ])
  assert.deepEqual(
    settings.map(({ name, measures }) => [name, measures['toSev2Seconds'], measures['toResolvedSeconds']]),
    ['static-mad', 'static-sigma'].flatMap((model) => [
      // 4 is below the clear threshold of 5. One poll a sample: 9 or 13 polls to open, 15 or 8 to close.
      [`${model}, incident-threshold 8, cool-by 1`, 120, 210],
      [`${model}, incident-threshold 8, cool-by 2`, 120, 105],
      [`${model}, incident-threshold 12, cool-by 1`, 180, 210],
      [`${model}, incident-threshold 12, cool-by 2`, 180, 105],
    ]),
  )
})

test('backtest: a swept rule of scoring changes the verdicts, and those alone', async (t) => {
  const { settings } = await documentOf([
    ...['--training-data-file', temporaryFile(t, recordingOf(CALM_MS))],
    ...['--series', temporaryFile(t, recordingOf(SLOW))],
    ...['--sweep', 'min-deviation-ratio=0,30,60'],
  ])
  // 500 ms are 49 times as much above 10 ms.
  assert.deepEqual(
    settings.map(({ name, scoring, measures }) => [name, scoring['minDeviationRatio'], measures['incidents']]),
    [
      ['min-deviation-ratio 0', 0, 1],
      ['min-deviation-ratio 30', 30, 1],
      ['min-deviation-ratio 60', 60, 0],
    ],
  )
})

test('backtest: --output has the report with its pictures, and the numbers as JSON', async (t) => {
  const folder = join(temporaryFolder(t), 'new', 'report')
  const { stdout } = await backtest([
    ...['--training-data-file', temporaryFile(t, named(CALM_MS, AB)), '--series', temporaryFile(t, named(SLOW, AB))],
    ...['--truth', temporaryFile(t, JSON.stringify({ faults: [{ name: 'slow disk', from: T0 + 300, to: T0 + 600 }] }))],
    ...['--model=static-mad', '--sweep', 'incident-threshold=6..10:2', '--output', folder, '--json'],
  ])
  const files = readdirSync(folder)
  assert.ok(
    ['backtest.json', 'report.html', 'report.md'].every((name) => files.includes(name)),
    files.join(' '),
  )
  assert.ok(files.some((name) => name.endsWith('.png')))
  assert.deepEqual(JSON.parse(readFileSync(join(folder, 'backtest.json'), 'utf8')), JSON.parse(stdout))
  const text = readFileSync(join(folder, 'report.md'), 'utf8')
  assert.match(text, /\| incident-threshold 6 \| 1 \| 504 \| 100 \| 0 \| 90 \| [–-] \| 105 \|/)
  assert.match(text, /False incidents against time to incident/)
  assert.match(text, /slow disk/)
  assert.match(text, /a -\\?> b/)
})

for (const { what, args, message } of [
  {
    what: 'nothing to replay',
    args: [],
    message:
      'give one thing to replay: --run FOLDER, --series FILE with --training-data-file FILE, or --prometheus-url URL with --from TIME; got none of them',
  },
  {
    what: 'two things to replay',
    args: ['--run', 'x', '--series', 'y'],
    message:
      'give one thing to replay: --run FOLDER, --series FILE with --training-data-file FILE, or --prometheus-url URL with --from TIME; got --run and --series',
  },
  {
    what: 'a Prometheus without a time',
    args: ['--prometheus-url', 'http://p:9090'],
    message: '--from is required with --prometheus-url: a time such as -7d',
  },
  {
    what: 'a time without a Prometheus',
    args: ['--from', '-7d'],
    message: '--prometheus-url is required with --from: base URL of Prometheus',
  },
  {
    what: 'no training for a Prometheus',
    args: ['--prometheus-url', 'http://p:9090', '--from=-7d'],
    message: '--training-data-file is required with --prometheus-url, once for each pair',
  },
  {
    what: 'a time that is none',
    args: ['--prometheus-url', 'http://p:9090', '--from', 'yesterday'],
    message:
      '--from must be a time: unix seconds, RFC 3339 such as 2026-01-31T12:00:00Z, now, or before now such as -7d, got "yesterday"',
  },
  {
    what: 'a series without training',
    args: ['--series', 'FILE'],
    message: '--training-data-file must be given once for each --series (1), got it 0 times',
  },
  {
    what: 'recordings that do not say of which pair they are',
    args: ['--series', 'FILE', '--series', 'FILE', '--training-data-file', 'FILE', '--training-data-file', 'FILE'],
    message: '--training-data-file: FILE does not say of which pair it is: give --pair for each file, in order',
  },
  {
    what: 'two recordings of one pair',
    args: ['--series', 'AB', '--series', 'CD', '--training-data-file', 'AB', '--training-data-file', 'AB'],
    message: '--training-data-file: AB is a second file of a -> b',
  },
  {
    what: 'a series of another pair than the training',
    args: ['--series', 'CD', '--training-data-file', 'AB'],
    message: '--series: none is of a -> b, which was trained; they are of c -> d',
  },
  {
    what: 'a training that no --pair names',
    args: ['--series', 'AB', '--training-data-file', 'AB', '--pair', 'c:d'],
    message: '--training-data-file: AB is of a -> b, which no --pair names',
  },
  {
    what: 'a --pair without training',
    args: ['--series', 'AB', '--training-data-file', 'AB', '--pair', 'a:b', '--pair', 'c:d'],
    message: '--series: none is of c -> d, which was trained; they are of a -> b',
  },
  {
    what: 'a quantile that the series does not hold',
    args: ['--series', 'P95', '--training-data-file', 'P50'],
    message: '--series: P95: quantile 0.5 is scored, but the file holds 0.95',
  },
  {
    what: 'ground truth that is no JSON',
    args: ['--series', 'AB', '--training-data-file', 'AB', '--truth', 'TEXT'],
    message: /^TEXT: not JSON: /,
  },
  {
    what: 'ground truth that is none',
    args: ['--series', 'AB', '--training-data-file', 'AB', '--truth', 'AB'],
    message: '--truth: AB: expected faults, transients, got "status"',
  },
  {
    what: 'a missing file',
    args: ['--series', 'AB', '--training-data-file', 'AB', '--truth', '/nowhere.json'],
    message: '/nowhere.json: no such file',
  },
  {
    what: 'a model that is none',
    args: ['--series', 'AB', '--training-data-file', 'AB', '--model', 'static-mad,arima'],
    message: '--model must be one of load-and-season, static-sigma, static-mad, prophet, got "arima"',
  },
  {
    what: 'a model twice',
    args: ['--series', 'AB', '--training-data-file', 'AB', '--model', 'static-mad,static-mad'],
    message: '--model names a model twice, got "static-mad,static-mad"',
  },
  {
    what: 'a sweep of what is no number',
    args: ['--sweep', 'direction=above,both'],
    message:
      '--sweep must name one of min-requests-per-second, min-deviation-ms, min-deviation-ratio, slo-ms, incident-threshold, clear-threshold, accumulator-threshold, accumulator-max, cool-by, no-data-timeout-seconds, got "direction"',
  },
  {
    what: 'a sweep without values',
    args: ['--sweep', 'cool-by'],
    message: '--sweep must be FLAG=FROM..TO, FLAG=FROM..TO:STEP or FLAG=VALUE,VALUE, got "cool-by"',
  },
  {
    what: 'a sweep backwards',
    args: ['--sweep', 'cool-by=5..1'],
    message:
      '--sweep must be FLAG=FROM..TO, FLAG=FROM..TO:STEP or FLAG=VALUE,VALUE with FROM up to TO and a positive STEP, got "cool-by=5..1"',
  },
  {
    what: 'a sweep that stands still',
    args: ['--sweep', 'cool-by=1..5:0'],
    message:
      '--sweep must be FLAG=FROM..TO, FLAG=FROM..TO:STEP or FLAG=VALUE,VALUE with FROM up to TO and a positive STEP, got "cool-by=1..5:0"',
  },
  {
    what: 'an empty value of a sweep',
    args: ['--sweep', 'cool-by=1,,2'],
    message: '--sweep must be FLAG=FROM..TO, FLAG=FROM..TO:STEP or FLAG=VALUE,VALUE, got "cool-by=1,,2"',
  },
  {
    what: 'a value twice in a sweep',
    args: ['--sweep', 'cool-by=1,2,1'],
    message: '--sweep names a value twice, got "cool-by=1,2,1"',
  },
  {
    what: 'a sweep with too many values',
    args: ['--sweep', 'cool-by=1..2000'],
    message: '--sweep must have at most 1000 values, got 2000 in "cool-by=1..2000"',
  },
  {
    what: 'too many settings in all',
    args: ['--series', 'AB', '--training-data-file', 'AB', '--sweep', 'cool-by=1..40', '--sweep', 'slo-ms=1..26'],
    message: '--sweep: expected at most 1000 settings in all, got 40 x 26 = 1040',
  },
  {
    what: 'too many settings with several models',
    args: [
      '--series',
      'AB',
      '--training-data-file',
      'AB',
      '--sweep',
      'cool-by=1..600',
      '--model',
      'static-mad,static-sigma',
    ],
    message: '--model and --sweep: expected at most 1000 settings in all, got 2 x 600 = 1200',
  },
  {
    what: 'a flag that is swept twice',
    args: ['--series', 'AB', '--training-data-file', 'AB', '--sweep', 'cool-by=1', '--sweep', 'cool-by=2'],
    message: '--sweep names cool-by twice',
  },
  {
    what: 'a value that the swept flag does not take',
    args: ['--series', 'AB', '--training-data-file', 'AB', '--sweep', 'cool-by=0..3'],
    message: '--sweep cool-by must be a positive number, got "0"',
  },
  {
    what: 'a sweep that leaves nothing',
    args: ['--series', 'AB', '--training-data-file', 'AB', '--sweep', 'incident-threshold=1..3'],
    message: '--clear-threshold must be at most --incident-threshold (1), got 5',
  },
  {
    what: 'thresholds that contradict each other',
    args: ['--series', 'AB', '--training-data-file', 'AB', '--clear-threshold', '11'],
    message: '--clear-threshold must be at most --incident-threshold (10), got 11',
  },
  {
    what: 'more polls than there is room for',
    args: ['--series', 'LONG', '--training-data-file', 'AB', '--pair', 'a:b'],
    message: /^expected at most 2200000 polls, got \d+: give a shorter range, or a longer --poll-interval-seconds$/,
  },
  { what: 'a folder that is no run', args: ['--run', '/nowhere'], message: '/nowhere/run.json: no such file' },
]) {
  test(`backtest: ${what} is refused in one line`, async (t) => {
    const contents: Readonly<Record<string, string>> = {
      FILE: recordingOf(CALM_MS),
      AB: named(CALM_MS, AB),
      CD: named(CALM_MS, CD),
      P50: matrixAnswer([{ metric: { quantile: '0.5' }, values: CALM_MS.map((ms, i) => [T0 + i, String(ms)]) }]),
      P95: matrixAnswer([{ metric: { quantile: '0.95' }, values: CALM_MS.map((ms, i) => [T0 + i, String(ms)]) }]),
      LONG: matrixAnswer([{ values: [[T0 - 1e8, '1'], ...[0, 15, 30, 45].map((s) => [T0 + s, '1'] as const)] }]),
      TEXT: 'faults: none',
    }
    const paths = new Map(Object.entries(contents).map(([name, content]) => [name, temporaryFile(t, content)]))
    const given = args.map((arg) => paths.get(arg) ?? arg)
    await assert.rejects(
      () => backtest(given),
      (error) => {
        assert.ok(error instanceof UsageError, String(error))
        let text = error.message
        for (const [name, path] of paths) text = text.replaceAll(path, name)
        if (typeof message === 'string') assert.equal(text, message)
        else assert.match(text, message)
        assert.doesNotMatch(text, /\n/)
        return true
      },
    )
  })
}

test('backtest: the program says what is wrong in one line, with exit code 2', async (t) => {
  const { code, stdout, stderr } = await runProgram(t, ['backtest', '--from', '-7d'])
  assert.deepEqual(
    [code, stdout, stderr],
    [2, '', 'meshfever: --prometheus-url is required with --from: base URL of Prometheus\n'],
  )
})

// --- live history

test('backtest: the history of a real Prometheus is replayed, pair by pair', async (t) => {
  const endSeconds = Math.floor(Date.now() / 15_000) * 15
  const startSeconds = endSeconds - 7_200
  const faultAt = startSeconds + 3_600
  const fault = (time: number): boolean => time >= faultAt && time < faultAt + 600
  const series = [AB, CD].flatMap(({ source, destination }) =>
    istioHistory(
      { reporter: 'source', source_app: source, destination_app: destination },
      {
        ...{ startSeconds, scrapes: 480, scrapeSeconds: 15, requestsPerSecond: () => 20 },
        latencyMs: (time) => (source === 'a' && fault(time) ? 160 : 8 + Math.sin(time)),
      },
    ),
  )
  const prometheus = await startFilledPrometheus(series)
  t.after(prometheus.stop)
  const training = named(
    Array.from({ length: 120 }, (_, i) => 8 + Math.sin(i)),
    AB,
  )
  const truth = { faults: [{ name: 'delay', from: faultAt, to: faultAt + 600, pairs: [AB] }] }
  const args = [
    ...['--prometheus-url', prometheus.url, '--from', String(startSeconds), '--to', String(endSeconds)],
    ...['--training-data-file', temporaryFile(t, training)],
    ...['--training-data-file', temporaryFile(t, training.replace('"a"', '"c"').replace('"b"', '"d"'))],
    ...['--truth', temporaryFile(t, JSON.stringify(truth))],
  ]
  const replayed = await runProgram(t, ['backtest', ...args, '--json'])
  assert.equal(replayed.code, 0, replayed.stderr)
  const { pairs, pollIntervalSeconds, settings } = JSON.parse(replayed.stdout) as Document
  const { measures } = settings[0]!
  assert.deepEqual({ pairs, pollIntervalSeconds }, { pairs: [AB, CD], pollIntervalSeconds: 15 })
  const { observedSeconds, incidents, eventRecall, falseIncidents, toSev1Seconds } = measures
  assert.deepEqual(
    { incidents, eventRecall, falseIncidents, toSev1Seconds },
    { incidents: 1, eventRecall: 1, falseIncidents: 0, toSev1Seconds: null },
  )
  assert.ok(Number(observedSeconds) > 7_000 && Number(observedSeconds) <= 7_200, String(observedSeconds))
  const toSev2Seconds = Number(measures['toSev2Seconds'])
  // Eleven polls, the first of them one or two after the start.
  assert.ok(toSev2Seconds >= 165 && toSev2Seconds <= 240, String(toSev2Seconds))
  const nothing = await runProgram(t, ['backtest', ...args, '--source-label', 'source_workload'])
  assert.deepEqual([nothing.code, nothing.stdout], [1, ''])
  assert.match(nothing.stderr, /(^|\n)meshfever: Prometheus has no latency of a -> b in this range\n$/)
})

test('backtest: a Prometheus that refuses is said in one line, with exit code 1', async (t) => {
  const { url } = await startHttpServer(t, (_request, response) => response.writeHead(401).end())
  const file = temporaryFile(t, named(CALM_MS, AB))
  const args = ['backtest', '--prometheus-url', url, '--from=-1h', '--training-data-file', file]
  const { code, stdout, stderr } = await runProgram(t, args)
  assert.deepEqual([code, stdout, stderr], [1, '', `meshfever: no history from ${url}: HTTP 401\n`])
})

test('backtest: Ctrl-C ends it within a second, with exit code 1 and one line', async (t) => {
  let asked: () => void = () => undefined
  const waiting = new Promise<void>((resolve) => (asked = resolve))
  const { url } = await startHttpServer(t, () => {
    asked()
  })
  const file = temporaryFile(t, named(CALM_MS, AB))
  const program = startProgram(t, ['backtest', '--prometheus-url', url, '--from=-1h', '--training-data-file', file])
  await waiting
  const startMs = performance.now()
  program.kill('SIGINT')
  const { code, signal, stdout, stderr } = await program.exit
  assert.ok(performance.now() - startMs < 1_000)
  assert.deepEqual([code, signal, stdout], [1, null, ''])
  assert.match(stderr, /^meshfever: [^\n]+\n$/)
})
