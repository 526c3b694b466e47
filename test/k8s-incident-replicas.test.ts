import assert from 'node:assert/strict'
import { join } from 'node:path'
import { describe, test, type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'

import { findAlertmanager, startAlertmanager } from '../src/testbed/alertmanager-server.js'
import { findPrometheus, startPrometheus, writeTargets } from '../src/testbed/prometheus-server.js'
import { samplesNamed } from './helpers/exposition.js'
import { type FakeRuntime, fakeRuntime } from './helpers/fake-runtime.js'
import { startHttpServer } from './helpers/local-server.js'
import { type RunningProgram, startProgram } from './helpers/program.js'
import { temporaryFolder } from './helpers/temporary-folder.js'
import { startWebhook, type Webhook } from './helpers/webhook.js'

/** With one caller, so that the mesh's detector, too, sees one incident. */
const DESTINATIONS = ['cart', 'payment'] as const
type Destination = (typeof DESTINATIONS)[number]

/** The programs as this machine has them, found or installed with the environment of the tests. */
function machine(): Pick<FakeRuntime, 'program' | 'logger'> {
  const { program, logger } = fakeRuntime([])
  return { program: { ...program, environment: process.env, isRoot: process.getuid?.() === 0 }, logger }
}

function exposition(hot: readonly Destination[]): string {
  return [
    'meshfever_build_info{version="1",node_version="v20",command="monitor"} 1',
    ...DESTINATIONS.flatMap((destination) => {
      const labels = `source="frontend",destination="${destination}"`
      const isHot = hot.includes(destination)
      return [
        `lab7_anomaly_count{${labels}} ${isHot ? 1 : 0}`,
        `lab7_sample_timestamp_seconds{${labels}} ${Date.now() / 1000}`,
        `lab7_verdict{${labels},verdict="${isHot ? 'anomalous' : 'ok'}"} 1`,
      ]
    }),
    '',
  ].join('\n')
}

interface Bench {
  readonly webhook: Webhook
  readonly setHot: (...destinations: readonly Destination[]) => void
  /** One more daemon, with the flags that all have. */
  readonly replica: () => RunningProgram
  /** Resolves when Alertmanager took what is said meanwhile, and has looked at what it knows: what it does not tell then it never tells. */
  readonly settled: (said: () => Promise<unknown>) => Promise<void>
}

async function startBench(t: TestContext, flags: readonly string[]): Promise<Bench> {
  let hot: readonly Destination[] = []
  const webhook = await startWebhook(t)
  const monitor = await startHttpServer(t, (_request, response) => response.end(exposition(hot)))
  const folder = temporaryFolder(t)
  const targetsFile = join(folder, 'targets.json')
  writeTargets(targetsFile, [{ targets: [`127.0.0.1:${monitor.port}`] }])
  const prometheus = await startPrometheus({
    binary: await findPrometheus(machine()),
    folder,
    scrapeIntervalSeconds: 1,
    jobs: [{ name: 'meshfever', metricsPath: '/metrics', targetsFile }],
  })
  t.after(() => prometheus.child.stop())
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
  const count = async (name: string): Promise<number> => {
    const text = await (await fetch(`${alertmanager.url}/metrics`)).text()
    return Object.values(samplesNamed(text, name)).reduce((sum, value) => sum + value, 0)
  }
  const more = async (name: string, than: number): Promise<void> => {
    while ((await count(name)) <= than) await delay(50)
  }
  return {
    webhook,
    setHot: (...destinations) => (hot = destinations),
    replica: () =>
      startProgram(t, [
        ...['incident', ...flags, '--poll-interval-seconds=1', '--incident-threshold=3', '--clear-threshold=1'],
        ...['--accumulator-max=4', '--cool-by=2', '--prometheus-port=0', '--listen-address=127.0.0.1'],
        ...['--log-format=json', `--prometheus-url=${prometheus.url}`, `--alertmanager-url=${alertmanager.url}`],
      ]),
    settled: async (said) => {
      const received = await count('alertmanager_alerts_received_total{')
      await said()
      await more('alertmanager_alerts_received_total{', received)
      await more('alertmanager_nflog_queries_total', await count('alertmanager_nflog_queries_total'))
    },
  }
}

/** Resolves when a replica has told Alertmanager so. */
const says = (replica: RunningProgram, news: string): Promise<unknown> =>
  replica.logged(`that it sent "${news}"`, ({ msg, alerts }) => {
    return msg === 'notified' && (alerts as readonly string[]).some((text) => text.includes(news))
  })

const knows = (replica: RunningProgram): Promise<unknown> =>
  replica.logged('that it hears of both pairs', ({ msg, unknown }) => {
    return msg === 'No incident detected' && unknown === undefined
  })

void describe('incident replicas', { concurrency: 2 }, () => {
  for (const { name, flags } of [
    { name: 'of named pairs', flags: ['--pair=frontend:cart=2', '--pair=frontend:payment=2'] },
    { name: 'of a mesh', flags: ['--mesh', '--selector=job="meshfever"', '--accumulator-threshold=2'] },
  ]) {
    test(
      `incident replicas ${name}: one notification per transition, whichever of them is suspended, killed or restarted meanwhile`,
      { timeout: 120_000 },
      async (t) => {
        const { webhook, setHot, replica, settled } = await startBench(t, flags)
        const [a, b] = [replica(), replica()]
        await Promise.all([knows(a), knows(b)])

        await settled(async () => {
          setHot('cart')
          await Promise.all([says(a, 'sev2 firing'), says(b, 'sev2 firing')])
        })

        a.kill('SIGSTOP')
        await settled(async () => {
          setHot('cart', 'payment')
          await says(b, 'sev1 firing')
        })
        await settled(async () => {
          a.kill('SIGCONT')
          await says(a, 'sev1 firing')
        })

        b.kill('SIGKILL')
        await b.exit
        await settled(async () => {
          setHot('cart')
          await says(a, 'sev2 firing')
        })
        const second = replica()
        await settled(() => says(second, 'sev2 firing'))

        a.kill('SIGTERM')
        assert.equal((await a.exit).code, 0)
        await settled(async () => {
          setHot()
          await says(second, 'sev2 resolved')
        })
        const third = replica()
        await settled(() => says(third, 'sev2 resolved'))

        assert.deepEqual(webhook.told(), [
          'pager: sev2 firing',
          'pager: sev1 firing, sev2 resolved',
          'pager: sev1 resolved, sev2 firing',
          'pager: sev2 resolved',
        ])
      },
    )
  }
})
