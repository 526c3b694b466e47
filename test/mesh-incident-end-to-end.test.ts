import assert from 'node:assert/strict'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'

import type { IncidentHistoryJson } from '../src/core/incident-history.js'
import { findAlertmanager, startAlertmanager } from '../src/testbed/alertmanager-server.js'
import { findPrometheus, startPrometheus, writeTargets } from '../src/testbed/prometheus-server.js'
import { type FakeRuntime, fakeRuntime } from './helpers/fake-runtime.js'
import { startHttpServer } from './helpers/local-server.js'
import { type RunningProgram, startProgram } from './helpers/program.js'
import { temporaryFolder } from './helpers/temporary-folder.js'
import { startWebhook } from './helpers/webhook.js'

const CALLERS = Array.from({ length: 30 }, (_, i) => `caller-${String(i).padStart(2, '0')}>cart`)
const OTHERS = Array.from({ length: 268 }, (_, i) => `s${i % 67}>t${(i * 5) % 71}-${Math.floor(i / 67)}`)
const APART = ['x>y', 'x>z']
/** Three shards watch a third each, but for the two that are apart: these are the last one's. */
const SHARDS = [0, 1, 2].map((shard) => [
  ...[...CALLERS, ...OTHERS].filter((_, i) => i % 3 === shard),
  ...(shard === 2 ? APART : []),
])

/** The programs as this machine has them, found or installed with the environment of the tests. */
function machine(): Pick<FakeRuntime, 'program' | 'logger'> {
  const { program, logger } = fakeRuntime([])
  return { program: { ...program, environment: process.env, isRoot: process.getuid?.() === 0 }, logger }
}

function exposition(edges: readonly string[], bad: ReadonlySet<string>): string {
  const lines = edges.map((edge) => {
    const [source = '', destination = ''] = edge.split('>')
    return { labels: `source="${source}",destination="${destination}"`, count: bad.has(edge) ? 1 : 0 }
  })
  return [
    'meshfever_build_info{version="1",node_version="v20",command="monitor"} 1',
    ...lines.map(({ labels, count }) => `lab7_anomaly_count{${labels}} ${count}`),
    ...lines.map(({ labels }) => `lab7_sample_timestamp_seconds{${labels}} ${Date.now() / 1000}`),
    ...lines.map(({ labels, count }) => `lab7_verdict{${labels},verdict="${count > 0 ? 'anomalous' : 'ok'}"} 1`),
    '',
  ].join('\n')
}

interface Mesh {
  readonly prometheusUrl: string
  /** From now on these edges are anomalous, and no others. */
  readonly setBad: (edges: readonly string[]) => void
  /** The monitor of a shard is gone, or back. */
  readonly setGone: (shard: number, gone: boolean) => void
}

async function startMesh(t: TestContext): Promise<Mesh> {
  let bad: ReadonlySet<string> = new Set()
  const gone = new Set<number>()
  const folder = temporaryFolder(t)
  const binary = await findPrometheus(machine())
  const monitors = await Promise.all(
    SHARDS.map((edges, shard) =>
      startHttpServer(t, (_request, response) => {
        if (gone.has(shard)) response.writeHead(503)
        response.end(gone.has(shard) ? '' : exposition(edges, bad))
      }),
    ),
  )
  const targetsFile = join(folder, 'targets.json')
  writeTargets(targetsFile, [{ targets: monitors.map(({ port }) => `127.0.0.1:${port}`) }])
  const prometheus = await startPrometheus({
    binary,
    folder,
    scrapeIntervalSeconds: 1,
    jobs: [{ name: 'meshfever', metricsPath: '/metrics', targetsFile }],
  })
  t.after(() => prometheus.child.stop())
  return {
    prometheusUrl: prometheus.url,
    setBad: (edges) => (bad = new Set(edges)),
    setGone: (shard, isGone) => {
      if (isGone) gone.add(shard)
      else gone.delete(shard)
    },
  }
}

/** The open incidents that a line of the log tells of: `cart 30`, the destination it began with and its pairs. */
function toldIn(line: Readonly<Record<string, unknown>>): readonly string[] {
  const incidents = (line['incidents'] ?? []) as readonly { readonly began: string; readonly pairs: number }[]
  return incidents.map(({ began, pairs }) => `${began.split(' -> ')[1] ?? ''} ${pairs}`).sort()
}

test(
  'mesh incident end to end: one broken dependency is one notification, two faults are two, a vanished shard and a killed daemon none',
  { timeout: 90_000 },
  async (t) => {
    const webhook = await startWebhook(t)
    const mesh = await startMesh(t)
    const alertmanager = await startAlertmanager({
      binary: await findAlertmanager(machine()),
      folder: temporaryFolder(t),
      config: {
        // As the README recommends, with shorter times.
        route: { receiver: 'pager', group_by: ['alertname', 'pairs'], group_wait: '0s', group_interval: '1s' },
        receivers: [{ name: 'pager', webhook_configs: [{ url: webhook.url, send_resolved: true }] }],
      },
    })
    t.after(() => alertmanager.child.stop())
    const daemon = (): RunningProgram =>
      startProgram(t, [
        ...['incident', '--mesh', '--selector=job="meshfever"', '--poll-interval-seconds=1'],
        ...['--accumulator-threshold=2', '--incident-threshold=3', '--clear-threshold=1', '--accumulator-max=4'],
        ...['--cool-by=4', '--prometheus-port=0', '--listen-address=127.0.0.1', '--log-format=json'],
        ...[`--prometheus-url=${mesh.prometheusUrl}`, `--alertmanager-url=${alertmanager.url}`],
      ])
    const first = daemon()
    await first.logged(
      'that it hears of all shards',
      ({ msg, monitors }) => msg === 'No incident detected' && monitors === 3,
    )

    mesh.setBad(CALLERS)
    await webhook.received(1)
    const [opened] = webhook.notifications
    assert.equal(opened?.body.alerts.length, 1)
    const { labels, annotations } = opened.body.alerts[0]!
    assert.equal(labels['severity'], 'sev1')
    assert.match(labels['pairs'] ?? '', /^caller-\d\d -> cart$/)
    assert.match(
      annotations['description'] ?? '',
      /\nSuspect: cart, because the pairs .* share it as their destination/,
    )
    const transition = await first.logged('the transition', ({ msg }) => msg === 'incident transition')
    await first.logged('all callers', (line) => toldIn(line).join() === 'cart 30')

    mesh.setBad([...CALLERS, ...APART])
    await webhook.received(2)
    assert.deepEqual(
      webhook.notifications[1]?.body.alerts.map(({ labels: of, status }) => [of['severity'], of['pairs'], status]),
      [['sev1', 'x -> y', 'firing']],
    )

    mesh.setGone(0, true)
    const silent = ({ unknown }: Readonly<Record<string, unknown>>): boolean => Object.keys(unknown ?? {}).length === 10
    for (let poll = 0; poll < 4; poll++) {
      const line = await first.logged('that a third of the callers is silent', silent)
      assert.deepEqual([toldIn(line), line['monitors'], line['temperature']], [['cart 30', 'y 2'], 2, 128])
    }

    first.kill('SIGKILL')
    await first.exit
    const second = daemon()
    const { url } = await second.logged('where it listens', ({ msg }) => msg === 'listening')
    await second.logged('that it sends again', ({ msg }) => msg === 'notified')
    // The page is made after a poll.
    for (let poll = 0; poll < 2; poll++) await second.logged('a poll', (line) => toldIn(line).length === 2)
    const { incidents } = (await (await fetch(`${String(url)}/api/incidents`)).json()) as IncidentHistoryJson
    assert.deepEqual(
      incidents.map(({ outcome }) => outcome),
      ['open', 'open'],
    )
    assert.equal(incidents[1]?.id, transition['incident'], 'known by the same name as before')
    assert.deepEqual(incidents[1]?.transitions[0], transition['evidence'], 'with the same packet')

    mesh.setGone(0, false)
    mesh.setBad([])
    await webhook.received(4)
    await second.logged('that all is over', ({ msg }) => msg === 'No incident detected')
    assert.deepEqual(webhook.told(), [
      'pager: sev1 firing',
      'pager: sev1 firing',
      'pager: sev1 resolved',
      'pager: sev1 resolved',
    ])
    assert.deepEqual(webhook.notifications.map(({ body }) => body.alerts.map(({ labels: of }) => of['pairs'])).sort(), [
      [labels['pairs']],
      [labels['pairs']],
      ['x -> y'],
      ['x -> y'],
    ])
  },
)
