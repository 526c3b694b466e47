import assert from 'node:assert/strict'
import test from 'node:test'

import axios, { AxiosError, type InternalAxiosRequestConfig } from 'axios'
import { Registry } from 'prom-client'

import { type Alert, stableLabels } from '../src/core/alert.js'
import type { IncidentRules, IncidentState, Severity } from '../src/core/incident.js'
import type { MaintenanceWindow } from '../src/core/maintenance.js'
import { createNotifier, type Notifier } from '../src/io/alertmanager.js'
import { createHttp } from '../src/io/http-client.js'
import { samplesNamed } from './helpers/exposition.js'
import { type FakeAnswer, type FakeRuntime, fakeRuntime } from './helpers/fake-runtime.js'
import { assertPromtoolAccepts, noPromtool } from './helpers/promtool.js'

/** The manual clock begins here. */
const T0 = 1_700_000_000
const POLL_SECONDS = 5
const RULES: IncidentRules = {
  pairs: [{ source: 'a', destination: 'b', accumulatorThreshold: 5 }],
  incidentThreshold: 10,
  clearThreshold: 5,
  coolBy: 2,
  accumulatorMax: 20,
  noDataTimeoutSeconds: 600,
}
const A = 'http://a:9093'
const B = 'http://b:9093'

const CONNECTION_REFUSED = { code: 'ECONNREFUSED', message: 'connect ECONNREFUSED' }
const HANGS = { never: true } as const

/** Takes it, but only after so long. */
interface Slow {
  readonly slowMs: number
}

interface Posted {
  readonly url: string
  readonly atSeconds: number
  readonly alerts: readonly Alert[]
}

interface Bench {
  readonly runtime: FakeRuntime
  readonly notifier: Notifier
  /** What reached the Alertmanagers, `sev2 firing`, with the seconds since T0. */
  readonly posts: readonly Posted[]
  readonly told: (url?: string) => readonly string[]
  /** How the Alertmanager behaves from now on. */
  readonly behave: (answer: FakeAnswer | Slow, url?: string) => void
  /** A poll after `seconds` of which the incident has that severity, and time for what it causes. */
  readonly poll: (severity: Severity | null, options?: { seconds?: number; live?: boolean }) => Promise<void>
  readonly polls: (severity: Severity | null, count: number) => Promise<void>
  readonly metrics: () => Promise<Readonly<Record<string, number>>>
  readonly messages: () => readonly string[]
  readonly text: () => Promise<string>
}

function bench({
  urls = [A],
  maintenance = [],
}: { urls?: readonly string[]; maintenance?: readonly MaintenanceWindow[] } = {}): Bench {
  const posts: Posted[] = []
  const behaviour = new Map<string, FakeAnswer | Slow>()
  const base = fakeRuntime([])
  const http = axios.create({
    ...createHttp().defaults,
    adapter: async (config: InternalAxiosRequestConfig) => {
      const url = config.url ?? ''
      const answer = behaviour.get(new URL(url).origin) ?? { status: 200, body: '' }
      assert.equal(config.method, 'post')
      assert.equal(config.headers.get('content-type'), 'application/json')
      const alerts = JSON.parse(String(config.data)) as readonly Alert[]
      posts.push({ url, atSeconds: base.clock.nowMs() / 1000 - T0, alerts })
      if (typeof answer === 'object' && 'never' in answer) {
        return new Promise((_, reject) => {
          config.signal?.addEventListener?.('abort', () => reject(new AxiosError('canceled', 'ERR_CANCELED', config)))
        })
      }
      if (typeof answer === 'object' && 'code' in answer) {
        return Promise.reject(new AxiosError(answer.message ?? answer.code, answer.code, config))
      }
      if (typeof answer === 'object' && 'slowMs' in answer) {
        await base.clock.sleep(answer.slowMs, new AbortController().signal)
        return { data: '', status: 200, statusText: '', headers: {}, config }
      }
      const { status, body } = typeof answer === 'string' ? { status: 200, body: answer } : answer
      return { data: body, status, statusText: '', headers: {}, config }
    },
  } as Parameters<typeof axios.create>[0])
  const runtime: FakeRuntime = { ...base, http }
  const registry = new Registry()
  const notifier = createNotifier(
    {
      alertmanagerUrls: urls,
      maintenance,
      labels: stableLabels(RULES.pairs),
      noDataTimeoutSeconds: RULES.noDataTimeoutSeconds,
      pollIntervalMs: POLL_SECONDS * 1000,
      random: () => 0,
    },
    runtime,
    registry,
  )
  let startedSeconds = T0
  let before: Severity | null = null
  const poll: Bench['poll'] = async (severity, { seconds = POLL_SECONDS, live = true } = {}) => {
    await runtime.clock.advance(seconds * 1000)
    const timestampSeconds = runtime.clock.nowMs() / 1000
    if (before === null) startedSeconds = timestampSeconds
    before = severity
    const state: IncidentState = {
      accumulators: [severity === null ? 0 : 12],
      heardSeconds: [timestampSeconds],
      open: severity === null ? null : { startedSeconds, severity },
      expired: false,
    }
    notifier.update({ rules: RULES, state, timestampSeconds, live, evidence: [] })
    await runtime.clock.advance(0)
  }
  return {
    runtime,
    notifier,
    posts,
    told: (url) => posts.filter((post) => url === undefined || post.url.startsWith(url)).map(shown),
    behave: (answer, url = A) => behaviour.set(url, answer),
    poll,
    polls: async (severity, count) => {
      for (let i = 0; i < count; i++) await poll(severity)
    },
    metrics: async () => samplesNamed(await registry.metrics(), 'meshfever_notifications_'),
    messages: () => runtime.logged.map(({ msg }) => String(msg)),
    text: () => registry.metrics(),
  }
}

function shown({ atSeconds, alerts }: Posted): string {
  const states = alerts.map(({ labels, endsAt }) => {
    const firing = Date.parse(endsAt) / 1000 > T0 + atSeconds
    return `${labels['severity'] ?? ''} ${firing ? 'firing' : 'resolved'}`
  })
  return `${atSeconds}: ${states.join(', ')}`
}

const counted = (sent: number, failed: number, rejected: number, pending: number) => ({
  'meshfever_notifications_total{result="sent"}': sent,
  'meshfever_notifications_total{result="failed"}': failed,
  'meshfever_notifications_total{result="rejected"}': rejected,
  meshfever_notifications_pending: pending,
})

test('alertmanager: every transition is posted at once, and again each 30 s; an end for five minutes', async () => {
  const { poll, polls, told, posts, metrics } = bench()
  await polls(null, 2)
  assert.deepEqual(told(), [])
  await polls(2, 8)
  await polls(1, 1)
  assert.deepEqual(told(), ['15: sev2 firing', '45: sev2 firing', '55: sev1 firing, sev2 resolved'])
  await poll(2)
  await poll(null)
  assert.deepEqual(told().slice(3), ['60: sev2 firing, sev1 resolved', '65: sev2 resolved'])
  await polls(null, 80)
  const times = posts.slice(5).map(({ atSeconds }) => atSeconds)
  assert.deepEqual(times, [95, 125, 155, 185, 215, 245, 275, 305, 335])
  assert.equal(posts[0]?.url, `${A}/api/v2/alerts`)
  assert.deepEqual(await metrics(), counted(14, 0, 0, 0))
})

test('alertmanager: it begins with Prometheus, never in the future, and lasts as long as silence is tolerated', async () => {
  const { polls, posts } = bench()
  await polls(2, 8)
  const times = posts.map(({ alerts: [alert] }) =>
    [alert?.startsAt, alert?.endsAt].map((at) => Date.parse(at!) / 1000 - T0),
  )
  assert.deepEqual(times, [
    [5, 605],
    [5, 635],
  ])
})

test('alertmanager: without a new poll nothing is sent, so a blind replica cannot contradict one that sees', async () => {
  const { poll, told, runtime, notifier } = bench()
  await poll(2)
  await runtime.clock.advance(200_000)
  assert.deepEqual(told(), ['5: sev2 firing'])
  // Prometheus answers with the same time again and again.
  const state = { accumulators: [0], heardSeconds: [null], open: null, expired: false }
  notifier.update({ rules: RULES, state, timestampSeconds: T0 + 5, live: true, evidence: [] })
  await runtime.clock.advance(0)
  assert.deepEqual(told(), ['5: sev2 firing'])
})

test('alertmanager: a replica that never saw the incident open resolves nothing', async () => {
  const { polls, told } = bench()
  await polls(null, 100)
  assert.deepEqual(told(), [])
})

test('alertmanager: a restart in the middle of an incident says it is open, and resolves it later', async () => {
  const { poll, told } = bench()
  for (const severity of [2, 2, 1, 1] as const) await poll(severity, { live: false })
  assert.deepEqual(told(), [])
  await poll(1)
  await poll(null)
  assert.deepEqual(told(), ['25: sev1 firing, sev2 resolved', '30: sev1 resolved'])
})

test('alertmanager: a restart after an incident resolves what the process before it raised, unless it is long ago', async () => {
  const recent = bench()
  for (const severity of [2, null] as const) await recent.poll(severity, { live: false })
  await recent.poll(null)
  assert.deepEqual(recent.told(), ['15: sev2 resolved'])
  const old = bench()
  for (const severity of [2, null] as const) await old.poll(severity, { live: false })
  await old.poll(null, { seconds: 300 })
  assert.deepEqual(old.told(), [])
})

test('alertmanager: when it is down the newest state waits, and is sent once when it is back', async () => {
  const { behave, poll, polls, told, metrics, messages, runtime } = bench()
  behave(CONNECTION_REFUSED)
  await poll(2)
  assert.deepEqual(await metrics(), counted(0, 1, 0, 1))
  await polls(2, 3)
  await poll(1)
  const failed = told().length
  behave({ status: 200, body: '' })
  await polls(1, 4)
  const taken = told().slice(failed)
  // Sev 2 never fired there, so there is no end of it to tell.
  assert.deepEqual(
    taken.map((text) => text.replace(/^\d+/, 'T')),
    ['T: sev1 firing'],
  )
  assert.deepEqual(await metrics(), counted(1, failed, 0, 0))
  assert.deepEqual(messages(), ['notifications fail', 'notifications succeed again', 'notified'])
  assert.deepEqual(runtime.logged[0]?.['detail'], 'connect ECONNREFUSED')
})

test('alertmanager: what may have arrived although it was not confirmed is resolved when its severity is left', async () => {
  const { behave, poll, told } = bench()
  behave({ status: 502, body: 'Bad Gateway' })
  await poll(2)
  await poll(1, { seconds: 0.5 }) // before the retry
  behave({ status: 200, body: '' })
  await poll(1, { seconds: 0.5 })
  assert.deepEqual(told(), ['5: sev2 firing', '6: sev1 firing, sev2 resolved'])
})

test('alertmanager: retries come 1, 2, 4, 8, 15 and 15 s after each other, and are logged once a minute', async () => {
  const { behave, poll, posts, runtime, messages, notifier } = bench()
  behave({ status: 503, body: 'Service Unavailable' })
  await poll(2)
  for (let second = 1; second <= 75; second++) {
    await runtime.clock.advance(1_000)
    const at = runtime.clock.nowMs() / 1000
    const state = {
      accumulators: [12],
      heardSeconds: [at],
      open: { startedSeconds: T0 + 5, severity: 2 },
      expired: false,
    } as const
    notifier.update({ rules: RULES, state, timestampSeconds: at, live: true, evidence: [] })
    await runtime.clock.advance(0)
  }
  assert.deepEqual(
    posts.map(({ atSeconds }) => atSeconds),
    [5, 6, 8, 12, 20, 35, 50, 65, 80],
  )
  assert.deepEqual(messages(), ['notifications fail', 'notifications still fail'])
})

test('alertmanager: what nobody renewed for a minute is not sent any more, and the next poll says how it is', async () => {
  const { behave, poll, posts, runtime, metrics, told } = bench()
  behave(CONNECTION_REFUSED)
  await poll(2)
  for (let i = 0; i < 120; i++) await runtime.clock.advance(1_000) // Prometheus is away: no polls
  assert.equal(posts.at(-1)?.atSeconds, 65)
  assert.equal((await metrics())['meshfever_notifications_pending'], 0)
  behave({ status: 200, body: '' })
  await poll(2)
  assert.equal(told().at(-1), '130: sev2 firing')
})

for (const { status, outcome, detail } of [
  { status: 401, outcome: 'auth', detail: 'HTTP 401' },
  { status: 404, outcome: 'http_4xx', detail: 'HTTP 404; is the path of --alertmanager-url right?' },
  {
    status: 302,
    outcome: 'redirect',
    detail: 'HTTP 302, to another path of the same host; redirects are not followed, give the final URL',
  },
]) {
  test(`alertmanager: ${status} is for a person to mend, so it is tried once a minute and nothing is lost`, async () => {
    const { behave, poll, polls, posts, runtime } = bench()
    behave({ status, body: 'secret details' })
    await poll(2)
    await polls(2, 11)
    assert.equal(posts.length, 1)
    const { outcome: seen, detail: said } = runtime.logged[0]!
    assert.deepEqual([seen, said], [outcome, detail])
    behave({ status: 200, body: '' })
    await polls(2, 2)
    assert.deepEqual(posts.length, 2)
    assert.doesNotMatch(JSON.stringify(runtime.logged), /secret/)
  })
}

test('alertmanager: 400 is a bug of ours: logged once with its words, counted, not tried again at once', async () => {
  const { behave, poll, polls, posts, runtime, messages, metrics } = bench()
  behave({ status: 400, body: '"start time must be before end time"' })
  await poll(2)
  assert.equal(posts.length, 1)
  await polls(2, 12)
  assert.deepEqual(
    posts.map(({ atSeconds }) => atSeconds),
    [5, 35, 65],
  )
  assert.deepEqual(messages(), ['an alert was refused: a bug of meshfever'])
  assert.deepEqual(runtime.logged[0]?.['detail'], 'HTTP 400: "start time must be before end time"')
  assert.deepEqual(await metrics(), counted(0, 0, 3, 0))
})

test('alertmanager: one that hangs is given up after 5 s and delays neither the polls nor the other one', async () => {
  const { behave, poll, polls, told, messages } = bench({ urls: [A, B] })
  behave(HANGS)
  await poll(2)
  await poll(1)
  assert.deepEqual(told(B), ['5: sev2 firing', '10: sev1 firing, sev2 resolved'])
  assert.deepEqual(told(A), ['5: sev2 firing'])
  behave({ status: 200, body: '' })
  await polls(1, 1)
  assert.deepEqual(told(A), ['5: sev2 firing', '15: sev1 firing, sev2 resolved'])
  assert.deepEqual(
    messages().filter((message) => message !== 'notified'),
    ['notifications fail', 'notifications succeed again'],
  )
})

test('alertmanager: what happens while a slow one takes its time is sent as soon as it has', async () => {
  const { behave, poll, told, runtime } = bench()
  behave({ slowMs: 3_000 })
  await poll(2)
  await poll(1, { seconds: 1 })
  assert.deepEqual(told(), ['5: sev2 firing'])
  await runtime.clock.advance(2_000)
  assert.deepEqual(told(), ['5: sev2 firing', '8: sev1 firing, sev2 resolved'])
})

test('alertmanager: one that was restarted hears of it again within 30 s', async () => {
  const { poll, polls, posts } = bench()
  await poll(2)
  await polls(2, 6)
  assert.deepEqual(
    posts.map(({ atSeconds }) => atSeconds),
    [5, 35],
  )
})

test('alertmanager: a stop cuts what is being sent, and a retry', async () => {
  for (const answer of [HANGS, CONNECTION_REFUSED]) {
    const { behave, poll, runtime, notifier, messages } = bench()
    behave(answer)
    await poll(2)
    runtime.stop()
    await notifier.idle()
    assert.doesNotMatch(messages().join(), /canceled|succeed/)
  }
})

test('alertmanager: in a maintenance window nothing is sent; what is open at its end is sent then', async () => {
  const window = { kind: 'once', startSeconds: T0, endSeconds: T0 + 60, reason: 'upgrade' } as const
  const { poll, polls, told, notifier, runtime, text } = bench({ maintenance: [window] })
  await poll(null)
  await polls(2, 9)
  assert.deepEqual(told(), [])
  assert.deepEqual(samplesNamed(await text(), 'lab7_'), { lab7_incident_expected: 1 })
  assert.equal(notifier.expectedAt(T0 + 59), 'upgrade')
  await polls(2, 2)
  assert.deepEqual(told(), ['60: sev2 firing'])
  assert.deepEqual(samplesNamed(await text(), 'lab7_'), { lab7_incident_expected: 0 })
  assert.deepEqual(
    runtime.logged.map(({ msg, reason }) => [msg, reason]),
    [
      ['maintenance window began: incidents are expected and not sent', 'upgrade'],
      ['maintenance window ended: incidents are sent again', 'upgrade'],
      ['notified', undefined],
    ],
  )
})

test('alertmanager: what fired before a maintenance window is kept alive in it, and resolved when it is over', async () => {
  const window = { kind: 'once', startSeconds: T0 + 10, endSeconds: T0 + 600, reason: 'upgrade' } as const
  const { poll, polls, told } = bench({ maintenance: [window] })
  await poll(2)
  await polls(1, 8)
  await poll(null)
  assert.deepEqual(told(), ['5: sev2 firing', '35: sev2 firing', '50: sev2 resolved'])
})

test('alertmanager: without one nothing is sent, and the counters say 0', async () => {
  const { polls, posts, metrics } = bench({ urls: [] })
  await polls(2, 3)
  assert.deepEqual(posts, [])
  assert.deepEqual(await metrics(), counted(0, 0, 0, 0))
})

test('alertmanager: Prometheus can read the metrics', { skip: noPromtool() }, async () => {
  const { poll, text } = bench()
  await poll(2)
  assertPromtoolAccepts(await text())
})
