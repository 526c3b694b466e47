/* What is done to Prometheus itself, one after the other, to one that nobody else uses. */
import assert from 'node:assert/strict'
import { setTimeout as delay } from 'node:timers/promises'

import { writeTargets } from '../../src/testbed/prometheus-server.js'
import { type Bench, commonFlags, type Lane, monitorArgs, POLL_SECONDS, series, stopSurely, withLane } from './bench.js'
import { type Daemon, startDaemon, until } from './daemon.js'
import { CALM_EDGE } from './exporter.js'
import { startFaultProxy } from './fault-proxy.js'
import { alarming, assertNoSecret, type ConnectionFault, meet } from './judge.js'
import type { Row } from './row.js'

/** What a Prometheus comes back with: a while without data, and windows that hold too little of it. */
const COMING_BACK = { tolerated: ['stale', 'empty', 'nonfinite', 'conn', 'timeout', 'http_5xx'], wary: 40 } as const

const alone = (id: string, fault: string, how: (bench: Bench) => ConnectionFault, gate?: 'gate'): Row => ({
  id,
  fault,
  ...(gate === undefined ? {} : { gate: true }),
  run: (bench) => withLane(bench, {}, (lane) => meet(lane, how(bench))),
})

/** After a gap longer than --stale-after-seconds. */
const STALE = 'what a monitor exports is stale'

function stopped(bench: Bench, ms: number): ConnectionFault {
  return {
    fault: {
      begin: () => bench.prometheus.child.signal('SIGSTOP'),
      end: () => bench.prometheus.child.signal('SIGCONT'),
    },
    monitor: { outcome: 'timeout' },
    incident: { outcome: 'timeout' },
    also: () => delay(ms),
    mayTell: [STALE],
    ...COMING_BACK,
  }
}

function restarted(bench: Bench, signal: NodeJS.Signals): ConnectionFault {
  return {
    fault: {
      begin: async () => {
        bench.prometheus.child.signal(signal)
        await bench.prometheus.child.exited
      },
      end: async ({ proxy }: Lane) => {
        const { url } = await bench.restartPrometheus()
        proxy.setUpstream(url)
      },
    },
    monitor: { outcome: 'conn' },
    incident: { outcome: 'conn' },
    mayTell: [STALE],
    ...COMING_BACK,
  }
}

const PAY = { source: 'frontend', destination: 'pay' }
const STALE_AFTER_SECONDS = 5

/**
 * Two monitors, one of which finds anomalies and one of which has just ceased to, die while Prometheus is down. It comes back
 * and serves what they said last as if they had just said it.
 */
async function frozen(bench: Bench, signal: NodeJS.Signals): Promise<string> {
  const { exporter } = bench
  const proxy = await startFaultProxy(bench.prometheus.url)
  const started: Daemon[] = []
  const start = async (args: readonly string[]): Promise<Daemon> => {
    const daemon = await startDaemon({ args: [...args, ...bench.prometheusAccess], started: bench.owns })
    started.push(daemon)
    return daemon
  }
  try {
    const monitors = await Promise.all(
      [CALM_EDGE, PAY].map((pair) =>
        start(monitorArgs(bench, proxy.url).map((arg) => (arg === CALM_EDGE.destination ? pair.destination : arg))),
      ),
    )
    const hosts = monitors.map(({ url }) => new URL(url).host)
    writeTargets(bench.daemonTargets, [{ targets: hosts }])
    // Only theirs: those of a row before may be frozen, too.
    const frozenQuery = encodeURIComponent(`count(lab7_anomaly_count{job="meshfever",instance=~"${hosts.join('|')}"})`)
    const rule = [
      '--cool-by',
      '1',
      '--accumulator-max',
      '1000',
      '--stale-after-seconds',
      String(STALE_AFTER_SECONDS),
      '--query-window',
      '6s',
    ]
    const pairs = [CALM_EDGE, PAY].flatMap(({ source, destination }) => ['--pair', `${source}:${destination}`])
    const incidents = await Promise.all([
      start(['incident', ...pairs, ...rule, ...commonFlags(proxy.url)]),
      start(['incident', '--mesh', '--selector', 'job="meshfever"', ...rule, ...commonFlags(proxy.url)]),
    ])
    const accumulators = async (daemon: Daemon): Promise<readonly (number | undefined)[]> => {
      const metrics = await daemon.metrics()
      return [CALM_EDGE, PAY].map((pair) => metrics.get(series('lab7_incident_accumulator', pair)))
    }
    exporter.setTemper('cart', 'slow')
    exporter.setTemper('pay', 'slow')
    const hot = (what: string, look: (cart: number, pay: number) => boolean): Promise<unknown> =>
      Promise.all(
        incidents.map((daemon) =>
          until(
            what,
            async () => {
              const [cart = 0, pay = 0] = await accumulators(daemon)
              return look(cart, pay) ? true : undefined
            },
            { patienceMs: 90_000, told: () => daemon.lines.slice(-1).join() },
          ),
        ),
      )
    await hot('both pairs to be hot', (cart, pay) => cart >= 14 && pay >= 14)
    exporter.setTemper('pay', 'calm')
    let highest = 0
    await hot('one pair to cool', (_cart, pay) => {
      highest = Math.max(highest, pay)
      return pay < highest
    })
    // Prometheus first, so that it learns nothing of the end of the monitors.
    bench.prometheus.child.signal(signal)
    await bench.prometheus.child.exited
    for (const { child } of monitors) child.signal('SIGKILL')
    await Promise.all(monitors.map(({ child }) => child.exited))
    const from = incidents.map(({ lines }) => lines.length)
    const { url } = await bench.restartPrometheus()
    proxy.setUpstream(url)
    const served = await until('the values of monitors that are dead', async () => {
      const response = await fetch(`${url}/api/v1/query?query=${frozenQuery}`)
      const text = await response.text()
      return text.includes('"2"') ? true : undefined
    })
    assert.ok(served)
    // As long as a sample may be old, it counts; after that it must not.
    await delay((STALE_AFTER_SECONDS + 3) * 1000)
    await Promise.all(
      incidents.map((daemon) =>
        until(
          'an answer',
          () => {
            const line = daemon.events().findLast(({ unknown }) => unknown !== undefined)
            return JSON.stringify(line?.['unknown']).includes('stale') ? true : undefined
          },
          { told: () => daemon.lines.slice(-2).join('\n') },
        ),
      ),
    )
    const then = await Promise.all(incidents.map(accumulators))
    await delay(8 * POLL_SECONDS * 1000)
    const still = await fetch(`${url}/api/v1/query?query=${frozenQuery}`)
    assert.match(await still.text(), /"2"/, 'Prometheus serves the frozen values still')
    const now = await Promise.all(incidents.map(accumulators))
    assert.deepEqual(now, then, 'accumulators that frozen values moved')
    for (const [cart = 0, pay = 0] of now) assert.ok(cart >= 14 && pay > 0, `accumulators: ${cart} and ${pay}`)
    for (const [i, daemon] of incidents.entries()) {
      const said = alarming(daemon.events(from[i])).filter(({ msg }) => msg === STALE)
      const named = said.flatMap(({ pairs: names }) => names as readonly string[])
      assert.deepEqual(
        [...named].sort(),
        ['frontend -> cart', 'frontend -> pay'],
        'pairs that the log calls stale, once each',
      )
      await assertNoSecret(daemon)
    }
    return `frozen values served for 8 more polls; accumulators of the pair daemon ${String(now[0])}, of the mesh daemon ${String(now[1])}, unmoved; logged as stale once`
  } finally {
    exporter.setTemper('cart', 'calm')
    exporter.setTemper('pay', 'calm')
    writeTargets(bench.daemonTargets, [])
    for (const { child } of started) await stopSurely(child)
    await proxy.close()
  }
}

export const ALONE_ROWS: readonly Row[] = [
  alone('T4', 'SIGSTOP of Prometheus', (bench) => stopped(bench, 0), 'gate'),
  alone(
    'S20',
    'what Prometheus scrapes hangs',
    (bench) => ({
      fault: {
        begin: () => {
          bench.exporter.hanging = true
        },
        end: () => {
          bench.exporter.hanging = false
        },
      },
      monitor: { outcome: 'stale' },
      incident: { outcome: 'empty' },
      ...COMING_BACK,
    }),
    'gate',
  ),
  {
    id: 'S18',
    fault: 'a monitor dies while Prometheus is killed (SIGKILL) and restarted: frozen values',
    gate: true,
    run: (bench) => frozen(bench, 'SIGKILL'),
  },
  {
    id: 'S18 SIGTERM',
    fault: 'the same with a Prometheus that was ended as it should be (SIGTERM)',
    run: (bench) => frozen(bench, 'SIGTERM'),
  },
  alone('S22', 'SIGSTOP of Prometheus for 8 s: a gap in the data', (bench) => stopped(bench, 8_000)),
  alone('H5 real', 'SIGKILL of Prometheus, and a new start over its data', (bench) => restarted(bench, 'SIGKILL')),
  alone('S30 real', 'SIGTERM of Prometheus, and a new start over its data', (bench) => restarted(bench, 'SIGTERM')),
  {
    id: 'S21',
    fault: 'a sidecar is restarted: its counters begin at 0',
    run: (bench) =>
      withLane(bench, {}, async ({ monitor }) => {
        const before = await monitor.metrics()
        bench.exporter.restart('cart')
        await delay(6_000)
        const after = await monitor.metrics()
        assert.equal(
          after.get(series('lab7_anomalies_total', CALM_EDGE)),
          before.get(series('lab7_anomalies_total', CALM_EDGE)),
        )
        assert.equal(after.get(series('lab7_anomaly_count', CALM_EDGE)), 0)
        return 'no anomaly'
      }),
  },
]
