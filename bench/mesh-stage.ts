import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

import { pino } from 'pino'

import { ISTIO_BUCKETS_MS } from '../src/core/istio-buckets.js'
import { type Pair, pairKey } from '../src/core/pair.js'
import type { Program } from '../src/io/runtime.js'
import { type Child, listeningUrl, startChild } from '../src/testbed/child-process.js'
import { findPrometheus, startPrometheus, writeTargets } from '../src/testbed/prometheus-server.js'
import { seededRandom } from '../src/testbed/random.js'

const PROGRAM = fileURLToPath(new URL('../src/main.js', import.meta.url))
const SLOWER_MS = 180
const TRAINING_SAMPLES = 80

/** A mesh of some hundred edges, a real Prometheus that scrapes its sidecars, and the daemons for a whole mesh. */
export interface MeshStage {
  readonly monitorUrl: string
  readonly incidentUrl: string
  /** Slows a database down, and so all that wait for it; and one edge elsewhere. */
  breakDown(): void
  stop(): Promise<void>
}

const REGIONS = ['eu', 'us', 'ap']
const FRONTS = ['storefront', 'mobile-api', 'partner-api']
const DOMAINS = [
  ...['cart', 'payments', 'orders', 'catalogue', 'accounts', 'shipping', 'pricing', 'search', 'reviews', 'loyalty'],
  ...['invoices', 'stock'],
]

const edge = (source: string, destination: string): Pair => ({ source, destination })

export function shopEdges(): readonly Pair[] {
  const fronts = FRONTS.flatMap((front) => REGIONS.map((region) => `${front}-${region}`))
  return [
    ...fronts.flatMap((front) => DOMAINS.map((domain) => edge(front, domain))),
    ...DOMAINS.flatMap((domain, i) => [
      edge(domain, `${domain}-db`),
      edge(domain, `${domain}-cache`),
      edge(domain, `${domain}-worker`),
      edge(`${domain}-worker`, `${domain}-db`),
      ...[1, 3, 8].map((far) => edge(domain, DOMAINS[(i + far) % DOMAINS.length] ?? '')),
    ]),
  ]
}

/** Callers of a service that is slow wait for it; those that call them do not in most requests. */
function isBroken({ source, destination }: Pair): boolean {
  return (
    destination === 'payments-db' || destination === 'payments' || (source === 'reviews' && destination === 'loyalty')
  )
}

/** The share of requests that take no longer than this. */
function shareWithin(boundMs: number, medianMs: number): number {
  return 1 / (1 + (medianMs / boundMs) ** 4)
}

/** What histogram_quantile makes of Istio's buckets: straight lines between their bounds. */
function bucketMedianMs(medianMs: number): number {
  let below = 0
  for (const bound of ISTIO_BUCKETS_MS) {
    const [from, to] = [below === 0 ? 0 : shareWithin(below, medianMs), shareWithin(bound, medianMs)]
    if (to >= 0.5) return below + ((bound - below) * (0.5 - from)) / (to - from)
    below = bound
  }
  return below
}

/** Counters that grow with the time that went by since they were last read. */
function createSidecars(edges: readonly Pair[]): { readonly read: () => string; readonly breakDown: () => void } {
  const random = seededRandom(5)
  const counted = edges.map((pair) => ({
    pair,
    medianMs: normalMs(pair),
    perSecond: 4 + 8 * random(),
    buckets: ISTIO_BUCKETS_MS.map(() => 0),
    all: 0,
  }))
  let isWell = true
  let lastMs = Date.now()
  return {
    breakDown: () => (isWell = false),
    read: () => {
      const nowMs = Date.now()
      const seconds = (nowMs - lastMs) / 1000
      lastMs = nowMs
      const lines = ['# TYPE istio_request_duration_milliseconds histogram\n']
      for (const [i, one] of counted.entries()) {
        const wobble = 1 + 0.05 * Math.sin(nowMs / 5_000 + i)
        const medianMs = one.medianMs * wobble + (isWell || !isBroken(one.pair) ? 0 : SLOWER_MS)
        const requests = seconds * one.perSecond
        one.all += requests
        ISTIO_BUCKETS_MS.forEach(
          (bound, k) => (one.buckets[k] = (one.buckets[k] ?? 0) + requests * shareWithin(bound, medianMs)),
        )
        for (const reporter of ['source', 'destination']) {
          const labels = `reporter="${reporter}",source_app="${one.pair.source}",destination_app="${one.pair.destination}"`
          const name = 'istio_request_duration_milliseconds'
          for (const [k, bound] of ISTIO_BUCKETS_MS.entries())
            lines.push(`${name}_bucket{${labels},le="${bound}"} ${one.buckets[k] ?? 0}\n`)
          lines.push(`${name}_bucket{${labels},le="+Inf"} ${one.all}\n`, `${name}_count{${labels}} ${one.all}\n`)
        }
      }
      return lines.join('')
    },
  }
}

/** From 4 to 34 ms, by the names. */
function normalMs(pair: Pair): number {
  return 4 + ([...new TextEncoder().encode(pairKey(pair))].reduce((sum, byte) => (31 * sum + byte) % 9_973, 7) % 31)
}

/** Twenty minutes of the same mesh, as Prometheus would have given them. */
function training(edges: readonly Pair[]): string {
  const random = seededRandom(11)
  const result = edges.map((pair) => ({
    metric: { source_app: pair.source, destination_app: pair.destination, quantile: '0.5' },
    values: Array.from({ length: TRAINING_SAMPLES }, (_, i) => {
      const wobble = 1 + 0.05 * Math.sin(i) + 0.04 * (random() - 0.5)
      return [1_700_000_000 + 15 * i, String(bucketMedianMs(normalMs(pair) * wobble))]
    }),
  }))
  return JSON.stringify({ status: 'success', data: { resultType: 'matrix', result } })
}

/** @throws {StartError} when Prometheus is not there and cannot be installed */
export async function startMeshStage(program: Program): Promise<MeshStage> {
  const folder = mkdtempSync(join(tmpdir(), 'meshfever-mesh-page-'))
  const children: Child[] = []
  const edges = shopEdges()
  const sidecars = createSidecars(edges)
  const server = createServer((_, response) => response.end(sidecars.read()))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const stop = async (): Promise<void> => {
    await Promise.allSettled(children.reverse().map((child) => child.stop()))
    server.closeAllConnections()
    server.close()
    rmSync(folder, { recursive: true, force: true })
  }
  try {
    const [sidecarTargets, daemonTargets] = ['sidecars.json', 'daemons.json'].map((name) => join(folder, name)) as [
      string,
      string,
    ]
    writeTargets(sidecarTargets, [{ targets: [`127.0.0.1:${(server.address() as AddressInfo).port}`] }])
    writeTargets(daemonTargets, [])
    const prometheus = await startPrometheus({
      binary: await findPrometheus({ program, logger: pino({ level: 'silent' }) }),
      folder: join(folder, 'prometheus'),
      scrapeIntervalSeconds: 1,
      jobs: [
        { name: 'istio-proxy', metricsPath: '/metrics', targetsFile: sidecarTargets },
        { name: 'meshfever', metricsPath: '/metrics', targetsFile: daemonTargets },
      ],
    })
    children.push(prometheus.child)
    const file = join(folder, 'training.json')
    writeFileSync(file, training(edges))
    const serve = [
      ...['--prometheus-url', prometheus.url, '--poll-interval-seconds', '1', '--query-window', '6s'],
      ...['--prometheus-port', '0', '--listen-address', '127.0.0.1', '--log-format', 'json'],
    ]
    const daemon = (args: readonly string[]): Promise<string> => {
      const child = startChild({ name: args[0] ?? '', command: process.execPath, args: [PROGRAM, ...args, ...serve] })
      children.push(child)
      return child.waitForLine(listeningUrl)
    }
    const [monitorUrl, incidentUrl] = await Promise.all([
      daemon(['monitor', '--mesh', '--training-data-file', file, '--min-deviation-ms', '5']),
      daemon(['incident', '--mesh']),
    ])
    writeTargets(daemonTargets, [{ targets: [monitorUrl, incidentUrl].map((url) => new URL(url).host) }])
    return { monitorUrl, incidentUrl, breakDown: sidecars.breakDown, stop }
  } catch (error) {
    await stop()
    throw error
  }
}
