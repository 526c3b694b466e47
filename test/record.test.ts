import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import test, { type TestContext } from 'node:test'

import { parseCommandLine } from '../src/commands/command-line.js'
import { recordCommand } from '../src/commands/record.js'
import { promqlString } from '../src/core/promql.js'
import { saveRecording } from '../src/io/recorder.js'
import { readRecordingFile } from '../src/io/training-file.js'
import { type FakeRuntime, matrixAnswer, vectorAnswer, without } from './helpers/fake-runtime.js'
import {
  evaluated,
  impatientRuntime,
  type MadeSeries,
  type RangeAsked,
  startRangePrometheus,
} from './helpers/fake-range-prometheus.js'
import { startHttpServer } from './helpers/local-server.js'
import { runProgram } from './helpers/program.js'
import { CALM_MS, T0 } from './helpers/recordings.js'
import { temporaryFolder } from './helpers/temporary-folder.js'

/** The result of a range query, with blanks and an order of keys that are Prometheus's own business. */
const RESULT = `[{"metric": {"quantile":"0.5"},"values":[${CALM_MS.map((ms, i) => `[${T0 + 15 * i}, "${ms}.50"]`).join(',')}]}]`
const ANSWER = `{"status":"success", "data":{"result":${RESULT},"resultType":"matrix"}}`

const SERIES: readonly MadeSeries[] = [
  { metric: { quantile: '0.5' }, at: (time) => `${8 + (time % 5)}.50` },
  { metric: { series: 'requests_per_second' }, at: (time) => String(3 + (time % 3)) },
]

function recorded(runtime: FakeRuntime, args: readonly string[]): Promise<number> {
  const parsed = parseCommandLine({
    args: ['record', ...args],
    environment: {},
    commands: [recordCommand],
    version: '1',
  })
  return parsed.kind === 'job' ? parsed.job.run(runtime) : Promise.reject(new Error('no job'))
}

const PAIR = ['--service1=a', '--service2=b']

/** Runs `record` against an answer to every range query, into out.json of a folder of its own. */
async function recording(
  t: TestContext,
  answer: Parameters<typeof startRangePrometheus>[1],
  args: readonly string[] = [],
  options: Parameters<typeof startRangePrometheus>[2] = {},
): Promise<{
  readonly runtime: FakeRuntime & { readonly pausesMs: readonly number[] }
  readonly path: string
  readonly asked: readonly RangeAsked[]
  readonly incidentsAsked: readonly RangeAsked[]
  /** Runs it, the same command each time. */
  readonly run: (runtime?: FakeRuntime) => Promise<number>
}> {
  const { url, asked, incidentsAsked } = await startRangePrometheus(t, answer, options)
  const path = join(temporaryFolder(t), 'out.json')
  const runtime = impatientRuntime()
  const given = [...(args.some((arg) => arg.startsWith('--pair') || arg === '--all-pairs') ? [] : PAIR), ...args]
  const output = given.some((arg) => arg.startsWith('--output')) ? [] : [`--output=${path}`]
  return {
    runtime,
    path,
    asked,
    incidentsAsked,
    run: (other = runtime) => recorded(other, [...given, `--prometheus-url=${url}`, ...output]),
  }
}

function aboutOf(path: string): Readonly<Record<string, unknown>> {
  return (JSON.parse(readFileSync(path, 'utf8')) as { readonly meshfever: Readonly<Record<string, unknown>> }).meshfever
}

/** What does not change with the time at which it was recorded. */
function timeless(path: string): string {
  return readFileSync(path, 'utf8').replace(/"recorded_at":"[^"]+"/, '')
}

test("record: the file is Prometheus's answer byte for byte, and one key more", async (t) => {
  const { run, path, asked } = await recording(t, () => ANSWER, ['--range=10m'])
  assert.equal(await run(), 0)
  const text = readFileSync(path, 'utf8')
  assert.equal(text.slice(0, ANSWER.length - 1), ANSWER.slice(0, -1))
  const about = aboutOf(path)
  assert.equal(text.slice(ANSWER.length - 1), `,"meshfever":${JSON.stringify(about)}}\n`)
  // The clock stands at T0, which is no multiple of 15 s: the range ends at the multiple before.
  const endSeconds = Math.floor(T0 / 15) * 15
  assert.deepEqual(about, {
    pair: { source: 'a', destination: 'b' },
    query: asked[0]?.query,
    step_seconds: 15,
    range_seconds: [endSeconds - 600, endSeconds],
    left_out: [],
    recorded_at: '2023-11-14T22:13:20.000Z',
    sha256: createHash('sha256').update(RESULT).digest('hex'),
  })
  assert.deepEqual(readdirSync(dirname(path)), ['out.json'], 'nothing is left beside it')
})

test('record: it asks for a range at multiples of the step, of latency and traffic', async (t) => {
  const args = ['--range=10m', '--step-seconds=5', '--quantile=0.9', '--quantile=0.5,0.99']
  const { run, asked } = await recording(t, () => ANSWER, args)
  await run()
  const [{ query, ...range } = { query: '' }] = asked
  assert.deepEqual(range, { start: String(T0 - 600), end: String(T0), step: '5' })
  assert.match(
    query,
    /"quantile", "0\.9"[\s\S]*"quantile", "0\.5"[\s\S]*"quantile", "0\.99"[\s\S]*"series", "requests_per_second"/,
  )
})

for (const { name, args, from, to } of [
  { name: 'no range', args: [], from: T0 - 5 - 3_600, to: T0 - 5 },
  { name: '--from before now', args: ['--from=-2h'], from: T0 - 5 - 7_200, to: T0 - 5 },
  {
    name: '--from and --to before now',
    args: ['--from', '-7d', '--to', '-6d'],
    from: T0 - 5 - 7 * 86_400,
    to: T0 - 5 - 6 * 86_400,
  },
  {
    name: 'unix seconds as they are',
    args: ['--from=1600000001', '--to=1600003602'],
    from: 1_600_000_001,
    to: 1_600_003_602,
  },
  {
    name: 'RFC 3339',
    args: ['--from=2023-11-14T20:00:00Z', '--to=2023-11-14T22:00:00+01:00'],
    from: 1_699_992_000,
    to: 1_699_995_600,
  },
  {
    name: '--range up to --to',
    args: ['--range=30m', '--to=2023-11-14T20:00:00Z'],
    from: 1_699_990_200,
    to: 1_699_992_000,
  },
]) {
  test(`record: the range can be said as ${name}`, async (t) => {
    const { run, asked, path } = await recording(t, (range) => evaluated(SERIES, range), args)
    assert.equal(await run(), 0)
    const last = from + Math.floor((to - from) / 15) * 15
    assert.deepEqual([asked[0]?.start, asked[0]?.end], [String(from), String(last)])
    assert.deepEqual(aboutOf(path)['range_seconds'], [from, to])
  })
}

for (const { name, args, message } of [
  {
    name: 'an end before its start',
    args: ['--from=-1h', '--to=-2h'],
    message: '--from must be before --to, got 2023-11-14T21:13:15Z and 2023-11-14T20:13:15Z',
  },
  {
    name: 'the future',
    args: ['--to=2024-01-01T00:00:00Z'],
    message: '--to must not be in the future, got 2024-01-01T00:00:00Z at 2023-11-14T22:13:20Z',
  },
  {
    name: 'a time before all times',
    args: ['--range=3000w'],
    message: 'the range must begin after 1970, got 1966-05-17T22:13:15Z',
  },
  {
    name: 'more than a recording holds',
    args: ['--range=104w', '--step-seconds=5', '--quantile=0.5,0.9,0.99'],
    message:
      'the range over --step-seconds must be at most 838860 samples (a recording is read up to 64 MiB), got 12579841',
  },
]) {
  test(`record: ${name} is no range, and nothing is asked`, async (t) => {
    const { run, asked, incidentsAsked } = await recording(t, () => ANSWER, args)
    await assert.rejects(run(), { name: 'UsageError', message })
    assert.deepEqual([...asked, ...incidentsAsked], [])
  })
}

test('record: what was recorded is read back as it was measured, and told of with its quality', async (t) => {
  const { run, path, runtime } = await recording(t, () => ANSWER, ['--from', String(T0 - 600), '--to', String(T0)])
  await run()
  const { series } = readRecordingFile(path, 'F')
  assert.deepEqual(series, [
    {
      quantile: 0.5,
      timesSeconds: CALM_MS.map((_, i) => T0 + 15 * i),
      latenciesMs: CALM_MS.map((ms) => ms + 0.5),
      requestsPerSecond: null,
    },
  ])
  assert.deepEqual(without(runtime.logged.at(-1), 'time'), {
    level: 40,
    pair: 'a -> b',
    output: path,
    range: '2023-11-14T22:03:20Z to 2023-11-14T22:13:20Z',
    stepSeconds: 15,
    leftOut: [],
    series: [
      {
        quantile: 0.5,
        samples: 40,
        missing: 0,
        nanShare: 0,
        medianMs: 10.5,
        driftRatio: null,
        distinctValues: 5,
        gaps: 1,
        longestGapSeconds: 600,
        bucketMs: [10, 25],
        bucketShare: 0.6,
      },
    ],
    requestsPerSecond: null,
    dayCoverage: 3 / 288,
    goodToTrainOn: false,
    summary:
      'Not good enough to train load-and-season on: it holds 10 min of samples, and half an hour is the least that shows what is normal; record a longer --range.',
    msg: 'recorded',
  })
  assert.equal(runtime.written(), '')
})

test('record: a good recording is told of as information, with its traffic', async (t) => {
  const { run, runtime } = await recording(t, (range) => evaluated(SERIES, range), ['--range=1h'])
  await run()
  const { level, goodToTrainOn, requestsPerSecond, summary } = runtime.logged.at(-1) ?? {}
  assert.deepEqual(
    [level, goodToTrainOn, requestsPerSecond, summary],
    [
      30,
      true,
      { median: 3, min: 3, max: 3, lowShare: 0, driftRatio: 1 },
      "Good enough to train load-and-season on; it shows 4.51 % of the day, and with --range 1d or more the time of day is learnt, too; p50 never leaves the histogram's bucket from 5 to 10 ms, within which it is a guess.",
    ],
  )
})

test('record: on a terminal there is a bar while it lasts, and then lines for people', async (t) => {
  const { run, runtime, path } = await recording(t, (range) => evaluated(SERIES, range), [
    '--range=5h',
    '--step-seconds=1',
  ])
  const seen: string[] = []
  let monotonicMs = 0
  const terminal: FakeRuntime = {
    ...runtime,
    // Two seconds a chunk.
    clock: { ...runtime.clock, monotonicMs: () => (monotonicMs += 2_000) - 4_000 },
    stdout: { isTerminal: true, write: (text) => Promise.resolve(void seen.push(text)) },
  }
  assert.equal(await run(terminal), 0)
  const CLEAR = '\r\u001b[K'
  assert.deepEqual(seen, [
    `${CLEAR}[--------------------]   0 %  0/2 chunks\r`,
    `${CLEAR}[############--------]  61 %  1/2 chunks  0:03 left\r`,
    `${CLEAR}[####################] 100 %  2/2 chunks\r`,
    CLEAR,
    `a -> b: saved to ${path}
  range: 2023-11-14T17:13:20Z to 2023-11-14T22:13:20Z, every 1 s
  p50: 18001 samples, no gap, 0 % NaN, median 10.5 ms, second half 1 times the first, 5 distinct values, 60 % in the bucket from 10 to 25 ms
  traffic: median 4 requests per second, 3 to 5, 0 % below 0.1
  time of day: 21.2 % of it seen
  Good enough to train load-and-season on; it shows 21.2 % of the day, and with --range 1d or more the time of day is learnt, too.
`,
  ])
  assert.deepEqual(runtime.logged, [])
})

test('record: a terminal that is gone is no reason to stop recording', async (t) => {
  const { run, runtime, path } = await recording(t, (range) => evaluated(SERIES, range))
  const stdout = {
    isTerminal: true,
    write: () => Promise.reject(Object.assign(new Error('write EIO'), { code: 'EIO' })),
  }
  assert.equal(await run({ ...runtime, stdout }), 0)
  assert.equal(readRecordingFile(path, 'F').series[0]?.latenciesMs.length, 241)
})

test('record: elsewhere there is a line every five seconds at most', async (t) => {
  const { run, runtime } = await recording(t, (range) => evaluated(SERIES, range), ['--range=20h', '--step-seconds=1'])
  let monotonicMs = 0
  await run({ ...runtime, clock: { ...runtime.clock, monotonicMs: () => (monotonicMs += 2_000) - 4_000 } })
  assert.deepEqual(
    runtime.logged.map((line) => [line['msg'], line['percent'], line['chunk'], line['secondsLeft']]),
    [
      ['recording', 30, '2/7', 14],
      ['recording', 76, '5/7', 4],
      ['recorded', undefined, undefined, undefined],
    ],
  )
})

for (const { name, answer, message } of [
  {
    name: 'no series',
    answer: matrixAnswer([]),
    message: 'nothing recorded: Prometheus has no latency from a to b in this range; ask meshfever doctor why',
  },
  {
    name: 'a request rate alone',
    answer: matrixAnswer([{ metric: { series: 'requests_per_second' }, values: [[T0, '0']] }]),
    message: 'nothing recorded: Prometheus has no latency from a to b in this range; ask meshfever doctor why',
  },
  {
    name: 'latency without a request',
    answer: matrixAnswer([{ metric: { quantile: '0.5' }, values: [[T0, 'NaN']] }]),
    message: 'nothing recorded: no request from a to b in this range',
  },
  {
    name: '503',
    answer: { status: 503, body: 'Service Unavailable' },
    message: /^nothing recorded: Prometheus at http:\/\/127\.0\.0\.1:\d+: HTTP 503 \(asked 4 times\)$/,
  },
  {
    name: 'HTML',
    answer: '<html>',
    message: /^nothing recorded: Prometheus at .*: the answer is not JSON: "<html>"$/,
  },
]) {
  test(`record: ${name} is nothing to record, and no file is written`, async (t) => {
    const { run, path } = await recording(t, () => answer)
    await assert.rejects(run(), { name: 'StartError', message })
    assert.deepEqual(readdirSync(dirname(path)), [])
  })
}

test('record: a place where nothing can be written is a StartError with the path', async (t) => {
  const { run } = await recording(t, () => ANSWER, ['--output=/nowhere/x.json'])
  await assert.rejects(run(), {
    name: 'StartError',
    message: /^nothing recorded: cannot write \/nowhere\/x\.json: ENOENT/,
  })
})

test('record: an output that would be destroyed is refused', async (t) => {
  const folder = temporaryFolder(t)
  writeFileSync(join(folder, 'file'), 'precious')
  mkdirSync(join(folder, 'folder'))
  symlinkSync('/dev/null', join(folder, 'null'))
  for (const { args, message } of [
    {
      args: ['--output', join(folder, 'folder')],
      message: /^--output must be a file for one pair, got .*folder, which is a folder$/,
    },
    {
      args: ['--output', join(folder, 'null')],
      message: /^--output must be a file for one pair, got .*null, which is neither/,
    },
    {
      args: ['--output', join(folder, 'file'), '--all-pairs'],
      message: /^--output must be a folder for several pairs, got .*file, which is a file$/,
    },
  ]) {
    const { run, asked } = await recording(t, () => ANSWER, args)
    await assert.rejects(run(), { name: 'UsageError', message })
    assert.deepEqual(asked, [])
  }
  assert.equal(readFileSync(join(folder, 'file'), 'utf8'), 'precious')
})

test('record: the program records past a proxy in the environment, and ends with 1 when there is nothing', async (t) => {
  let proxied = 0
  const proxy = await startHttpServer(t, (_request, response) => {
    proxied++
    response.end()
  })
  const none = matrixAnswer([])
  const answers = [vectorAnswer([]), none, ANSWER, vectorAnswer([]), none, none]
  const { url } = await startHttpServer(t, (_request, response) => response.end(answers.shift()))
  const path = join(temporaryFolder(t), 'out.json')
  const args = ['record', '--service1=a', '--service2=b', `--prometheus-url=${url}`, `--output=${path}`]
  const environment = { HTTP_PROXY: proxy.url, http_proxy: proxy.url, ALL_PROXY: proxy.url, all_proxy: proxy.url }
  const done = await runProgram(t, args, environment)
  assert.deepEqual([done.code, done.stderr], [0, ''])
  assert.equal(readRecordingFile(path, 'F').series.length, 1)
  const nothing = await runProgram(t, args, environment)
  assert.deepEqual(
    [nothing.code, nothing.stderr],
    [1, 'meshfever: nothing recorded: Prometheus has no latency from a to b in this range; ask meshfever doctor why\n'],
  )
  assert.equal(readRecordingFile(path, 'F').series.length, 1, 'the good recording is still there')
  assert.equal(proxied, 0)
})

test('record: nothing is recorded as normal during an incident, unless told', async (t) => {
  const refused = await recording(t, () => ANSWER, [], { hotNow: () => true })
  await assert.rejects(refused.run(), {
    name: 'StartError',
    message:
      'nothing recorded: an incident is open or cooling, and nothing is recorded as normal before it is over; record later, or with --despite-incident',
  })
  assert.deepEqual(readdirSync(dirname(refused.path)), [])
  const told = await recording(t, () => ANSWER, ['--despite-incident'], { hotNow: () => true, hot: () => true })
  assert.equal(await told.run(), 0)
  assert.deepEqual(told.incidentsAsked, [])
  assert.ok(readFileSync(told.path, 'utf8').startsWith(ANSWER.slice(0, -1)))
  assert.deepEqual(aboutOf(told.path)['left_out'], [])
})

test('record: times with an incident, and a query window behind them, are gaps in the file', async (t) => {
  const hot = (time: number): boolean => (time >= T0 - 3_000 && time <= T0 - 2_700) || time === T0 - 600
  const { run, path, runtime, incidentsAsked } = await recording(
    t,
    (range) => evaluated(SERIES, range),
    ['--range=1h', '--step-seconds=5', '--query-window=2m'],
    { hot },
  )
  assert.equal(await run(), 0)
  assert.deepEqual(aboutOf(path)['left_out'], [
    [T0 - 3_000, T0 - 2_580],
    [T0 - 600, T0 - 480],
  ])
  const { series } = readRecordingFile(path, 'F')
  const wanted = Array.from({ length: 721 }, (_, i) => T0 - 3_600 + 5 * i).filter(
    (time) => !(time >= T0 - 3_000 && time <= T0 - 2_580) && !(time >= T0 - 600 && time <= T0 - 480),
  )
  assert.deepEqual(series[0]?.timesSeconds, wanted)
  assert.deepEqual(
    series[0].latenciesMs,
    wanted.map((time) => 8.5 + (time % 5)),
  )
  const values = JSON.stringify((JSON.parse(readFileSync(path, 'utf8')) as { data: { result: unknown } }).data.result)
  assert.equal(aboutOf(path)['sha256'], createHash('sha256').update(values).digest('hex'))
  const told = runtime.logged.at(-1) ?? {}
  assert.deepEqual(told['leftOut'], [
    '2023-11-14T21:23:20Z to 2023-11-14T21:30:20Z',
    '2023-11-14T22:03:20Z to 2023-11-14T22:05:20Z',
  ])
  assert.equal((told['series'] as { gaps: number }[])[0]?.gaps, 0, 'what was left out on purpose is no gap')
  // An incident that ended less than a window before the range would still show in its first samples.
  assert.equal(incidentsAsked[0]?.start, String(T0 - 3_600 - 120))
})

test('record: a range that is all incident is nothing to record', async (t) => {
  const { run, path } = await recording(t, (range) => evaluated(SERIES, range), [], { hot: () => true })
  await assert.rejects(run(), {
    name: 'StartError',
    message:
      'nothing recorded: all samples from a to b in this range lie in incidents; record another range, or with --despite-incident',
  })
  assert.deepEqual(readdirSync(dirname(path)), [])
})

test('record: what Prometheus warns of is passed on', async (t) => {
  const { run, runtime } = await recording(t, () =>
    ANSWER.replace('"status"', '"warnings":["a store is away"],"status"'),
  )
  await run()
  assert.deepEqual(without(runtime.logged[0], 'time'), {
    level: 40,
    pair: 'a -> b',
    warnings: ['a store is away'],
    msg: 'Prometheus warned of its answer',
  })
})

test('record: its callers get the recording, and nothing but the file', async (t) => {
  const { url } = await startRangePrometheus(t, (range) => evaluated(SERIES, range), { hot: (time) => time === T0 })
  const path = join(temporaryFolder(t), 'out.json')
  const runtime = impatientRuntime()
  const { series, leftOut } = await saveRecording(
    runtime,
    {
      pair: { source: 'a', destination: 'b' },
      prometheusUrl: url,
      query: 'latency',
      startSeconds: T0 - 150,
      endSeconds: T0,
      stepSeconds: 15,
      despiteIncident: false,
    },
    path,
  )
  assert.deepEqual(series, readRecordingFile(path, 'F').series)
  assert.deepEqual([series[0]?.timesSeconds.length, leftOut], [10, [{ fromSeconds: T0, toSeconds: T0 }]])
  assert.deepEqual([runtime.logged, runtime.written()], [[], ''])
})

// --- several chunks: kept on the way, and gone on from

const LONG = ['--range=10h', '--step-seconds=1']
const PARTIAL = 'out.json.partial.ndjson'

/** Answers the first `good` range queries; then it is down until `mend`. */
function mortal(good: number): {
  readonly answer: Parameters<typeof startRangePrometheus>[1]
  readonly mend: () => void
} {
  let mended = false
  return {
    answer: (range, index) => (index < good || mended ? evaluated(SERIES, range) : { status: 503, body: '' }),
    mend: () => {
      mended = true
    },
  }
}

test('record: when Prometheus dies on the way, what was fetched is kept, and the same command goes on over the same range', async (t) => {
  const undisturbed = await recording(t, (range) => evaluated(SERIES, range), LONG)
  await undisturbed.run()
  const { answer, mend } = mortal(2)
  const { run, path, asked, runtime } = await recording(t, answer, LONG)
  await assert.rejects(run(), {
    name: 'StartError',
    message: new RegExp(
      `^not all recorded: Prometheus at http://127\\.0\\.0\\.1:\\d+: HTTP 503 \\(asked 4 times\\); what was fetched until then is kept, as partial, in .*/${PARTIAL}, and the same command goes on from there$`,
    ),
  })
  assert.deepEqual(readdirSync(dirname(path)), [PARTIAL])
  const kept = readFileSync(join(dirname(path), PARTIAL), 'utf8').split('\n')
  assert.deepEqual(JSON.parse(kept[0] ?? ''), {
    partial: true,
    asked: {
      '--prometheus-url': new URL(asked[0] === undefined ? '' : urlOf(kept)).origin,
      '--step-seconds': 1,
      range: '36000s to now0s',
      pairs: 'a:b',
      query: asked[0]?.query.replaceAll('"a"', '"SOURCE"').replaceAll('"b"', '"DESTINATION"'),
    },
    startSeconds: T0 - 36_000,
    endSeconds: T0,
    pairs: [{ source: 'a', destination: 'b' }],
  })
  assert.equal(kept.length, 4, 'a header, two chunks, and nothing torn')

  mend()
  const before = asked.length
  // Half an hour later.
  const later = impatientRuntime((T0 + 1_800) * 1000)
  assert.equal(await run(later), 0)
  assert.deepEqual(
    asked.slice(before).map(({ start, end }) => [Number(start) - T0, Number(end) - T0]),
    [
      [-14_000, -3_001],
      [-3_000, 0],
    ],
  )
  assert.equal(timeless(path), timeless(undisturbed.path))
  assert.deepEqual(readdirSync(dirname(path)), ['out.json'])
  assert.deepEqual(without(later.logged[0], 'time'), {
    level: 30,
    file: join(dirname(path), PARTIAL),
    range: '2023-11-14T12:13:20Z to 2023-11-14T22:13:20Z',
    savedPairs: 0,
    chunks: 2,
    msg: 'going on with an unfinished recording, over the range that it was begun with',
  })
  assert.equal(runtime.logged.filter(({ msg }) => msg === 'recorded').length, 0)
})

function urlOf(lines: readonly string[]): string {
  return (JSON.parse(lines[0] ?? '') as { asked: Record<string, string> }).asked['--prometheus-url'] ?? ''
}

test('record: a line that a crash tore is fetched again', async (t) => {
  const undisturbed = await recording(t, (range) => evaluated(SERIES, range), LONG)
  await undisturbed.run()
  for (const { name, lines, tail, chunks } of [
    { name: 'in the second chunk', lines: 2, tail: '{"pairIndex":0,"points":11000,"answer":{"sta', chunks: 3 },
    { name: 'zeros of a power cut', lines: 3, tail: '\0\0\0\0', chunks: 2 },
    { name: 'before the first byte', lines: 0, tail: '', chunks: 4 },
  ]) {
    let left = 2
    const allow = (more: number): void => {
      left = more
    }
    const { run, path, asked } = await recording(
      t,
      (range) => (left-- > 0 ? evaluated(SERIES, range) : { status: 503, body: '' }),
      LONG,
    )
    await assert.rejects(run())
    const partial = join(dirname(path), PARTIAL)
    const whole = readFileSync(partial, 'utf8').split('\n').slice(0, lines)
    writeFileSync(partial, [...whole, tail].join('\n'))
    const before = asked.length
    // Once more in vain: what is torn must not tear the lines behind it.
    allow(1)
    await assert.rejects(run(), { name: 'StartError' })
    allow(Infinity)
    assert.equal(await run(), 0, name)
    assert.equal(asked.length - before - 4, chunks, name)
    assert.equal(timeless(path), timeless(undisturbed.path), name)
  }
})

test('record: another command does not go on with what is kept, and says what is different and what to do', async (t) => {
  const { answer, mend } = mortal(1)
  const { url, asked } = await startRangePrometheus(t, answer)
  const path = join(temporaryFolder(t), 'out.json')
  const run = (...args: readonly string[]): Promise<number> =>
    recorded(impatientRuntime(), [`--output=${path}`, `--prometheus-url=${url}`, ...args])
  await assert.rejects(run(...PAIR, ...LONG))
  mend()
  const before = asked.length
  for (const { args, different } of [
    { args: [...PAIR, '--range=10h', '--step-seconds=2'], different: '--step-seconds (1, now 2)' },
    {
      args: [...PAIR, '--range=9h', '--step-seconds=1'],
      different: 'range ("36000s to now0s", now "32400s to now0s")',
    },
    {
      args: [...PAIR, '--from=1699990000', '--step-seconds=1'],
      different: 'range ("36000s to now0s", now "from 1699990000 to now0s")',
    },
    { args: ['--pair=a:c', ...LONG], different: 'pairs ("a:b", now "a:c")' },
    { args: [...PAIR, ...LONG, '--quantile=0.9'], different: 'query (' },
    { args: [...PAIR, ...LONG, '--query-window=5m'], different: 'query (' },
  ]) {
    await assert.rejects(run(...args), (error: Error) => {
      assert.equal(error.name, 'UsageError')
      assert.ok(
        error.message.startsWith(
          `--output: ${path}.partial.ndjson keeps an unfinished recording with other ${different}`,
        ),
        error.message,
      )
      assert.ok(
        error.message.endsWith(': give the same again to go on with it, or delete it, or give another --output'),
        error.message,
      )
      return true
    })
  }
  assert.equal(asked.length, before)
  // The same pair in other words, and the same range.
  assert.equal(await run('--pair=a:b', '--range=600m', '--step-seconds=1'), 0)
})

test('record: a file in the way that is none of ours is not touched', async (t) => {
  for (const content of ['my notes\n', '{"partial":false}\n', '{"partial":true,"asked":{}}\nno\n', 'x']) {
    const { run, path, asked } = await recording(t, () => ANSWER)
    writeFileSync(`${path}.partial.ndjson`, content)
    await assert.rejects(run(), {
      name: 'UsageError',
      message: `--output: ${path}.partial.ndjson is in the way: it is not what meshfever record keeps there of an unfinished recording; delete it, or give another --output`,
    })
    assert.equal(readFileSync(`${path}.partial.ndjson`, 'utf8'), content)
    assert.deepEqual(asked, [])
  }
})

test('record: an incident that opens between two tries holds the second one back, and loses nothing', async (t) => {
  const { answer, mend } = mortal(2)
  const now = { hot: false }
  const { run } = await recording(t, answer, LONG, { hotNow: () => now.hot })
  await assert.rejects(run())
  mend()
  now.hot = true
  await assert.rejects(run(), {
    message: /^not all recorded: an incident is open or cooling.*kept, as partial, in .*goes on from there$/,
  })
  now.hot = false
  assert.equal(await run(), 0)
})

test('record: a stop is answered at once, and keeps what there is', async (t) => {
  const runtime = impatientRuntime()
  const { run, path } = await recording(
    t,
    (range, index) => (index < 2 ? evaluated(SERIES, range) : () => runtime.stop()),
    LONG,
  )
  await assert.rejects(run(runtime), {
    name: 'StartError',
    message: /^not all recorded: stopped; what was fetched until then is kept, as partial, in .*\.partial\.ndjson, and/,
  })
  assert.deepEqual(readdirSync(dirname(path)), [PARTIAL])
  const early = impatientRuntime()
  const first = await recording(t, () => () => early.stop(), LONG)
  await assert.rejects(first.run(early), { name: 'StartError', message: 'nothing recorded: stopped' })
  assert.deepEqual(readdirSync(dirname(first.path)), [])
})

// --- several pairs

/** Pairs whose latency is their number; the first half of the pairs' range is the same for all. */
function pairsAnswer(pairs: readonly string[]): (range: RangeAsked) => string {
  return (range) => {
    if (range.query.startsWith('count by')) {
      return evaluated(
        pairs.map((pair) => {
          const [source_app = '', destination_app = ''] = pair.split(':')
          return { metric: { source_app, destination_app }, at: () => '1' }
        }),
        range,
      )
    }
    const index = pairs.findIndex((pair) => {
      const [source = '', destination = ''] = pair.split(':')
      return range.query.includes(`source_app=${promqlString(source)},destination_app=${promqlString(destination)}}`)
    })
    return index === -1
      ? matrixAnswer([])
      : evaluated([{ metric: { quantile: '0.5' }, at: () => String(index + 1) }, SERIES[1]!], range)
  }
}

test('record: several pairs go into a folder, and one without data does not stop the others', async (t) => {
  const { run, path, runtime, asked } = await recording(t, pairsAnswer(['a:b', 'c:d']), [
    '--pair=a:b',
    '--pair=x:y',
    '--pair=c:d',
    '--quantile=0.5',
  ])
  assert.equal(await run(), 1)
  assert.deepEqual(readdirSync(path).sort(), ['a-b.json', 'c-d.json'])
  for (const [file, ms] of [
    ['a-b.json', 1],
    ['c-d.json', 2],
  ] as const) {
    const { series } = readRecordingFile(join(path, file), 'F')
    assert.deepEqual(
      [series[0]?.latenciesMs.length, series[0]?.latenciesMs.every((value) => value === ms)],
      [241, true],
    )
  }
  assert.deepEqual(aboutOf(join(path, 'c-d.json'))['pair'], { source: 'c', destination: 'd' })
  assert.deepEqual(
    runtime.logged.map(({ level, pair, msg, reason }) => [level, pair, msg, reason]),
    [
      [30, 'a -> b', 'recorded', undefined],
      [
        40,
        'x -> y',
        'nothing recorded',
        'Prometheus has no latency from x to y in this range; ask meshfever doctor why',
      ],
      [30, 'c -> d', 'recorded', undefined],
    ],
  )
  assert.equal(new Set(asked.map(({ start, end }) => `${start} ${end}`)).size, 1)
})

test('record: --all-pairs takes the pairs that were there at any time of the range, and says which it leaves out', async (t) => {
  const { run, path, runtime, asked } = await recording(t, pairsAnswer(['c:d', 'unknown:c', 'a:b', 'a:unknown']), [
    '--all-pairs',
    '--range=2h',
  ])
  assert.equal(await run(), 0)
  assert.deepEqual(readdirSync(path).sort(), ['a-b.json', 'c-d.json'])
  assert.deepEqual(without(runtime.logged[0], 'time'), {
    level: 30,
    pairs: ['a -> unknown', 'unknown -> c'],
    msg: 'pairs with a side that Istio does not know were left out',
  })
  // Five minutes a step, each looking back to the one before, over the two hours.
  assert.match(asked[0]?.query ?? '', /\{reporter="source"\}\[300000ms\]/)
  assert.deepEqual([asked[0]?.start, asked[0]?.end, asked[0]?.step], [String(T0 - 5 - 6_900), String(T0 - 5), '300'])
})

test('record: --all-pairs without any is an error that says what was looked for', async (t) => {
  const { run, path } = await recording(t, pairsAnswer([]), ['--all-pairs'])
  await assert.rejects(run(), {
    name: 'StartError',
    message:
      'nothing recorded: Prometheus has no istio_request_duration_milliseconds_count with reporter="source", source_app and destination_app in this range; ask meshfever doctor why',
  })
  assert.equal(existsSync(path), false)
})

test('record: a folder goes on where it was, with the pairs and the range it was begun with', async (t) => {
  const pairs = ['a:b', 'c:d', 'e:f']
  const state = { broken: true, pairs }
  const answer = (range: RangeAsked): ReturnType<Parameters<typeof startRangePrometheus>[1]> =>
    // The second pair's second chunk.
    state.broken && range.query.includes('"c"') && Number(range.start) > T0 - 8_000
      ? { status: 503, body: '' }
      : pairsAnswer(state.pairs)(range)
  const { run, path, asked } = await recording(t, answer, ['--all-pairs', '--range=5h', '--step-seconds=1'])
  await assert.rejects(run(), {
    name: 'StartError',
    message:
      /^not all recorded: .*kept, as partial, in .*\/out\.json\/unfinished\.partial\.ndjson, and the same command/,
  })
  assert.deepEqual(readdirSync(path).sort(), ['a-b.json', 'unfinished.partial.ndjson'])
  const lines = readFileSync(join(path, 'unfinished.partial.ndjson'), 'utf8').split('\n')
  assert.deepEqual(
    [lines[1], lines.length],
    ['{"saved":0}', 4],
    "of a saved pair no chunk is kept, of the next one's two the first",
  )
  const saved = readFileSync(join(path, 'a-b.json'), 'utf8')

  state.broken = false
  state.pairs = [...pairs, 'new:one']
  const before = asked.length
  const later = impatientRuntime((T0 + 7_200) * 1000)
  assert.equal(await run(later), 0)
  assert.deepEqual(
    asked.slice(before).map(({ query, start }) => [/source_app="(\w+)"/.exec(query)?.[1], Number(start) - T0]),
    [
      ['c', -7_000],
      ['e', -18_000],
      ['e', -7_000],
    ],
  )
  assert.deepEqual(readdirSync(path).sort(), ['a-b.json', 'c-d.json', 'e-f.json'])
  assert.equal(readFileSync(join(path, 'a-b.json'), 'utf8'), saved)
  assert.deepEqual(aboutOf(join(path, 'e-f.json'))['range_seconds'], [T0 - 18_000, T0])
})

test('record: a saved pair whose file is gone is recorded again', async (t) => {
  const state = { broken: true }
  const answer = (range: RangeAsked): ReturnType<Parameters<typeof startRangePrometheus>[1]> =>
    state.broken && range.query.includes('"c"') ? { status: 503, body: '' } : pairsAnswer(['a:b', 'c:d'])(range)
  const { run, path } = await recording(t, answer, ['--pair=a:b', '--pair=c:d'])
  await assert.rejects(run())
  assert.deepEqual(readdirSync(path).sort(), ['a-b.json', 'unfinished.partial.ndjson'])
  rmSync(join(path, 'a-b.json'))
  state.broken = false
  assert.equal(await run(), 0)
  assert.deepEqual(readdirSync(path).sort(), ['a-b.json', 'c-d.json'])
})

test('record: on a terminal the bar counts the pairs, and a name cannot write to it', async (t) => {
  const { run, runtime, path } = await recording(t, pairsAnswer(['a:b', 'c\u001b[2J:d']), ['--all-pairs'])
  const seen: string[] = []
  const stdout = { isTerminal: true, write: (text: string) => Promise.resolve(void seen.push(text)) }
  assert.equal(await run({ ...runtime, stdout }), 0)
  assert.match(seen[0] ?? '', /\[-{20}\] {3}0 % {2}pair 1\/2 {2}0\/1 chunks\r$/)
  assert.match(seen[1] ?? '', /\[#{10}-{10}\] {2}50 % {2}pair 1\/2 {2}1\/1 chunks/)
  assert.equal(seen[7]?.split('\n')[0], `c [2J -> d: saved to ${join(path, 'c%1B%5B2J-d.json')}`)
  assert.equal(basename(path), 'out.json')
})
