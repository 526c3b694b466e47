/* Faults of Alertmanager and on the way to it. An incident is open from the start, so there is something to tell. */
import assert from 'node:assert/strict'
import type { TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'

import { startWebhook, type Webhook } from '../helpers/webhook.js'
import { type Bench, incidentArgs, isSettled, stopSurely, TOKEN } from './bench.js'
import { type Daemon, startDaemon, until } from './daemon.js'
import { type Fault, type FaultProxy, startFaultProxy } from './fault-proxy.js'
import { alarming, assertNoSecret, facts, risen } from './judge.js'
import { answer, drip, END_WITHOUT_ANSWER, HANG, RESET } from './misbehaviour.js'
import type { Row } from './row.js'

interface Pager {
  readonly webhook: Webhook
  readonly proxy: FaultProxy
  readonly url: string
  /** The real server is ended and comes back, at the same address, with nothing in memory. */
  readonly restart: (folder?: string) => Promise<void>
}

async function startPager(bench: Bench): Promise<Pager> {
  const webhook = await startWebhook({ after: bench.atEnd } as unknown as TestContext)
  const folder = bench.newFolder()
  let server = await bench.startAlertmanager({ webhookUrl: webhook.url, folder })
  const { url } = server
  const proxy = await startFaultProxy(url)
  bench.atEnd(proxy.close)
  return {
    webhook,
    proxy,
    url,
    restart: async (other = folder) => {
      server.child.signal('SIGKILL')
      await server.child.exited
      server = await bench.startAlertmanager({
        webhookUrl: webhook.url,
        folder: other,
        port: Number(new URL(url).port),
      })
    },
  }
}

async function startIncident(bench: Bench, pagerUrl: string): Promise<Daemon> {
  await bench.exporter.storyTold
  const args = [
    ...incidentArgs(bench.prometheus.url),
    ...bench.prometheusAccess,
    '--alertmanager-url',
    pagerUrl,
    ...bench.alertmanagerAccess,
  ]
  return startDaemon({ args, started: bench.owns })
}

const counted = async (daemon: Daemon, result: string): Promise<number> =>
  (await daemon.metrics()).get(`meshfever_notifications_total{result="${result}"}`) ?? 0

interface PagerFault {
  readonly fault: Fault | 'refuse'
  readonly result: 'failed' | 'rejected' | 'sent'
  /** As the log says it; null: nothing that a person has to look at. */
  readonly outcome: string | null
  /** It is not tried again at once. */
  readonly slowly?: true
}

/** The fault is there from the first alert on; polls go on, nothing is forgotten, and it is told once when it can be. */
async function meetPager(bench: Bench, { fault, result, outcome, slowly }: PagerFault): Promise<string> {
  const { webhook, proxy } = await startPager(bench)
  if (fault === 'refuse') await proxy.refuse()
  else proxy.inject(fault)
  const daemon = await startIncident(bench, proxy.url)
  try {
    await isSettled(daemon)
    await until(`a post that was ${result}`, async () => ((await counted(daemon, result)) >= 1 ? true : undefined), {
      told: () => JSON.stringify(alarming(daemon.events())),
    })
    const before = await daemon.metrics()
    if (slowly === true) await delay(4_000)
    else if (result === 'failed')
      await until('a second try', async () => ((await counted(daemon, 'failed')) >= 2 ? true : undefined))
    const during = await until('2 good polls', async () => {
      const now = await daemon.metrics()
      return (risen(before, now)['ok'] ?? 0) >= 2 ? now : undefined
    })
    assert.deepEqual(Object.keys(risen(before, during)), ['ok'], 'polls of Prometheus meanwhile')
    assert.deepEqual(facts(during), facts(before), 'gauges of the incident daemon')
    const lines = alarming(daemon.events()).filter(({ msg }) => !String(msg).startsWith('credentials go to'))
    assert.deepEqual(
      lines.map(({ msg, outcome: said }) => `${String(msg)}${typeof said === 'string' ? `: ${said}` : ''}`),
      outcome === null ? [] : [outcome],
      'lines about the fault',
    )
    const tries = proxy.asked.filter(({ asker }) => asker === 'alerts').length
    if (slowly === true || result !== 'failed') assert.equal(tries, fault === 'refuse' ? 0 : 1, 'posts')
    assert.equal(webhook.notifications.length, 0, 'notifications during the fault')
    proxy.inject(null)
    await proxy.accept()
    const told = `${result} ×${await counted(daemon, result)}${outcome === null ? '' : ', one line'}`
    if (slowly === true || result !== 'failed') return `${told}; not tried again at once`
    const startMs = performance.now()
    await until('the notification', () => webhook.notifications[0], { patienceMs: 40_000 })
    await delay(2_500)
    assert.deepEqual(webhook.told(), ['pager: sev2 firing'])
    await assertNoSecret(daemon)
    return `${told}; told once, ${((performance.now() - startMs) / 1000 - 2.5).toFixed(1)} s after its end`
  } finally {
    await stopSurely(daemon.child)
  }
}

const fails = 'notifications fail'
const pager = (id: string, fault: string, how: PagerFault, gate?: 'gate'): Row => ({
  id,
  fault,
  ...(gate === undefined ? {} : { gate: true }),
  run: (bench) => meetPager(bench, how),
})

interface Alert {
  readonly startsAt: string
  readonly endsAt: string
  readonly labels: Readonly<Record<string, string>>
}

async function alertsOf(url: string): Promise<readonly Alert[]> {
  return (await (await fetch(`${url}/api/v2/alerts`)).json()) as readonly Alert[]
}

export const ALERT_ROWS: readonly Row[] = [
  pager('N1', 'Alertmanager is down', { fault: 'refuse', result: 'failed', outcome: `${fails}: conn` }, 'gate'),
  pager('N1 reset', 'connections to Alertmanager are reset', {
    fault: RESET,
    result: 'failed',
    outcome: `${fails}: conn`,
  }),
  pager('N1 closed', 'Alertmanager closes without an answer', {
    fault: END_WITHOUT_ANSWER,
    result: 'failed',
    outcome: `${fails}: conn`,
  }),
  pager('N2', 'Alertmanager takes the post and never answers', {
    fault: HANG,
    result: 'failed',
    outcome: `${fails}: timeout`,
  }),
  pager('N2 drip', 'Alertmanager answers byte by byte', {
    fault: dripping(),
    result: 'failed',
    outcome: `${fails}: timeout`,
  }),
  pager('N3', '500', { fault: answer(500, `no room ${TOKEN}`), result: 'failed', outcome: `${fails}: http_5xx` }),
  pager('N3 503', '503 of a gateway', {
    fault: answer(503, '<html>'),
    result: 'failed',
    outcome: `${fails}: http_5xx`,
  }),
  pager('N4', '400: the alert is refused', {
    fault: answer(400, '"invalid label set"'),
    result: 'rejected',
    outcome: 'an alert was refused: a bug of meshfever',
  }),
  pager('N5', '415, 422: the alert is refused', {
    fault: answer(422, '{"code":601,"message":"generatorURL"}'),
    result: 'rejected',
    outcome: 'an alert was refused: a bug of meshfever',
  }),
  pager('N6', '401', { fault: answer(401), result: 'failed', outcome: `${fails}: auth`, slowly: true }),
  pager('N6 404', '404 of a wrong path', {
    fault: answer(404),
    result: 'failed',
    outcome: `${fails}: http_4xx`,
    slowly: true,
  }),
  pager('N6 429', '429', { fault: answer(429), result: 'failed', outcome: `${fails}: http_4xx` }),
  pager('N14', '200 with a body of 20 MiB', {
    fault: answer(200, Buffer.alloc(20 * 2 ** 20, 'x')),
    result: 'failed',
    outcome: `${fails}: too_large`,
  }),
  pager('N15', 'a redirect to a metadata service', {
    fault: answer(302, '', { location: 'http://169.254.169.254/latest/' }),
    result: 'failed',
    outcome: `${fails}: redirect`,
    slowly: true,
  }),
  {
    id: 'N5 sent',
    fault: 'what Alertmanager insists on: JSON by its type, absolute URLs, alertname, start before end',
    run: async (bench) => {
      const { proxy, url } = await startPager(bench)
      const daemon = await startIncident(bench, proxy.url)
      try {
        const [alert] = await until(
          'an alert',
          async () => ((await alertsOf(url)).length > 0 ? alertsOf(url) : undefined),
          { patienceMs: 60_000 },
        )
        assert.ok(Date.parse(alert!.startsAt) <= Date.now(), 'begins in the past')
        assert.ok(Date.parse(alert!.endsAt) > Date.parse(alert!.startsAt))
        assert.notEqual(alert!.labels['alertname'] ?? '', '')
        assert.ok(proxy.asked.some(({ text }) => /content-type: application\/json/i.test(text)))
        return `taken by the real server: ${Object.keys(alert!.labels).join(', ')}`
      } finally {
        await stopSurely(daemon.child)
      }
    },
  },
  {
    id: 'N8',
    fault: 'Alertmanager is killed and comes back, what it knew of alerts is gone',
    gate: true,
    run: async (bench) => {
      const { webhook, url, restart } = await startPager(bench)
      const daemon = await startIncident(bench, url)
      try {
        await until('the notification', () => webhook.notifications[0], { patienceMs: 60_000 })
        await isSettled(daemon)
        const before = facts(await daemon.metrics())
        await restart()
        const startMs = performance.now()
        await until('the alert, again', async () => ((await alertsOf(url)).length > 0 ? true : undefined), {
          patienceMs: 60_000,
        })
        const seconds = (performance.now() - startMs) / 1000
        assert.ok(seconds <= 35, `after ${seconds.toFixed(1)} s`)
        assert.deepEqual(facts(await daemon.metrics()), before)
        await assertNoSecret(daemon)
        return `known again ${seconds.toFixed(0)} s later, told ${webhook.notifications.length} times in all`
      } finally {
        await stopSurely(daemon.child)
      }
    },
  },
  {
    id: 'N9',
    fault: 'the daemon is killed while an alert fires',
    run: async (bench) => {
      const { url } = await startPager(bench)
      const daemon = await startIncident(bench, url)
      const [alert] = await until(
        'an alert',
        async () => ((await alertsOf(url)).length > 0 ? alertsOf(url) : undefined),
        { patienceMs: 60_000 },
      )
      await stopSurely(daemon.child)
      const lasts = (Date.parse(alert!.endsAt) - Date.now()) / 1000
      assert.ok(lasts >= 120, `${lasts.toFixed(0)} s`)
      return `it lasts ${Math.round(lasts / 60)} min without us`
    },
  },
  {
    id: 'N10',
    fault: 'two replicas',
    gate: true,
    run: async (bench) => {
      const { webhook, url, proxy } = await startPager(bench)
      const replicas = await Promise.all([startIncident(bench, proxy.url), startIncident(bench, proxy.url)])
      try {
        await Promise.all(replicas.map(isSettled))
        await until('both of them told', async () =>
          (await Promise.all(replicas.map((one) => counted(one, 'sent')))).every((count) => count >= 1)
            ? true
            : undefined,
        )
        await until('the notification', () => webhook.notifications[0])
        await delay(3_000)
        const [one, other] = await Promise.all(replicas.map(async (replica) => facts(await replica.metrics())))
        const told = (all: Readonly<Record<string, number>> = {}) =>
          Object.fromEntries(Object.entries(all).filter(([name]) => !name.startsWith('lab7_incidents_total')))
        assert.deepEqual(told(one), told(other), 'what the replicas say')
        assert.deepEqual(webhook.told(), ['pager: sev2 firing'])
        assert.equal((await alertsOf(url)).length, 1)
        return 'both say the same, one alert, one notification'
      } finally {
        await Promise.all(replicas.map(({ child }) => stopSurely(child)))
      }
    },
  },
]

function dripping(): Fault {
  const slow = drip(300)
  return (exchange) =>
    slow({ ...exchange, forward: () => Promise.resolve({ status: 200, headers: {}, body: 'x'.repeat(500) }) })
}
