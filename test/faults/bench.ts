import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { pairName } from '../../src/core/pair.js'
import { type AlertmanagerServer, findAlertmanager, startAlertmanager } from '../../src/testbed/alertmanager-server.js'
import type { Child } from '../../src/testbed/child-process.js'
import {
  findPrometheus,
  type PrometheusServer,
  startPrometheus,
  writeTargets,
} from '../../src/testbed/prometheus-server.js'
import { benchRuntime } from '../../bench/runtime.js'
import { CALM_MS, recordingOf } from '../helpers/recordings.js'
import { type Daemon, startDaemon, until } from './daemon.js'
import { BURNING, CALM, CALM_EDGE, type Exporter, HELD, startExporter, type Temper } from './exporter.js'
import { type FaultProxy, type Identity, startFaultProxy } from './fault-proxy.js'

/** Long enough that a busy machine answers within the deadline of a poll, four fifths of it. */
export const POLL_SECONDS = 1.5
export const SCRAPE_SECONDS = 1

/** Wherever one of these shows, other than on its way to the server that it is for, a secret got out. */
export const PASSWORD = 'planted-password-4711'
export const TOKEN = 'planted-token-0815-abcdef'
export const SECRETS: readonly string[] = [PASSWORD, TOKEN, Buffer.from(`meshfever:${PASSWORD}`).toString('base64')]

/** The real servers and what they scrape; one for many rows. */
export interface Bench {
  readonly folder: string
  /** A folder of one's own. */
  readonly newFolder: () => string
  readonly exporter: Exporter
  readonly prometheus: PrometheusServer
  readonly trainingFile: string
  /** A file_sd file of what else is scraped under /metrics. */
  readonly daemonTargets: string
  /** Flag and path of a file with credentials for Prometheus. */
  readonly prometheusAccess: readonly string[]
  readonly alertmanagerAccess: readonly string[]
  /** Ends them all with the bench, at the latest. */
  readonly owns: (child: Child) => void
  readonly atEnd: (end: () => unknown) => void
  /** Starts Prometheus again, over the same data. */
  readonly restartPrometheus: () => Promise<PrometheusServer>
  readonly startAlertmanager: (options: {
    readonly webhookUrl: string
    readonly port?: number
    readonly folder?: string
  }) => Promise<AlertmanagerServer>
  readonly close: () => Promise<void>
}

export async function startBench(destinations: Readonly<Record<string, Temper | 'idle'>>): Promise<Bench> {
  const folder = mkdtempSync(join(tmpdir(), 'meshfever-faults-'))
  chmodSync(folder, 0o755) // some rows run as nobody
  const ends: (() => unknown)[] = []
  const atEnd = (end: () => unknown): void => void ends.unshift(end)
  const owns = (child: Child): void => atEnd(() => stopSurely(child))
  const exporter = await startExporter(destinations)
  atEnd(exporter.close)
  const targets = join(folder, 'exporter.json')
  const daemonTargets = join(folder, 'daemons.json')
  writeTargets(targets, [{ targets: [exporter.host] }])
  writeTargets(daemonTargets, [])
  const runtime = benchRuntime()
  const binary = await findPrometheus(runtime)
  const start = (): Promise<PrometheusServer> =>
    startPrometheus({
      binary,
      folder: join(folder, 'prometheus'),
      scrapeIntervalSeconds: SCRAPE_SECONDS,
      jobs: [
        { name: 'istio', metricsPath: '/istio', targetsFile: targets },
        { name: 'monitors', metricsPath: '/monitors', targetsFile: targets },
        { name: 'meshfever', metricsPath: '/metrics', targetsFile: daemonTargets },
      ],
      started: owns,
    })
  const trainingFile = join(folder, 'training.json')
  writeFileSync(trainingFile, recordingOf(CALM_MS))
  const write = (name: string, text: string): string => {
    writeFileSync(join(folder, name), text)
    return join(folder, name)
  }
  write('password', `${PASSWORD}\n`)
  write('token', `${TOKEN}\n`)
  const basic = write('basic.yml', 'basic_auth: {username: meshfever, password_file: password}\n')
  const bearer = write('bearer.yml', 'authorization: {credentials_file: token}\n')
  let folders = 0
  let prometheus = await start()
  return {
    folder,
    newFolder: () => {
      const own = join(folder, `row-${folders++}`)
      mkdirSync(own)
      return own
    },
    exporter,
    get prometheus() {
      return prometheus
    },
    trainingFile,
    daemonTargets,
    prometheusAccess: ['--prometheus-http-config-file', basic],
    alertmanagerAccess: ['--alertmanager-http-config-file', bearer],
    owns,
    atEnd,
    restartPrometheus: async () => {
      prometheus = await start()
      return prometheus
    },
    startAlertmanager: async ({ webhookUrl, port = 0, folder: own = join(folder, `alertmanager-${folders++}`) }) => {
      const server = await startAlertmanager({
        binary: await findAlertmanager(runtime),
        folder: own,
        config: {
          route: {
            receiver: 'pager',
            group_by: ['alertname', 'pairs'],
            group_wait: '0s',
            group_interval: '1s',
            repeat_interval: '4h',
          },
          receivers: [{ name: 'pager', webhook_configs: [{ url: webhookUrl, send_resolved: true }] }],
        },
        port,
      })
      owns(server.child)
      return server
    },
    close: async () => {
      for (const end of ends.splice(0)) await end()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

export async function stopSurely(child: Child): Promise<void> {
  if (child.hasEnded()) return
  child.signal('SIGCONT')
  child.signal('SIGKILL')
  await child.exited
}

export function commonFlags(prometheusUrl: string): readonly string[] {
  return [
    ...['--prometheus-url', prometheusUrl, '--poll-interval-seconds', String(POLL_SECONDS)],
    ...['--prometheus-port', '0', '--listen-address', '127.0.0.1', '--log-format', 'json'],
  ]
}

export function monitorArgs(bench: Bench, prometheusUrl: string): readonly string[] {
  return [
    ...['monitor', '--service1', CALM_EDGE.source, '--service2', CALM_EDGE.destination],
    ...['--training-data-file', bench.trainingFile, '--query-window', '6s'],
    ...commonFlags(prometheusUrl),
  ]
}

export function incidentArgs(prometheusUrl: string): readonly string[] {
  return [
    'incident',
    ...[HELD, CALM, BURNING].flatMap(({ source, destination }) => ['--pair', `${source}:${destination}`]),
    ...['--stale-after-seconds', '6', '--query-window', '6s', '--cool-by', '4'],
    ...commonFlags(prometheusUrl),
  ]
}

/** A monitor and an incident daemon behind a proxy of their own. */
export interface Lane {
  readonly proxy: FaultProxy
  readonly monitor: Daemon
  readonly incident: Daemon
  readonly close: () => Promise<void>
}

export interface LaneOptions {
  /** The proxy speaks TLS. */
  readonly identity?: Identity
  /** In place of the file with credentials. */
  readonly access?: readonly string[]
  /** How the daemons are told of the proxy. */
  readonly urlOf?: (proxy: FaultProxy) => string
  readonly environment?: Readonly<Record<string, string>>
  readonly through?: readonly string[]
  readonly incidentFlags?: readonly string[]
}

export async function startLane(bench: Bench, options: LaneOptions = {}): Promise<Lane> {
  const { identity, access = bench.prometheusAccess, urlOf, incidentFlags = [], ...how } = options
  await bench.exporter.storyTold
  const proxy = await startFaultProxy(bench.prometheus.url, identity)
  bench.atEnd(proxy.close)
  const url = urlOf?.(proxy) ?? proxy.url
  const [monitor, incident] = await Promise.all([
    startDaemon({ ...how, args: [...monitorArgs(bench, url), ...access], started: bench.owns }),
    startDaemon({ ...how, args: [...incidentArgs(url), ...access, ...incidentFlags], started: bench.owns }),
  ])
  await Promise.all([isCalm(monitor), isSettled(incident)])
  return {
    proxy,
    monitor,
    incident,
    close: async () => {
      await Promise.all([monitor, incident].map(({ child }) => stopSurely(child)))
      await proxy.close()
    },
  }
}

/** Does something with a lane of its own. */
export async function withLane<T>(bench: Bench, options: LaneOptions, work: (lane: Lane) => Promise<T>): Promise<T> {
  const lane = await startLane(bench, options)
  try {
    return await work(lane)
  } finally {
    await lane.close()
  }
}

/** The monitor scores, and finds nothing. */
export async function isCalm(monitor: Daemon): Promise<void> {
  await until(
    'a first verdict',
    async () => ((await monitor.metrics()).get(series('lab7_anomaly_count', CALM_EDGE)) === 0 ? true : undefined),
    { patienceMs: 60_000 },
  )
}

/** The story is over: nothing that is true changes an accumulator any more. */
export async function isSettled(incident: Daemon): Promise<void> {
  await until(
    'the end of the story',
    async () => {
      const metrics = await incident.metrics()
      const [held, burning] = [HELD, BURNING].map((pair) => metrics.get(series('lab7_incident_accumulator', pair)))
      return burning === 20 && held !== undefined && held > 0 && incident.events().some(isHeld) ? true : undefined
    },
    { patienceMs: 60_000, told: () => incident.lines.slice(-2).join('\n') },
  )
}

function isHeld({ unknown }: Readonly<Record<string, unknown>>): boolean {
  return (unknown as Record<string, string> | undefined)?.[pairName(HELD)] === 'low_traffic'
}

export function series(
  name: string,
  { source, destination }: { readonly source: string; readonly destination: string },
): string {
  return `${name}{source="${source}",destination="${destination}"}`
}
