import type { TestContext } from 'node:test'

import type { Registry } from 'prom-client'

import type { PairVerdict } from '../../src/core/incident.js'
import { COLD_MESH, meshNext, type MeshRules } from '../../src/core/mesh-incident.js'
import { type Pair, pairKey } from '../../src/core/pair.js'
import type { Suspect } from '../../src/core/suspect.js'
import { systemClock } from '../../src/io/clock.js'
import { createMeshMonitor, type MeshMonitorConfig } from '../../src/io/mesh-monitor.js'
import type { Runtime } from '../../src/io/runtime.js'
import { type Poller, serveDaemon } from '../../src/io/serve-daemon.js'
import { createMeshIncidentPage, type MeshMoment } from '../../src/page/mesh-incident-page.js'
import { type FakeAnswer, fakeRuntime, matrixAnswer } from './fake-runtime.js'
import { meshAnswer, meshElements } from './mesh-answers.js'

const POLL_INTERVAL_MS = 1_000

export interface ServedPage {
  readonly url: string
  /** Every query asked so far. */
  readonly queries: readonly string[]
  /** Ends the daemon. */
  readonly stop: () => Promise<void>
}

/** A daemon on the time of day: a browser knows no other. */
async function served(
  t: TestContext,
  answers: (query: string) => FakeAnswer,
  createPoller: (runtime: Runtime, registry: Registry) => Poller,
): Promise<ServedPage> {
  const fake = fakeRuntime(answers)
  let polled = (): void => undefined
  const firstPoll = new Promise<void>((resolve) => (polled = resolve))
  const runtime = { ...fake, clock: systemClock }
  const exit = serveDaemon(
    runtime,
    { command: 'monitor', listenAddress: '127.0.0.1', port: 0, pollIntervalMs: POLL_INTERVAL_MS },
    (registry) => {
      const poller = createPoller(runtime, registry)
      return {
        ...poller,
        poll: async () => {
          const result = await poller.poll()
          setImmediate(polled)
          return result
        },
      }
    },
  )
  const stop = async (): Promise<void> => {
    fake.stop()
    await exit
  }
  t.after(stop)
  await firstPoll
  return { url: String(fake.logged.find(({ msg }) => msg === 'listening')?.['url']), queries: fake.queries, stop }
}

/** What Prometheus holds of an edge's last half hour: calm, then slow for the last third. */
export function courseAnswer(): string {
  const now = Math.floor(Date.now() / 5_000) * 5
  const at = Array.from({ length: 120 }, (_, i) => now - 1_800 + 15 * (i + 1))
  const isSlow = (i: number): boolean => i >= 80
  const series = (name: string, value: (i: number) => number) => ({
    metric: { series: name, quantile: '0.5' },
    values: at.map((time, i) => [time, String(value(i))] as const),
  })
  const verdict = (word: string, holds: (i: number) => boolean) => ({
    metric: { series: 'verdict', verdict: word },
    values: at.flatMap((time, i) => (holds(i) ? [[time, '1'] as const] : [])),
  })
  return matrixAnswer([
    series('y', (i) => (isSlow(i) ? 150 : 8) + ((i * 7) % 5)),
    series('yhat', () => 10),
    series('yMin', () => 5),
    series('yMax', () => 20),
    series('score', (i) => (isSlow(i) ? 14 : 0.2)),
    verdict('ok', (i) => !isSlow(i)),
    verdict('anomalous', isSlow),
  ])
}

/** A monitor of a mesh whose every edge is expected to take 10 ms, and 20 at most. */
export function serveMeshMonitor(
  t: TestContext,
  edges: readonly (readonly [Pair, latencyMs: number])[],
  {
    course = courseAnswer,
    config = {},
  }: { readonly course?: () => FakeAnswer; readonly config?: Partial<MeshMonitorConfig> } = {},
): Promise<ServedPage> {
  const expected = { yhatMs: 10, yMinMs: 5, yMaxMs: 20, driftRatio: null, beyondTraining: false }
  const watch = {
    judge: ({ latencyMs }: { readonly latencyMs: number | null }) => ({
      ...expected,
      deviation: ((latencyMs ?? 10) - 10) / 10,
    }),
  }
  const answer = (): string =>
    meshAnswer(edges.flatMap(([pair, latencyMs]) => meshElements(pair, Date.now() / 1000, { 0.5: String(latencyMs) })))
  return served(
    t,
    (query) => (query === 'the query' ? answer() : course()),
    (runtime, registry) =>
      createMeshMonitor(
        {
          prometheusUrl: 'http://prometheus:9090',
          query: 'the query',
          sourceLabel: 'source_app',
          destinationLabel: 'destination_app',
          quantiles: [0.5],
          baselines: { watchesOf: () => [{ quantile: 0.5, watch: watch }], version: () => 1, ready: () => true },
          rules: {
            direction: 'above',
            minRequestsPerSecond: 0.1,
            minDeviationMs: 0,
            minDeviationRatio: 0,
            sloMs: null,
          },
          pollIntervalMs: POLL_INTERVAL_MS,
          maxAgeSeconds: 45,
          maxEdges: 100_000,
          edgeGraceSeconds: 900,
          shard: { ordinal: 1, count: 1 },
          ...config,
        },
        runtime,
        registry,
      ),
  )
}

export const MESH_RULES: MeshRules = {
  accumulatorThreshold: 5,
  incidentThreshold: 10,
  clearThreshold: 5,
  coolBy: 2,
  accumulatorMax: 20,
  noDataTimeoutSeconds: 600,
}

/** The incident daemon's page, fed by hand: each edge was anomalous in the last so many of forty polls. */
export function serveMeshIncidents(
  t: TestContext,
  edges: readonly (readonly [Pair, polls: number])[],
  { suspect }: { readonly suspect: Suspect | null },
): Promise<ServedPage> {
  const page = createMeshIncidentPage(MESH_RULES)
  const polls = 40
  const startSeconds = Math.floor(Date.now() / 1000) - 5 * (polls - 1)
  const moments: MeshMoment[] = []
  for (let i = 0; i < polls; i++) {
    const verdictOf = (anomalous: number): PairVerdict =>
      i < polls - anomalous ? { kind: 'ok' } : { kind: 'anomalous', anomalyCount: 1 }
    const verdicts = new Map(
      edges.map(([pair, anomalous]) => [pairKey(pair), { ...pair, verdict: verdictOf(anomalous) }]),
    )
    const poll = { timestampSeconds: startSeconds + 5 * i, verdicts }
    const { state } = meshNext(moments.at(-1)?.state ?? COLD_MESH, poll, MESH_RULES)
    moments.push({ state, poll, monitors: 1 })
  }
  return served(
    t,
    () => ({ never: true }),
    () => ({
      poll: () => {
        for (const moment of moments) page.note(moment, { nowSeconds: Date.now() / 1000, expected: null })
        moments.splice(0, moments.length - 1)
        return Promise.resolve({ outcome: 'ok', detail: '' })
      },
      view: () => page.view(() => suspect),
      history: () => ({ incidents: [] }),
      edges: {
        find: page.find,
        look: (pair) => {
          const edge = page.look(pair)
          return Promise.resolve(edge === undefined ? { kind: 'unknown' } : { kind: 'found', edge })
        },
      },
    }),
  )
}
