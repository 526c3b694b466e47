import assert from 'node:assert/strict'
import test from 'node:test'

import axios, { AxiosError, type InternalAxiosRequestConfig } from 'axios'
import { Registry } from 'prom-client'

import { type Alert, incidentLabels } from '../src/core/alert.js'
import type { IncidentRules, Severity } from '../src/core/incident.js'
import type { MaintenanceWindow } from '../src/core/maintenance.js'
import type { Pair } from '../src/core/pair.js'
import { createMeshNotifier, type FoldedIncident, type MeshNotifier } from '../src/io/alertmanager.js'
import { createHttp } from '../src/io/http-client.js'
import { type FakeRuntime, fakeRuntime } from './helpers/fake-runtime.js'

const T0 = 1_700_000_000
const POLL_SECONDS = 5
const RULES: Omit<IncidentRules, 'pairs'> = {
  incidentThreshold: 10,
  clearThreshold: 5,
  coolBy: 2,
  accumulatorMax: 20,
  noDataTimeoutSeconds: 600,
}
const CART = { source: 'frontend', destination: 'cart' }
const PAYMENT = { source: 'checkout', destination: 'payment' }

interface Bench {
  readonly runtime: FakeRuntime
  readonly notifier: MeshNotifier
  /** The bodies that reached the Alertmanager. */
  readonly posts: readonly (readonly Alert[])[]
  /** A poll of which these are open, or have ended in it. */
  readonly poll: (...incidents: readonly FoldedIncident[]) => Promise<void>
  /** Whether the Alertmanager is there. */
  readonly there: (on: boolean) => void
  readonly said: () => readonly (readonly string[])[]
}

function bench(maintenance: readonly MaintenanceWindow[] = [], live: (k: number) => boolean = () => true): Bench {
  const posts: (readonly Alert[])[] = []
  let there = true
  const base = fakeRuntime([])
  const http = axios.create({
    ...createHttp().defaults,
    adapter: (config: InternalAxiosRequestConfig) => {
      const text = String(config.data)
      assert.ok(Buffer.byteLength(text) < 2 ** 20, 'what the client sends at most')
      if (!there) return Promise.reject(new AxiosError('connect ECONNREFUSED', 'ECONNREFUSED', config))
      posts.push(JSON.parse(text) as readonly Alert[])
      return Promise.resolve({ data: '', status: 200, statusText: '', headers: {}, config })
    },
  } as Parameters<typeof axios.create>[0])
  const runtime: FakeRuntime = { ...base, http }
  const notifier = createMeshNotifier(
    {
      alertmanagerUrls: ['http://a:9093'],
      maintenance,
      noDataTimeoutSeconds: RULES.noDataTimeoutSeconds,
      pollIntervalMs: 1000 * POLL_SECONDS,
      random: () => 0,
    },
    runtime,
    new Registry(),
  )
  let k = 0
  return {
    runtime,
    notifier,
    posts,
    there: (on) => (there = on),
    poll: async (...incidents) => {
      await runtime.clock.advance(1000 * POLL_SECONDS)
      k++
      notifier.update({ timestampSeconds: T0 + POLL_SECONDS * k, live: live(k), incidents })
      await runtime.clock.advance(0)
    },
    /** `frontend -> cart sev1 firing`, post by post. */
    said: () =>
      posts.map((alerts) =>
        alerts.map(({ labels, endsAt }, _, all) => {
          const now = Math.max(...all.map((alert) => Date.parse(alert.endsAt)))
          const fires = Date.parse(endsAt) === now && now > runtime.clock.nowMs()
          return `${labels['pairs'] ?? ''} ${labels['severity'] ?? ''} ${fires ? 'firing' : 'ended'}`
        }),
      ),
  }
}

/** @param severity - null: it has ended */
function incident(
  first: Pair,
  severity: Severity | null,
  options: {
    pairs?: readonly Pair[]
    merged?: boolean
    expired?: boolean
    evidence?: readonly string[]
    at?: number
  } = {},
): FoldedIncident {
  const { pairs = [first], merged = false, expired = false, evidence = [], at = 5 } = options
  const labels = incidentLabels(first)
  return {
    name: labels.pairs,
    labels,
    rules: { ...RULES, pairs: pairs.map((pair) => ({ ...pair, accumulatorThreshold: 5 })) },
    state: {
      accumulators: pairs.map(() => (severity === null ? 0 : 12)),
      heardSeconds: pairs.map(() => T0),
      open: severity === null ? null : { startedSeconds: T0 + at, severity },
      expired,
    },
    merged,
    evidence,
  }
}

test('mesh incident alert: one alert for each incident, by the pair that it began with, with its own text', async () => {
  const mesh = bench()
  await mesh.poll(
    incident(CART, 2, { evidence: ['cart', 'why'] }),
    incident(PAYMENT, 1, { pairs: [PAYMENT, CART], evidence: ['payment'] }),
  )
  assert.deepEqual(mesh.posts, [
    [
      {
        labels: { alertname: 'MeshfeverIncident', severity: 'sev2', pairs: 'frontend -> cart' },
        annotations: {
          summary: 'Sev 2: latency of frontend -> cart is abnormal, temperature 12',
          description: 'cart\nwhy',
          started: '2023-11-14T22:13:25.000Z',
        },
        startsAt: '2023-11-14T22:13:25.000Z',
        endsAt: '2023-11-14T22:23:25.000Z',
      },
      {
        labels: { alertname: 'MeshfeverIncident', severity: 'sev1', pairs: 'checkout -> payment' },
        annotations: {
          summary: 'Sev 1: latency of checkout -> payment, frontend -> cart is abnormal, temperature 24',
          description: 'payment',
          started: '2023-11-14T22:13:25.000Z',
        },
        startsAt: '2023-11-14T22:13:25.000Z',
        endsAt: '2023-11-14T22:23:25.000Z',
      },
    ],
  ])
})

test('mesh incident alert: what happens to one is told at once, with what the others still are, and nothing else is', async () => {
  const mesh = bench()
  await mesh.poll(incident(CART, 2))
  await mesh.poll(incident(CART, 2))
  await mesh.poll(incident(CART, 2), incident(PAYMENT, 2, { at: 15 }))
  await mesh.poll(incident(CART, 1), incident(PAYMENT, 2, { at: 15 }))
  await mesh.poll(incident(CART, 1), incident(PAYMENT, null))
  await mesh.poll(incident(CART, 1))
  await mesh.poll(incident(CART, null))
  const [cart, payment] = ['frontend -> cart', 'checkout -> payment']
  assert.deepEqual(mesh.said(), [
    [`${cart} sev2 firing`],
    [`${cart} sev2 firing`, `${payment} sev2 firing`],
    [`${cart} sev1 firing`, `${payment} sev2 firing`, `${cart} sev2 ended`],
    [`${cart} sev1 firing`, `${payment} sev2 ended`],
    [`${cart} sev1 ended`, `${payment} sev2 ended`],
  ])
  const news = mesh.runtime.logged.filter(({ msg }) => msg === 'notified').map(({ alerts }) => alerts)
  assert.deepEqual(news[1], [`${payment}: sev2 firing`])
  assert.deepEqual(news[3], [`${payment}: sev2 resolved ${T0 + 25}`])
})

for (const { how, options, summary } of [
  { how: 'merged', options: { merged: true }, summary: 'Sev 2 became part of an older incident after 5 s' },
  {
    how: 'expired',
    options: { expired: true },
    summary: 'Sev 2 expired after 5 s: nothing is known of the pairs any more',
  },
  { how: 'resolved', options: {}, summary: 'Sev 2 resolved after 5 s' },
]) {
  test(`mesh incident alert: one that has ${how} ends, and says so`, async () => {
    const mesh = bench()
    await mesh.poll(incident(CART, 1, { pairs: [CART, PAYMENT] }), incident(PAYMENT, 2))
    await mesh.poll(incident(CART, 1, { pairs: [CART, PAYMENT] }), incident(PAYMENT, null, options))
    const [firing, ended, ...more] = mesh.posts.at(-1) ?? []
    assert.deepEqual(
      [firing?.labels['pairs'], ended?.labels['pairs'], more],
      ['frontend -> cart', 'checkout -> payment', []],
    )
    assert.equal(ended?.annotations['summary'], summary)
    assert.equal(ended.endsAt, '2023-11-14T22:13:30.000Z')
  })
}

test('mesh incident alert: the end of one is repeated for five minutes, and what it was is then forgotten', async () => {
  const mesh = bench()
  await mesh.poll(incident(CART, 2))
  await mesh.poll(incident(CART, null))
  for (let k = 0; k < 70; k++) await mesh.poll()
  const said = mesh.said()
  assert.ok(said.length > 5 && said.length < 15, `${said.length}`)
  assert.ok(said.slice(1).every(([text]) => text === 'frontend -> cart sev2 ended'))
  const posts = said.length
  for (let k = 0; k < 20; k++) await mesh.poll()
  assert.equal(mesh.posts.length, posts)
})

test('mesh incident alert: what ended while no process was there is resolved, what is still open is kept alive', async () => {
  const mesh = bench([], (k) => k === 4)
  await mesh.poll(incident(CART, 2), incident(PAYMENT, 2))
  await mesh.poll(incident(CART, 2), incident(PAYMENT, 2))
  await mesh.poll(incident(CART, 2), incident(PAYMENT, null))
  assert.deepEqual(mesh.posts, [])
  await mesh.poll(incident(CART, 2))
  assert.deepEqual(mesh.said(), [['frontend -> cart sev2 firing', 'checkout -> payment sev2 ended']])
})

test('mesh incident alert: an Alertmanager that was away hears of what is open, not of what came and went', async () => {
  const mesh = bench()
  mesh.there(false)
  await mesh.poll(incident(CART, 2))
  await mesh.poll(incident(CART, null), incident(PAYMENT, 2))
  mesh.there(true)
  await mesh.runtime.clock.advance(60_000)
  await mesh.poll(incident(PAYMENT, 2))
  assert.deepEqual(mesh.said().at(-1), ['checkout -> payment sev2 firing'])
})

test('mesh incident alert: in a maintenance window nothing new is raised, and what was raised is kept until it ends', async () => {
  const window: MaintenanceWindow = { kind: 'once', startSeconds: T0 + 10, endSeconds: T0 + 20, reason: 'upgrade' }
  const mesh = bench([window])
  await mesh.poll(incident(CART, 2))
  await mesh.poll(incident(CART, 1), incident(PAYMENT, 2, { at: 10 }))
  await mesh.poll(incident(CART, 1), incident(PAYMENT, 2, { at: 10 }))
  assert.deepEqual(mesh.said(), [['frontend -> cart sev2 firing']])
  assert.equal(mesh.notifier.expectedAt(T0 + 15), 'upgrade')
  await mesh.poll(incident(CART, 1), incident(PAYMENT, 2, { at: 10 }))
  assert.deepEqual(mesh.said().at(-1), [
    'frontend -> cart sev1 firing',
    'checkout -> payment sev2 firing',
    'frontend -> cart sev2 ended',
  ])
})

test('mesh incident alert: of five thousand pairs twenty are named and the others counted', async () => {
  const pairs = Array.from({ length: 5_000 }, (_, i) => ({ source: `s${i}`, destination: 'hub' }))
  const mesh = bench()
  await mesh.poll(incident(pairs[0]!, 1, { pairs }))
  const [alert] = mesh.posts[0] ?? []
  assert.deepEqual([mesh.posts.length, mesh.posts[0]?.length, alert?.labels['pairs']], [1, 1, 's0 -> hub'])
  assert.match(
    alert?.annotations['summary'] ?? '',
    /^Sev 1: latency of s0 -> hub, .*, s19 -> hub, 4980 more is abnormal, temperature 60000$/,
  )
})

test('mesh incident alert: thousands of incidents go out in posts that the client can send, each once', async () => {
  const evil = '"\\\n'.repeat(80)
  const firsts = Array.from({ length: 120 }, (_, i) => ({ source: `s${i}${evil}`, destination: `d${i}${evil}` }))
  const mesh = bench()
  const lines = ['x'.repeat(3_000), evil.repeat(30), 'z'.repeat(3_000)]
  await mesh.poll(...firsts.map((first) => incident(first, 2, { evidence: lines })))
  assert.deepEqual(
    mesh.posts.map(({ length }) => length),
    [50, 50, 20],
  )
  assert.equal(new Set(mesh.posts.flat().map(({ labels }) => labels['pairs'])).size, 120)
  const { alerts, more } = mesh.runtime.logged.find(({ msg }) => msg === 'notified') ?? {}
  assert.deepEqual([(alerts as readonly string[]).length, more], [20, 100])
})

test('mesh incident alert: labels of different pairs are never the same, and never long', () => {
  const pairs = [
    CART,
    { source: 'a', destination: 'b -> c' },
    { source: 'a -> b', destination: 'c' },
    { source: 'x'.repeat(300), destination: 'y' },
    { source: 'x'.repeat(300), destination: 'z' },
    { source: 'x'.repeat(299), destination: 'xy' },
  ]
  const labels = pairs.map((pair) => incidentLabels(pair).pairs)
  assert.equal(labels[0], 'frontend -> cart')
  assert.equal(new Set(labels).size, pairs.length)
  for (const label of labels) assert.ok(label.length <= 200, label)
})
