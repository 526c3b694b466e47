import assert from 'node:assert/strict'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import test, { type TestContext } from 'node:test'

import type { Child } from '../src/testbed/child-process.js'
import type { Lane } from './faults/bench.js'
import type { Daemon } from './faults/daemon.js'
import { type Exchange, startFaultProxy } from './faults/fault-proxy.js'
import { assertWithoutSecrets, type ConnectionFault, meet } from './faults/judge.js'
import { answer } from './faults/misbehaviour.js'
import { tableOf } from './faults/suite.js'

type Wrong = 'none' | 'cools' | 'invents' | 'anomaly' | 'silent' | 'chatty' | 'miscounts' | 'leaks' | 'never recovers'

/** What a daemon would export, count and log that meets the faults as it should, or goes wrong in one way. */
async function stubDaemon(
  t: TestContext,
  name: 'monitor' | 'incident',
  { url, wrong }: { url: string; wrong: Wrong },
): Promise<Daemon> {
  const lines: string[] = []
  const log = (event: Readonly<Record<string, unknown>>): void =>
    void lines.push(JSON.stringify({ level: 30, time: new Date().toISOString(), ...event }))
  const polls = new Map<string, number>()
  let outcome = 'ok'
  let [anomalies, level] = [0, 20]
  const poll = async (): Promise<void> => {
    const query = name === 'incident' ? 'lab7_' : 'istio'
    const { status } = await fetch(`${url}/api/v1/query?query=${query}`)
    const now =
      status === 200 && !(wrong === 'never recovers' && outcome !== 'ok')
        ? 'ok'
        : wrong === 'miscounts'
          ? 'conn'
          : 'http_5xx'
    if (now !== outcome && wrong !== 'silent') {
      if (now === 'ok') log({ msg: 'polls succeed again' })
      else
        log({
          level: 40,
          msg: 'polls fail',
          outcome: now,
          ...(wrong === 'leaks' ? { detail: 'planted-token-0815-abcdef' } : {}),
        })
    } else if (now !== 'ok' && wrong === 'chatty') log({ level: 40, msg: 'polls fail', outcome: now })
    if (now !== 'ok' && wrong === 'cools') level -= 2
    if (now !== 'ok' && wrong === 'anomaly') anomalies++
    outcome = now
    polls.set(now, (polls.get(now) ?? 0) + 1)
  }
  const edge = 'source="frontend",destination="cart"'
  const metrics = (): Map<string, number> => {
    const all = new Map([...polls].map(([one, count]) => [`meshfever_polls_total{outcome="${one}"}`, count]))
    if (name === 'incident') return all.set('lab7_incident_temperature', level)
    all.set(`lab7_anomalies_total{${edge}}`, anomalies)
    all.set(`lab7_verdict{${edge},verdict="ok"}`, outcome === 'ok' ? 1 : 0)
    all.set(`lab7_verdict{${edge},verdict="no_data"}`, outcome === 'ok' ? 0 : 1)
    if (outcome !== 'ok' && wrong !== 'invents') return all
    return all.set(`lab7_anomaly_count{${edge}}`, 0).set(`lab7_y{${edge},quantile="0.5"}`, 9)
  }
  await poll()
  const timer = setInterval(() => void poll().catch(() => undefined), 100)
  t.after(() => clearInterval(timer))
  const events: Daemon['events'] = (from = 0) =>
    lines.slice(from).map((line) => JSON.parse(line) as Readonly<Record<string, unknown>>)
  return {
    child: { hasEnded: () => false } as unknown as Child,
    url: '',
    lines,
    events,
    get: () => Promise.resolve({ status: 200, body: '' }),
    metrics: () => Promise.resolve(metrics()),
    logged: async (what, from, matches) => {
      for (let i = 0; i < 20; i++) {
        const found = events(from).find(matches)
        if (found !== undefined) return found
        await new Promise((resolve) => setTimeout(resolve, 50))
      }
      throw new Error(`a line that says ${what}: not within 1 s`)
    },
  }
}

async function upstream(t: TestContext): Promise<string> {
  const server: Server = createServer((_request, response) => response.end('{}'))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

const DOWN: ConnectionFault = {
  fault: answer(503),
  monitor: { outcome: 'http_5xx' },
  incident: { outcome: 'http_5xx' },
}

/** What a busy machine does to polls that are 100 ms apart: more than one before the first is looked at. */
const BUSY = 'until one was accepted'
const TRIES = 5

/** As in the suite, a row that may have met a busy machine is tried again. */
async function judgement(t: TestContext, wrong: Wrong): Promise<string> {
  for (let left = TRIES - 1; ; left--) {
    try {
      return await oneJudgement(t, wrong)
    } catch (error) {
      if (left === 0 || !(error instanceof Error && error.message.includes(BUSY))) throw error
    }
  }
}

async function oneJudgement(t: TestContext, wrong: Wrong): Promise<string> {
  const proxy = await startFaultProxy(await upstream(t))
  t.after(() => proxy.close())
  const [monitor, incident] = await Promise.all(
    (['monitor', 'incident'] as const).map((name) => stubDaemon(t, name, { url: proxy.url, wrong })),
  )
  const lane: Lane = { proxy, monitor: monitor!, incident: incident!, close: () => Promise.resolve() }
  return meet(lane, DOWN, { patienceMs: 1_500 })
}

test('faults: a row whose daemons do as they should passes, and says what was seen', async (t) => {
  assert.match(
    await judgement(t, 'none'),
    /^monitor: http_5xx ×\d+, incident: http_5xx ×\d+, accepted again after \d+ ms$/,
  )
})

for (const { wrong, says } of [
  { wrong: 'cools', says: /gauges of the incident daemon during the fault/ },
  { wrong: 'invents', says: /gauges without a measurement/ },
  { wrong: 'anomaly', says: /anomalies of the monitor/ },
  { wrong: 'silent', says: /a line that says that the monitor recovered/ },
  { wrong: 'chatty', says: /lines of the monitor about the fault/ },
  { wrong: 'miscounts', says: /2 polls of the (monitor|incident) that come to http_5xx/ },
  { wrong: 'leaks', says: /a secret got out/ },
  { wrong: 'never recovers', says: /recovered/ },
] as const) {
  test(`faults: a row fails when a daemon ${wrong}`, async (t) => {
    await assert.rejects(judgement(t, wrong), says)
  })
}

test('faults: a secret is found in any text, and is not repeated by who finds it', () => {
  assert.doesNotThrow(() => assertWithoutSecrets(['nothing']))
  assert.throws(
    () => assertWithoutSecrets(['x', 'before planted-password-4711 after']),
    ({ message }: Error) => message === 'a secret got out: before ...',
  )
})

test('faults: the proxy passes on what it is not told to spoil, and tells who asked', async (t) => {
  const proxy = await startFaultProxy(await upstream(t))
  t.after(() => proxy.close())
  const seen: Exchange['asker'][] = []
  proxy.inject(
    ({ asker, response }) => {
      seen.push(asker)
      response.writeHead(500).end()
    },
    new Set(['monitor']),
  )
  const ask = async (path: string): Promise<number> => (await fetch(`${proxy.url}${path}`)).status
  assert.deepEqual(
    [await ask('/api/v1/query?query=up'), await ask('/api/v1/query?query=lab7_x'), await ask('/api/v2/alerts')],
    [500, 200, 200],
  )
  assert.deepEqual(seen, ['monitor'])
  assert.deepEqual(
    proxy.asked.map(({ asker }) => asker),
    ['monitor', 'incident', 'alerts'],
  )
})

test('faults: the table tells what passed, what failed and what was not run', () => {
  const row = { id: 'T1', fault: 'a | b', gate: true, seen: 'x', verdict: 'passed', tookMs: 1 } as const
  const text = tableOf(
    [
      row,
      { ...row, id: 'T2', gate: false, verdict: 'FAILED' },
      { ...row, id: 'P7', verdict: 'not run', seen: 'no PID namespace' },
    ],
    [{ id: 'E9', fault: 'y', reason: 'z' }],
    'About.',
  )
  assert.match(text, /1 of 2 rows passed; 1 of them/)
  assert.match(text, /\| T1 \\\* \| a \\\| b \| x \| yes \|/)
  assert.match(text, /\| T2 \| a \\\| b \| x \| NO \|/)
  assert.match(text, /\| E9 \| y \| z \|/)
  assert.match(text, /\| P7 \| a \\\| b \| no PID namespace \|/)
})
