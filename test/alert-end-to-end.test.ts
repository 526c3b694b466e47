import assert from 'node:assert/strict'
import { join } from 'node:path'
import { describe, test, type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'

import { Registry } from 'prom-client'

import { stableLabels } from '../src/core/alert.js'
import type { IncidentRules, Severity } from '../src/core/incident.js'
import { createNotifier, type Notifier } from '../src/io/alertmanager.js'
import { createHttp } from '../src/io/http-client.js'
import { type AlertmanagerServer, findAlertmanager, startAlertmanager } from '../src/testbed/alertmanager-server.js'
import { findPrometheus, startPrometheus, writeTargets } from '../src/testbed/prometheus-server.js'
import { samplesNamed } from './helpers/exposition.js'
import { type FakeRuntime, fakeRuntime } from './helpers/fake-runtime.js'
import { closedUrl, startHttpServer } from './helpers/local-server.js'
import { startProgram } from './helpers/program.js'
import { temporaryFolder } from './helpers/temporary-folder.js'
import { startWebhook, type Webhook } from './helpers/webhook.js'

const CART = { source: 'frontend', destination: 'cart' }
const PAYMENT = { source: 'checkout', destination: 'payment' }
const RULES: IncidentRules = {
  pairs: [
    { ...CART, accumulatorThreshold: 5 },
    { ...PAYMENT, accumulatorThreshold: 5 },
  ],
  incidentThreshold: 10,
  clearThreshold: 5,
  coolBy: 2,
  accumulatorMax: 20,
  noDataTimeoutSeconds: 600,
}

/** What the README recommends, with shorter times. */
const RECOMMENDED = {
  receiver: 'pager',
  group_by: ['alertname', 'pairs'],
  group_wait: '0s',
  group_interval: '1s',
  repeat_interval: '4h',
}

const TIMEOUT = { timeout: 90_000 }

/** The programs as this machine has them, found or installed with the environment of the tests. */
function machine(): Pick<FakeRuntime, 'program' | 'logger'> {
  const { program, logger } = fakeRuntime([])
  return { program: { ...program, environment: process.env, isRoot: process.getuid?.() === 0 }, logger }
}

interface Bench {
  readonly webhook: Webhook
  readonly url: () => string
  /** On the port it had before, if any. */
  readonly start: () => Promise<void>
  /** Decides its port before there is anybody to listen on it. */
  readonly reserve: () => Promise<void>
  readonly kill: (signal: NodeJS.Signals) => Promise<void>
}

/** An Alertmanager on one port, whose receivers all are one webhook; started by `start`, as often as one likes. */
async function bench(t: TestContext, route: Readonly<Record<string, unknown>>): Promise<Bench> {
  const binary = await findAlertmanager(machine())
  const webhook = await startWebhook(t)
  const folder = temporaryFolder(t)
  const receiver = (name: string) => ({ name, webhook_configs: [{ url: webhook.url, send_resolved: true }] })
  const config = { route, receivers: [receiver('pager'), receiver('tickets')] }
  let server: AlertmanagerServer | undefined
  let port = 0
  t.after(() => server?.child.stop())
  return {
    webhook,
    url: () => `http://127.0.0.1:${port}`,
    start: async () => {
      server = await startAlertmanager({ binary, folder, config, port })
      port = Number(new URL(server.url).port)
    },
    reserve: async () => {
      port = Number(new URL(await closedUrl()).port)
    },
    kill: async (signal) => {
      server?.child.signal(signal)
      await server?.child.exited
    },
  }
}

interface Replica {
  readonly notifier: Notifier
  readonly runtime: FakeRuntime
}

/** A notifier over the real HTTP client whose waits and re-sends are a matter of the test. */
function replica(t: TestContext, url: string): Replica {
  const runtime: FakeRuntime = { ...fakeRuntime([]), http: createHttp() }
  t.after(() => runtime.stop())
  const notifier = createNotifier(
    {
      alertmanagerUrls: [url],
      maintenance: [],
      labels: stableLabels(RULES.pairs),
      noDataTimeoutSeconds: 600,
      pollIntervalMs: 5_000,
      random: () => 0,
    },
    runtime,
    new Registry(),
  )
  return { notifier, runtime }
}

/** One history, as every replica reads it from Prometheus: each call is the next poll. */
function history(): (severity: Severity | null) => (...replicas: readonly Replica[]) => void {
  let startedSeconds = 0
  let lastSeconds = 0
  let open = false
  return (severity) => {
    const timestampSeconds = Math.max(Date.now() / 1000 - 1, lastSeconds + 0.001)
    lastSeconds = timestampSeconds
    if (!open) startedSeconds = timestampSeconds
    open = severity !== null
    const accumulators = severity === null ? [0, 0] : severity === 1 ? [12, 9] : [12, 0]
    const state = {
      accumulators,
      heardSeconds: [timestampSeconds, timestampSeconds],
      open: severity === null ? null : { startedSeconds, severity },
      expired: false,
    }
    return (...replicas) => {
      for (const { notifier } of replicas) {
        notifier.update({ rules: RULES, state, timestampSeconds, live: true, evidence: ['why'] })
      }
    }
  }
}

async function counters(url: string): Promise<{ readonly queries: number; readonly received: number }> {
  const text = await (await fetch(`${url}/metrics`)).text()
  const total = (prefix: string): number =>
    Object.values(samplesNamed(text, prefix)).reduce((sum, value) => sum + value, 0)
  return {
    queries: total('alertmanager_nflog_queries_total'),
    received: total('alertmanager_alerts_received_total{'),
  }
}

/**
 * Lets every replica say again what it says, and waits until Alertmanager has looked at that and at what it said last: what
 * it does not tell then it never tells.
 */
async function settled(url: string, again: (...replicas: readonly Replica[]) => void, replicas: readonly Replica[]) {
  await Promise.all(replicas.map(({ notifier }) => notifier.idle()))
  const before = await counters(url)
  for (const { runtime } of replicas) await runtime.clock.advance(30_000)
  again(...replicas)
  await Promise.all(replicas.map(({ notifier }) => notifier.idle()))
  for (;;) {
    const now = await counters(url)
    if (now.received > before.received && now.queries > before.queries) return
    await delay(50)
  }
}

/** The transitions of an incident, and what the receivers should be told of each. */
const TRANSITIONS = [2, 1, 2, null] as const

/** @param lag - what the second replica waits for before it says the same as the first */
async function play(
  alertmanager: Bench,
  [first, ...others]: readonly [Replica, ...(readonly Replica[])],
  options: {
    readonly perTransition?: readonly number[]
    readonly lag?: (alertmanager: Bench, expected: number) => Promise<void>
  } = {},
): Promise<void> {
  const { webhook, url } = alertmanager
  const { perTransition = [1, 1, 1, 1], lag } = options
  const poll = history()
  let expected = webhook.notifications.length
  for (const [i, severity] of TRANSITIONS.entries()) {
    const happens = poll(severity)
    expected += perTransition[i] ?? 0
    happens(first)
    await lag?.(alertmanager, expected)
    happens(...others)
    await webhook.received(expected)
    await settled(url(), poll(severity), [first, ...others])
  }
}

const PER_TRANSITION = [
  'pager: sev2 firing',
  'pager: sev1 firing, sev2 resolved',
  'pager: sev1 resolved, sev2 firing',
  'pager: sev2 resolved',
]

function assertToldOnce(webhook: Webhook): void {
  assert.deepEqual(webhook.told(), PER_TRANSITION)
  assert.deepEqual(
    webhook.notifications.map(({ status }) => status),
    ['firing', 'firing', 'firing', 'resolved'],
  )
}

/** What the monitors export, at the test's will. */
function exposition(counts: Readonly<Record<string, number>>): string {
  return [CART, PAYMENT]
    .flatMap(({ source, destination }) => {
      const labels = `source="${source}",destination="${destination}"`
      return [
        `lab7_anomaly_count{${labels}} ${counts[destination] ?? 0}`,
        `lab7_sample_timestamp_seconds{${labels}} ${Date.now() / 1000}`,
      ]
    })
    .join('\n')
    .concat('\n')
}

// Most of their time is Alertmanager's own waiting.
void describe('alert end to end', { concurrency: 4 }, () => {
  for (const { name, route } of [
    { name: 'the recommended route', route: RECOMMENDED },
    {
      name: "the package's own grouping",
      route: {
        receiver: 'pager',
        group_by: ['alertname'],
        group_wait: '1s',
        group_interval: '1s',
        repeat_interval: '1h',
      },
    },
    {
      name: 'no grouping at all',
      route: { receiver: 'pager', group_wait: '1s', group_interval: '1s', repeat_interval: '1h' },
    },
  ]) {
    test(`alert end to end: with ${name} one daemon is one notification per transition`, TIMEOUT, async (t) => {
      const alertmanager = await bench(t, route)
      await alertmanager.start()
      await play(alertmanager, [replica(t, alertmanager.url())])
      assertToldOnce(alertmanager.webhook)
      const [opened] = alertmanager.webhook.notifications
      assert.deepEqual(opened?.body.alerts[0]?.labels, {
        alertname: 'MeshfeverIncident',
        severity: 'sev2',
        pairs: 'checkout -> payment, frontend -> cart',
      })
      assert.equal(opened.body.alerts[0].annotations['description'], 'why')
    })
  }

  test('alert end to end: with routes by severity each receiver hears once of what is its own', TIMEOUT, async (t) => {
    const { receiver, ...grouping } = RECOMMENDED
    const alertmanager = await bench(t, {
      ...grouping,
      receiver: 'tickets',
      routes: [{ receiver, matchers: ['severity="sev1"'] }],
    })
    await alertmanager.start()
    await play(alertmanager, [replica(t, alertmanager.url())], { perTransition: [1, 2, 2, 1] })
    const told = (name: string) => alertmanager.webhook.told().filter((text) => text.startsWith(name))
    assert.deepEqual(told('pager'), ['pager: sev1 firing', 'pager: sev1 resolved'])
    assert.deepEqual(told('tickets'), [
      'tickets: sev2 firing',
      'tickets: sev2 resolved',
      'tickets: sev2 firing',
      'tickets: sev2 resolved',
    ])
  })

  for (const { when, lag } of [
    { when: 'at once', lag: () => Promise.resolve() },
    {
      when: 'when Alertmanager has told already what the first one said',
      lag: async ({ webhook }: Bench, expected: number) => webhook.received(expected),
    },
  ]) {
    test(
      `alert end to end: two replicas, the second one ${when}, are one notification per transition`,
      TIMEOUT,
      async (t) => {
        const alertmanager = await bench(t, RECOMMENDED)
        await alertmanager.start()
        await play(alertmanager, [replica(t, alertmanager.url()), replica(t, alertmanager.url())], { lag })
        assertToldOnce(alertmanager.webhook)
      },
    )
  }

  test(
    'alert end to end: an Alertmanager restarted in the middle learns again and says nothing twice',
    TIMEOUT,
    async (t) => {
      const alertmanager = await bench(t, RECOMMENDED)
      const { webhook, url } = alertmanager
      await alertmanager.start()
      const one = replica(t, url())
      const poll = history()
      poll(2)(one)
      await webhook.received(1)
      await settled(url(), poll(2), [one])
      await alertmanager.kill('SIGTERM')
      await alertmanager.start()
      await settled(url(), poll(2), [one])
      poll(null)(one)
      await webhook.received(2)
      await settled(url(), poll(null), [one])
      assert.deepEqual(webhook.told(), ['pager: sev2 firing', 'pager: sev2 resolved'])
    },
  )

  for (const { what, opens, told } of [
    { what: 'opened', opens: [2], told: ['pager: sev2 firing', 'pager: sev2 resolved'] },
    { what: 'opened and escalated', opens: [2, 1], told: ['pager: sev1 firing', 'pager: sev1 resolved'] },
  ] as const) {
    test(
      `alert end to end: an Alertmanager that was down when the incident ${what} hears of it once`,
      TIMEOUT,
      async (t) => {
        const alertmanager = await bench(t, RECOMMENDED)
        const { webhook, url } = alertmanager
        await alertmanager.reserve()
        const one = replica(t, url())
        const poll = history()
        for (const severity of opens) poll(severity)(one)
        while (!one.runtime.logged.some(({ msg }) => msg === 'notifications fail')) await delay(10)
        await alertmanager.start()
        await one.runtime.clock.advance(2_000)
        await webhook.received(1)
        await settled(url(), poll(opens.at(-1) ?? null), [one])
        poll(null)(one)
        await webhook.received(2)
        await settled(url(), poll(null), [one])
        assert.deepEqual(webhook.told(), told)
      },
    )
  }

  test(
    'alert end to end: a daemon killed in the middle of an incident, and one killed before its end, go on',
    TIMEOUT,
    async (t) => {
      const alertmanager = await bench(t, RECOMMENDED)
      const { webhook } = alertmanager
      await alertmanager.start()
      const binary = await findPrometheus(machine())
      const folder = temporaryFolder(t)
      let counts: Readonly<Record<string, number>> = {}
      const monitors = await startHttpServer(t, (_request, response) => response.end(exposition(counts)))
      const targetsFile = join(folder, 'targets.json')
      writeTargets(targetsFile, [{ targets: [`127.0.0.1:${monitors.port}`] }])
      const prometheus = await startPrometheus({
        binary,
        folder,
        scrapeIntervalSeconds: 1,
        jobs: [{ name: 'monitors', metricsPath: '/metrics', targetsFile }],
      })
      t.after(() => prometheus.child.stop())
      const daemon = () =>
        startProgram(t, [
          'incident',
          ...['--pair=frontend:cart=2', '--pair=checkout:payment=2', '--poll-interval-seconds=1'],
          ...['--incident-threshold=3', '--clear-threshold=1', '--accumulator-max=4', '--cool-by=2'],
          ...['--prometheus-port=0', '--listen-address=127.0.0.1', '--log-format=json'],
          ...[`--prometheus-url=${prometheus.url}`, `--alertmanager-url=${alertmanager.url()}`],
        ])
      const heard = ({ msg, unknown }: Readonly<Record<string, unknown>>): boolean =>
        msg === 'No incident detected' && unknown === undefined
      const first = daemon()
      await first.logged('that it hears of both pairs', heard)
      counts = { cart: 1 }
      await webhook.received(1)
      first.kill('SIGKILL')
      await first.exit
      const second = daemon()
      await second.logged('that it knows again', ({ msg }) => msg === 'notified')
      counts = { cart: 1, payment: 1 }
      await webhook.received(2)
      second.kill('SIGKILL')
      await second.exit
      // Nobody is there when it ends.
      counts = {}
      const before = await counters(alertmanager.url())
      const watcher = startProgram(t, [
        'incident',
        ...['--pair=frontend:cart=2', '--pair=checkout:payment=2', '--poll-interval-seconds=1'],
        ...['--incident-threshold=3', '--clear-threshold=1', '--accumulator-max=4', '--cool-by=2'],
        ...['--prometheus-port=0', '--listen-address=127.0.0.1', '--log-format=json'],
        `--prometheus-url=${prometheus.url}`,
      ])
      await watcher.logged('that it is over', ({ msg }) => msg === 'No incident detected')
      watcher.kill('SIGKILL')
      assert.equal((await counters(alertmanager.url())).received, before.received)
      const third = daemon()
      await webhook.received(3)
      await third.logged('what it resolved', ({ msg }) => msg === 'notified')
      assert.deepEqual(webhook.told(), [
        'pager: sev2 firing',
        'pager: sev1 firing, sev2 resolved',
        'pager: sev1 resolved, sev2 resolved',
      ])
    },
  )
})
