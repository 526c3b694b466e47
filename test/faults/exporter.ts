import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

import type { Pair } from '../../src/core/pair.js'

export const CALM_EDGE: Pair = { source: 'frontend', destination: 'cart' }

/** What the monitors of these said: a few anomalies and then too little traffic, nothing ever, anomalies without end. */
export const HELD: Pair = { source: 'frontend', destination: 'held' }
export const CALM: Pair = { source: 'frontend', destination: 'calm' }
export const BURNING: Pair = { source: 'checkout', destination: 'burning' }

/** Requests a second of an edge with traffic. */
export const RATE = 20

/** How the latency of an edge is spread: share of the requests at or below each bound. */
const BOUNDS = ['1', '5', '10', '25', '50', '100', '+Inf'] as const
const SPREAD = {
  /** Median 9 ms. */
  calm: [0, 0.1, 0.6, 0.9, 0.99, 1, 1],
  /** Median 75 ms. */
  slow: [0, 0, 0, 0.05, 0.1, 0.9, 1],
  saturated: [0, 0, 0, 0, 0, 0, 1],
} as const
export type Temper = keyof typeof SPREAD

export interface Exporter {
  readonly url: string
  readonly host: string
  /** Changes what an edge's latency is from now on. */
  readonly setTemper: (destination: string, temper: Temper) => void
  /** Counters of an edge begin at 0 again, as when its sidecar is restarted. */
  readonly restart: (destination: string) => void
  /** While true, a scrape is not answered. */
  hanging: boolean
  /** Resolves when what the stand-in monitors say does not change any more, and was scraped. */
  readonly storyTold: Promise<void>
  readonly close: () => void
}

/** How long the stand-in monitors are calm, and how long the one that is held is anomalous. */
const CALM_MS = 12_000
const HELD_MS = 4_000
/** Until the hottest accumulator is at its limit, and seen there. */
const STORY_MS = CALM_MS + 13_000

/**
 * What Prometheus scrapes: /istio as sidecars count, and /monitors what monitors of three pairs export. These tell a story at
 * whose end every accumulator stays where it is for good: whatever changes one was no fact.
 *
 * @param destinations - of frontend's edges under /istio, with what they are like at first
 */
export async function startExporter(destinations: Readonly<Record<string, Temper | 'idle'>>): Promise<Exporter> {
  let storyMs: number | null = null
  let told: () => void
  const storyTold = new Promise<void>((resolve) => {
    told = resolve
  })
  const edges = new Map(
    Object.entries(destinations).map(([destination, temper]) => [
      destination,
      { temper, counts: BOUNDS.map(() => 0), countedMs: performance.now() },
    ]),
  )
  const count = (): void => {
    const nowMs = performance.now()
    for (const edge of edges.values()) {
      const requests = ((nowMs - edge.countedMs) / 1000) * RATE
      const { temper } = edge
      if (temper !== 'idle') edge.counts = edge.counts.map((value, i) => value + requests * SPREAD[temper][i]!)
      edge.countedMs = nowMs
    }
  }
  const server = createServer((request, response) => {
    if (exporter.hanging) return
    if (request.url === '/monitors') {
      storyMs ??= performance.now()
      if (performance.now() - storyMs > STORY_MS) told()
      response.end(monitors(performance.now() - storyMs))
      return
    }
    count()
    const name = 'istio_request_duration_milliseconds'
    const lines = [...edges].flatMap(([destination, { counts }]) => {
      const labels = `reporter="source",source_app="frontend",destination_app="${destination}"`
      return [
        ...BOUNDS.map((bound, i) => `${name}_bucket{${labels},le="${bound}"} ${counts[i]!}`),
        `${name}_count{${labels}} ${counts.at(-1)!}`,
      ]
    })
    response.end(`# TYPE ${name} untyped\n${lines.join('\n')}\n`)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`
  const exporter: Exporter = {
    url: `http://${host}`,
    host,
    setTemper: (destination, temper) => {
      count()
      edges.get(destination)!.temper = temper
    },
    restart: (destination) => {
      count()
      edges.get(destination)!.counts = BOUNDS.map(() => 0)
    },
    hanging: false,
    storyTold,
    close: () => {
      server.closeAllConnections()
      server.close()
    },
  }
  return exporter
}

function monitors(sinceMs: number): string {
  const calm = sinceMs < CALM_MS
  const heldIs = calm ? 'ok' : sinceMs < CALM_MS + HELD_MS ? 'anomalous' : 'low_traffic'
  return (
    [...exported(HELD, heldIs), ...exported(CALM, 'ok'), ...exported(BURNING, calm ? 'ok' : 'anomalous', 4)].join(
      '\n',
    ) + '\n'
  )
}

function exported(
  { source, destination }: Pair,
  verdict: 'ok' | 'anomalous' | 'low_traffic',
  count = 1,
): readonly string[] {
  const labels = `source="${source}",destination="${destination}"`
  return [
    ...['ok', 'anomalous', 'low_traffic', 'no_data', 'warming'].map(
      (one) => `lab7_verdict{${labels},verdict="${one}"} ${one === verdict ? 1 : 0}`,
    ),
    ...(verdict === 'low_traffic'
      ? []
      : [
          `lab7_anomaly_count{${labels}} ${verdict === 'anomalous' ? count : 0}`,
          `lab7_sample_timestamp_seconds{${labels}} ${Date.now() / 1000}`,
        ]),
  ]
}
