import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import test, { type TestContext } from 'node:test'

import { parseCommandLine } from '../src/commands/command-line.js'
import { recordCommand } from '../src/commands/record.js'
import { createHttp } from '../src/io/http-client.js'
import { readRecordingFile } from '../src/io/training-file.js'
import { type FakeRuntime, fakeRuntime, matrixAnswer, vectorAnswer, without } from './helpers/fake-runtime.js'
import { startHttpServer } from './helpers/local-server.js'
import { runProgram } from './helpers/program.js'
import { CALM_MS, T0 } from './helpers/recordings.js'
import { temporaryFolder } from './helpers/temporary-folder.js'

/** The result of a range query, with blanks and an order of keys that are Prometheus's own business. */
const RESULT = `[{"metric": {"quantile":"0.5"},"values":[${CALM_MS.map((ms, i) => `[${T0 + 15 * i}, "${ms}.50"]`).join(',')}]}]`
const ANSWER = `{"status":"success", "data":{"result":${RESULT},"resultType":"matrix"}}`

interface Recorded {
  readonly runtime: FakeRuntime
  readonly url: URL
  readonly path: string
  readonly code: Promise<number>
}

async function recording(
  t: TestContext,
  answer: string,
  args: readonly string[] = [],
  status = 200,
  hot = false,
): Promise<Recorded> {
  let asked = new URL('http://nobody')
  const { url } = await startHttpServer(t, (request, response) => {
    const url = new URL(request.url ?? '', 'http://prometheus')
    // The incident daemon's gauges, which are asked for first.
    if (url.pathname === '/api/v1/query') {
      response.writeHead(status).end(status === 200 ? vectorAnswer(hot ? [{ metric: {}, value: '7' }] : []) : answer)
      return
    }
    asked = url
    response.writeHead(status).end(answer)
  })
  const path = join(temporaryFolder(t), 'out.json')
  const parsed = parseCommandLine({
    args: ['record', '--service1=a', '--service2=b', `--prometheus-url=${url}`, `--output=${path}`, ...args],
    environment: {},
    commands: [recordCommand],
    version: '1',
  })
  const runtime: FakeRuntime = { ...fakeRuntime([]), http: createHttp() }
  const code = parsed.kind === 'job' ? parsed.job.run(runtime) : Promise.reject(new Error('no job'))
  code.catch(() => undefined)
  return {
    runtime,
    path,
    code,
    get url() {
      return asked
    },
  }
}

test("record: the file is Prometheus's answer byte for byte, and one key more", async (t) => {
  const recorded = await recording(t, ANSWER, ['--range=10m'])
  assert.equal(await recorded.code, 0)
  const text = readFileSync(recorded.path, 'utf8')
  assert.equal(text.slice(0, ANSWER.length - 1), ANSWER.slice(0, -1))
  const { meshfever } = JSON.parse(text) as { readonly meshfever: Readonly<Record<string, unknown>> }
  assert.equal(text.slice(ANSWER.length - 1), `,"meshfever":${JSON.stringify(meshfever)}}\n`)
  // The clock stands at T0, which is no multiple of 15 s: the range ends at the multiple before.
  const endSeconds = Math.floor(T0 / 15) * 15
  assert.deepEqual(meshfever, {
    pair: { source: 'a', destination: 'b' },
    query: recorded.url.searchParams.get('query'),
    step_seconds: 15,
    range_seconds: [endSeconds - 600, endSeconds],
    recorded_at: '2023-11-14T22:13:20.000Z',
    sha256: createHash('sha256').update(RESULT).digest('hex'),
  })
  assert.deepEqual(readdirSync(dirname(recorded.path)), ['out.json'], 'nothing is left beside it')
})

test('record: it asks for a range at multiples of the step, of latency and traffic', async (t) => {
  const recorded = await recording(t, ANSWER, ['--range=10m', '--step-seconds=5', '--quantile=0.9', '--quantile=0.5'])
  await recorded.code
  const { pathname, searchParams } = recorded.url
  assert.equal(pathname, '/api/v1/query_range')
  const { query = '', ...range } = Object.fromEntries(searchParams)
  assert.deepEqual(range, { start: String(T0 - 600), end: String(T0), step: '5' })
  assert.match(query, /"quantile", "0\.9"[\s\S]*"quantile", "0\.5"[\s\S]*"series", "requests_per_second"/)
})

test('record: what was recorded is read back as it was measured', async (t) => {
  const recorded = await recording(t, ANSWER)
  await recorded.code
  const { series } = readRecordingFile(recorded.path, 'F')
  assert.deepEqual(series, [
    {
      quantile: 0.5,
      timesSeconds: CALM_MS.map((_, i) => T0 + 15 * i),
      latenciesMs: CALM_MS.map((ms) => ms + 0.5),
      requestsPerSecond: null,
    },
  ])
  assert.deepEqual(without(recorded.runtime.logged.at(-1), 'time'), {
    level: 30,
    pair: 'a -> b',
    output: recorded.path,
    series: [{ quantile: 0.5, samples: 40, missing: 0, withRequestRate: false }],
    msg: 'recorded',
  })
})

for (const { name, answer, status, message } of [
  {
    name: 'no series',
    answer: matrixAnswer([]),
    status: 200,
    message: 'nothing recorded: Prometheus has no latency from a to b in this range',
  },
  {
    name: 'a request rate alone',
    answer: matrixAnswer([{ metric: { series: 'requests_per_second' }, values: [[T0, '0']] }]),
    status: 200,
    message: 'nothing recorded: Prometheus has no latency from a to b in this range',
  },
  {
    name: '503',
    answer: 'Service Unavailable',
    status: 503,
    message: /^nothing recorded from http:\/\/127\.0\.0\.1:\d+: HTTP 503$/,
  },
  {
    name: 'HTML',
    answer: '<html>',
    status: 200,
    message: /^nothing recorded from .*: the answer is not JSON: "<html>"$/,
  },
]) {
  test(`record: ${name} is nothing to record, and no file is written`, async (t) => {
    const recorded = await recording(t, answer, [], status)
    await assert.rejects(recorded.code, { name: 'StartError', message })
    assert.deepEqual(readdirSync(dirname(recorded.path)), [])
  })
}

test('record: a place where nothing can be written is a StartError with the path', async () => {
  const parsed = parseCommandLine({
    args: ['record', '--service1=a', '--service2=b', '--prometheus-url=http://p', '--output=/nowhere/x.json'],
    environment: {},
    commands: [recordCommand],
    version: '1',
  })
  assert.ok(parsed.kind === 'job')
  await assert.rejects(parsed.job.run(fakeRuntime([vectorAnswer([]), ANSWER])), {
    name: 'StartError',
    message: /^cannot write \/nowhere\/x\.json: ENOENT/,
  })
})

for (const { range, stepSeconds, points } of [
  { range: '24h', stepSeconds: '5', points: 17_281 },
  { range: '11000s', stepSeconds: '1', points: 11_001 },
  { range: '10999s', stepSeconds: '1', points: 11_000 },
]) {
  test(`record: ${points} samples are ${points > 11_000 ? 'more than Prometheus gives' : 'not too many'}`, () => {
    const parse = (): unknown =>
      parseCommandLine({
        args: [
          'record',
          '--service1=a',
          '--service2=b',
          '--prometheus-url=http://p',
          '--output=o',
          `--range=${range}`,
          `--step-seconds=${stepSeconds}`,
        ],
        environment: {},
        commands: [recordCommand],
        version: '1',
      })
    if (points <= 11_000) assert.doesNotThrow(parse)
    else {
      assert.throws(parse, {
        name: 'UsageError',
        message: `--range over --step-seconds must be at most 11000 samples (Prometheus's limit), got ${points}`,
      })
    }
  })
}

test('record: the program records past a proxy in the environment, and ends with 1 when there is nothing', async (t) => {
  let proxied = 0
  const proxy = await startHttpServer(t, (_request, response) => {
    proxied++
    response.end()
  })
  const answers = [vectorAnswer([]), ANSWER, vectorAnswer([]), matrixAnswer([])]
  const { url } = await startHttpServer(t, (_request, response) => response.end(answers.shift()))
  const path = join(temporaryFolder(t), 'out.json')
  const args = ['record', '--service1=a', '--service2=b', `--prometheus-url=${url}`, `--output=${path}`]
  const environment = { HTTP_PROXY: proxy.url, http_proxy: proxy.url, ALL_PROXY: proxy.url, all_proxy: proxy.url }
  const recorded = await runProgram(t, args, environment)
  assert.deepEqual([recorded.code, recorded.stderr], [0, ''])
  assert.equal(readRecordingFile(path, 'F').series.length, 1)
  const nothing = await runProgram(t, args, environment)
  assert.deepEqual(
    [nothing.code, nothing.stderr],
    [1, 'meshfever: nothing recorded: Prometheus has no latency from a to b in this range\n'],
  )
  assert.equal(readRecordingFile(path, 'F').series.length, 1, 'the good recording is still there')
  assert.equal(proxied, 0)
})

test('record: nothing is recorded as normal during an incident, unless told', async (t) => {
  const refused = await recording(t, ANSWER, [], 200, true)
  await assert.rejects(refused.code, {
    name: 'StartError',
    message: /^nothing recorded: an incident is open, is cooling, or lies in this range/,
  })
  assert.deepEqual(readdirSync(dirname(refused.path)), [])
  const told = await recording(t, ANSWER, ['--despite-incident'], 200, true)
  assert.equal(await told.code, 0)
})
