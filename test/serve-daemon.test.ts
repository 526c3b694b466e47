import assert from 'node:assert/strict'
import { request } from 'node:http'
import test, { type TestContext } from 'node:test'

import { Gauge } from 'prom-client'

import type { PollOutcome } from '../src/core/reading.js'
import { createMonitorPage } from '../src/page/monitor-page.js'
import type { PageState } from '../src/page/page-state.js'
import { pollDeadlineMs, type PollResult, serveDaemon } from '../src/io/serve-daemon.js'
import { samplesOf } from './helpers/exposition.js'
import { type FakeRuntime, fakeRuntime } from './helpers/fake-runtime.js'
import { startTcpServer } from './helpers/local-server.js'
import { assertPromtoolAccepts, noPromtool } from './helpers/promtool.js'

const INTERVAL_MS = 5_000

interface Served {
  readonly runtime: FakeRuntime
  readonly exit: Promise<number>
  readonly get: (path: string) => Promise<{ readonly status: number; readonly body: string }>
  readonly samples: () => Promise<ReadonlyMap<string, number>>
}

/** A daemon whose polls come to these outcomes, the last of them for ever. */
async function serving(
  t: TestContext,
  outcomes: readonly PollOutcome[],
  poll?: (runtime: FakeRuntime) => Promise<PollResult>,
): Promise<Served> {
  const runtime = fakeRuntime([])
  let polls = 0
  const exit = serveDaemon(
    runtime,
    { command: 'monitor', listenAddress: '127.0.0.1', port: 0, pollIntervalMs: INTERVAL_MS },
    (registry) => {
      const gauge = new Gauge({ name: 'test_polls', help: 'Polls', registers: [registry] })
      return {
        poll: async () => {
          gauge.set(++polls)
          if (poll !== undefined) return poll(runtime)
          const outcome = outcomes[polls - 1] ?? outcomes.at(-1) ?? 'ok'
          return { outcome, detail: outcome === 'ok' ? '' : `because of ${outcome}` }
        },
      }
    },
  )
  t.after(async () => {
    runtime.stop()
    await exit.catch(() => undefined)
  })
  await runtime.clock.asleep()
  const url = String(runtime.logged.find(({ msg }) => msg === 'listening')?.['url'])
  const get = async (path: string): Promise<{ status: number; body: string }> => {
    const response = await fetch(url + path)
    return { status: response.status, body: await response.text() }
  }
  return { runtime, exit, get, samples: async () => samplesOf((await get('/metrics')).body) }
}

for (const outcome of ['ok', 'warnings', 'empty', 'nonfinite', 'out_of_domain', 'stale'] as const) {
  test(`daemon server: it is ready once Prometheus answered, if only with "${outcome}"`, async (t) => {
    const { get, runtime } = await serving(t, ['conn', outcome, 'conn'])
    assert.deepEqual(await get('/readyz'), {
      status: 503,
      body: 'no poll was answered yet, or no baseline is fitted\n',
    })
    assert.deepEqual(await get('/healthz'), { status: 200, body: 'ok\n' })
    await runtime.clock.advance(INTERVAL_MS)
    assert.deepEqual(await get('/readyz'), { status: 200, body: 'ready\n' })
    await runtime.clock.advance(INTERVAL_MS)
    // An outage must not take away the metrics that say so.
    assert.deepEqual(await get('/readyz'), { status: 200, body: 'ready\n' })
  })
}

for (const outcome of [
  'conn',
  'dns',
  'tls',
  'timeout',
  'http_5xx',
  'http_4xx',
  'auth',
  'bad_json',
  'redirect',
] as const) {
  test(`daemon server: "${outcome}" is no answer, so it is healthy and not ready`, async (t) => {
    const { get } = await serving(t, [outcome])
    assert.equal((await get('/readyz')).status, 503)
    assert.equal((await get('/healthz')).status, 200)
  })
}

test('daemon server: polls are counted by outcome, every outcome from the start', async (t) => {
  const { samples, runtime } = await serving(t, ['ok', 'conn', 'conn', 'warnings', 'nonfinite'])
  const before = await samples()
  assert.equal(before.get('meshfever_polls_total{outcome="ok"}'), 1)
  assert.equal(before.get('meshfever_polls_total{outcome="tls"}'), 0)
  assert.equal(before.get('meshfever_last_success_timestamp_seconds'), 1_700_000_000)
  for (let i = 0; i < 4; i++) await runtime.clock.advance(INTERVAL_MS)
  const after = await samples()
  assert.deepEqual(
    ['ok', 'conn', 'warnings', 'nonfinite'].map((outcome) => after.get(`meshfever_polls_total{outcome="${outcome}"}`)),
    [1, 2, 1, 1],
  )
  assert.equal(after.get('meshfever_poll_duration_seconds_count'), 5)
  assert.equal(after.get('meshfever_last_success_timestamp_seconds'), 1_700_000_015, 'warnings are a success')
  assert.equal(after.get('meshfever_build_info{version="0.0.0",node_version="v20.19.0",command="monitor"}'), 1)
  assert.ok(after.has('process_resident_memory_bytes'))
  // Its distribution would be half a second of an event loop that is idle.
  assert.deepEqual(
    [...after.keys()].filter((name) => name.startsWith('nodejs_eventloop_lag')),
    ['nodejs_eventloop_lag_seconds'],
  )
})

test('daemon server: without a success there is no time of the last one', async (t) => {
  const { samples } = await serving(t, ['empty'])
  assert.equal((await samples()).has('meshfever_last_success_timestamp_seconds'), false)
})

test('daemon server: a slow poll has its duration, and the slots it took are counted as skipped', async (t) => {
  const durationsMs = [12_000, 0]
  const { samples, runtime } = await serving(t, [], async ({ clock, signal }) => {
    await clock.sleep(durationsMs.shift() ?? 0, signal)
    return { outcome: 'ok', detail: '' }
  })
  await runtime.clock.advance(12_000)
  assert.equal((await samples()).get('meshfever_poll_duration_seconds_sum'), 12)
  await runtime.clock.advance(3_000)
  await runtime.clock.advance(0)
  const after = await samples()
  assert.deepEqual([after.get('meshfever_polls_skipped_total'), after.get('test_polls')], [2, 2])
})

test('daemon server: what is served is what the last poll left, not what a poll is at', async (t) => {
  let begun = 0
  const { samples, runtime } = await serving(t, [], async ({ clock, signal }) => {
    if (++begun > 1) await clock.sleep(1_000, signal)
    return { outcome: 'ok', detail: '' }
  })
  await runtime.clock.advance(INTERVAL_MS)
  assert.deepEqual([begun, (await samples()).get('test_polls')], [2, 1])
  await runtime.clock.advance(1_000)
  assert.equal((await samples()).get('test_polls'), 2)
})

test('daemon server: trouble is logged when it begins, when it changes, once a minute and when it is over', async (t) => {
  const outcomes: readonly PollOutcome[] = [
    'ok',
    ...Array.from({ length: 30 }, () => 'conn' as const), // from 5 s to 150 s
    'timeout', // 155 s
    'timeout',
    'ok', // 165 s
    'warnings', // 170 s
    'ok',
  ]
  const { runtime } = await serving(t, outcomes)
  for (let i = 1; i < outcomes.length; i++) await runtime.clock.advance(INTERVAL_MS)
  const lines = runtime.logged
    .filter(({ msg }) => msg !== 'listening')
    .map(({ level, msg, outcome, polls, detail }) => [level, msg, outcome, polls ?? null, detail ?? null])
  assert.deepEqual(lines, [
    [40, 'polls fail', 'conn', null, 'because of conn'],
    [40, 'polls still fail', 'conn', 12, 'because of conn'],
    [40, 'polls still fail', 'conn', 24, 'because of conn'],
    [40, 'polls fail', 'timeout', null, 'because of timeout'],
    [30, 'polls succeed again', 'timeout', 2, null],
    [40, 'polls come with warnings', 'warnings', null, 'because of warnings'],
    [30, 'polls succeed again', 'warnings', 1, null],
  ])
})

test('daemon server: a stop ends it with 0 and a last line, and nobody is served any more', async (t) => {
  const { runtime, exit, get } = await serving(t, ['ok'])
  runtime.stop()
  assert.equal(await exit, 0)
  assert.equal(runtime.logged.at(-1)?.['msg'], 'stopped')
  await assert.rejects(get('/healthz'))
})

test('daemon server: a poll that was cut by a stop is neither counted nor logged as trouble', async (t) => {
  const { runtime, exit } = await serving(t, [], async ({ clock, signal }) => {
    await clock.sleep(3_600_000, signal)
    return { outcome: 'conn', detail: 'stopped while asking' }
  })
  runtime.stop()
  assert.equal(await exit, 0)
  assert.deepEqual(
    runtime.logged.map(({ msg }) => msg),
    ['listening', 'stopped'],
  )
})

test('daemon server: a bug in a poll ends the daemon with that error and frees the port', async (t) => {
  const bug = new Error('a bug')
  const { exit, runtime } = await serving(t, [], ({ clock, signal }) =>
    clock.sleep(1, signal).then(() => Promise.reject(bug)),
  )
  const ended = assert.rejects(exit, (error: unknown) => error === bug)
  await runtime.clock.advance(1)
  await ended
  const url = String(runtime.logged.find(({ msg }) => msg === 'listening')?.['url'])
  await assert.rejects(fetch(url))
})

test('daemon server: a port in use is a StartError before the first poll', async (t) => {
  const { port } = await startTcpServer(t, () => undefined)
  let polls = 0
  const options = { command: 'incident', listenAddress: '127.0.0.1', port, pollIntervalMs: INTERVAL_MS }
  const poll = (): Promise<PollResult> => {
    polls++
    return Promise.resolve({ outcome: 'ok', detail: '' })
  }
  await assert.rejects(
    serveDaemon(fakeRuntime([]), options, () => ({ poll })),
    { name: 'StartError', message: `cannot listen on 127.0.0.1:${port}: the port is in use` },
  )
  assert.equal(polls, 0)
})

for (const { intervalMs, deadlineMs } of [
  { intervalMs: 5_000, deadlineMs: 4_000 },
  { intervalMs: 100, deadlineMs: 80 },
  { intervalMs: 60_000, deadlineMs: 10_000 },
]) {
  test(`daemon server: a poll every ${intervalMs} ms has ${deadlineMs} ms`, () => {
    assert.equal(pollDeadlineMs(intervalMs), deadlineMs)
  })
}

test('daemon server: Prometheus accepts what is served', { skip: noPromtool() }, async (t) => {
  const { get } = await serving(t, ['ok'])
  assertPromtoolAccepts((await get('/metrics')).body)
})

const VIEW = createMonitorPage(
  {
    pair: { source: '<img src=x onerror=alert(1)>', destination: 'cartservice' },
    query: 'up',
    rules: { direction: 'above', minRequestsPerSecond: 0.1, minDeviationMs: 0, minDeviationRatio: 0, sloMs: null },
    training: null,
  },
  [0.5],
).view()

/** A daemon with a page; `polls` is what its polls come to, the last one for ever. */
async function servingPage(
  t: TestContext,
  polls: readonly PollResult[],
): Promise<{ readonly runtime: FakeRuntime; readonly url: string; readonly history: { incidents: unknown[] } }> {
  const runtime = fakeRuntime([])
  const history = { incidents: [] as unknown[] }
  let count = 0
  const exit = serveDaemon(
    runtime,
    { command: 'incident', listenAddress: '127.0.0.1', port: 0, pollIntervalMs: INTERVAL_MS },
    () => ({
      poll: () => Promise.resolve(polls[count++] ?? polls.at(-1)!),
      view: () => VIEW,
      history: () => history as never,
    }),
  )
  t.after(async () => {
    runtime.stop()
    await exit
  })
  await runtime.clock.asleep()
  return { runtime, history, url: String(runtime.logged.find(({ msg }) => msg === 'listening')?.['url']) }
}

const OK: PollResult = { outcome: 'ok', detail: '' }
const AWAY: PollResult = { outcome: 'conn', detail: 'connect ECONNREFUSED' }

const HEADERS = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  'access-control-allow-origin': null,
}

function headersOf(response: Response): Readonly<Record<string, string | null>> {
  return Object.fromEntries(Object.keys(HEADERS).map((name) => [name, response.headers.get(name)]))
}

for (const { path, contentType, cacheControl } of [
  { path: '/', contentType: 'text/html; charset=utf-8', cacheControl: 'no-cache' },
  { path: '/page/page.css', contentType: 'text/css; charset=utf-8', cacheControl: 'no-cache' },
  { path: '/page/main.js', contentType: 'text/javascript; charset=utf-8', cacheControl: 'no-cache' },
  { path: '/page/uplot.js', contentType: 'text/javascript; charset=utf-8', cacheControl: 'no-cache' },
  { path: '/page/favicon.svg', contentType: 'image/svg+xml; charset=utf-8', cacheControl: 'no-cache' },
  { path: '/api/state', contentType: 'application/json; charset=utf-8', cacheControl: 'no-store' },
  { path: '/api/incidents', contentType: 'application/json; charset=utf-8', cacheControl: 'no-store' },
]) {
  test(`page: ${path} has its headers, and is not sent to who has it`, async (t) => {
    const { url } = await servingPage(t, [OK])
    const response = await fetch(url + path)
    assert.equal(response.status, 200)
    assert.deepEqual(
      [response.headers.get('content-type'), response.headers.get('cache-control')],
      [contentType, cacheControl],
    )
    assert.deepEqual(headersOf(response), HEADERS)
    const etag = response.headers.get('etag') ?? ''
    const again = await fetch(url + path, { headers: { 'if-none-match': etag } })
    assert.deepEqual([again.status, await again.text(), headersOf(again)], [304, '', HEADERS])
  })
}

for (const path of [
  '/index.html',
  '/page',
  '/page/',
  '/page/tsconfig.json',
  '/page/main.ts',
  '/page/../package.json',
]) {
  test(`page: ${path} is not served`, async (t) => {
    const { url } = await servingPage(t, [OK])
    const status = await new Promise((resolve, reject) => {
      request(url, { path }, (response) => resolve(response.resume().statusCode))
        .on('error', reject)
        .end()
    })
    assert.equal(status, 404)
  })
}

test('page: every file that index.html and the modules name is served, by a path that is relative', async (t) => {
  const { url } = await servingPage(t, [OK])
  const asked = new Set<string>()
  const visit = async (from: string): Promise<void> => {
    if (asked.has(from)) return
    asked.add(from)
    const response = await fetch(from)
    assert.equal(response.status, 200, from)
    const body = await response.text()
    const names = from.endsWith('.js')
      ? [...body.matchAll(/^import .*? from '(.+?)';?$/gm)].map(([, name]) => name!)
      : from.endsWith('/')
        ? [...body.matchAll(/(?:src|href)="([^"#]+)"/g)].map(([, name]) => name!)
        : []
    for (const name of names) {
      assert.doesNotMatch(name, /^\/|:/, `${from} names ${name}`)
      await visit(new URL(name, from).href)
    }
  }
  await visit(`${url}/`)
  assert.ok(asked.size > 15, [...asked].join(' '))
})

test('page: the state says what the last poll came to, and since when it is so', async (t) => {
  const { url, runtime } = await servingPage(t, [OK, OK, AWAY, AWAY, { outcome: 'timeout', detail: 'slow' }, OK])
  const start = 1_700_000_000
  const seen: unknown[] = []
  for (let i = 0; i < 6; i++) {
    const state = (await (await fetch(`${url}/api/state`)).json()) as PageState
    assert.deepEqual(
      { ...state, poll: null },
      { version: '0.0.0', startedSeconds: start, pollIntervalSeconds: 5, poll: null, view: VIEW },
    )
    seen.push(state.poll)
    await runtime.clock.advance(INTERVAL_MS)
  }
  const poll = (at: number, since: number, result: PollResult): unknown => ({
    endedSeconds: start + at,
    ...result,
    answered: result.outcome === 'ok',
    sinceSeconds: start + since,
  })
  assert.deepEqual(seen, [
    poll(0, 0, OK),
    poll(5, 0, OK),
    poll(10, 10, AWAY),
    poll(15, 10, AWAY),
    poll(20, 10, { outcome: 'timeout', detail: 'slow' }),
    poll(25, 25, OK),
  ])
})

test('page: incidents that did not change are not sent again, whatever was polled', async (t) => {
  const { url, runtime, history } = await servingPage(t, [OK])
  const first = await fetch(`${url}/api/incidents`)
  assert.deepEqual(await first.json(), { incidents: [] })
  const ask = (): Promise<Response> =>
    fetch(`${url}/api/incidents`, { headers: { 'if-none-match': first.headers.get('etag') ?? '' } })
  await runtime.clock.advance(INTERVAL_MS)
  assert.equal((await ask()).status, 304)
  history.incidents.push({ id: 'new' })
  await runtime.clock.advance(INTERVAL_MS)
  assert.deepEqual(await (await ask()).json(), { incidents: [{ id: 'new' }] })
})

test('page: a daemon without incidents has no such path', async (t) => {
  const { get } = await serving(t, ['ok'])
  assert.equal((await get('/api/incidents')).status, 404)
  assert.equal((JSON.parse((await get('/api/state')).body) as PageState).view, null)
})
