import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'

import { Registry } from 'prom-client'

import { deviationIn, type Watch } from '../src/core/baseline/model.js'
import type { Watches } from '../src/core/score.js'
import { edgeLabels } from '../src/core/exposition-text.js'
import { ISTIO_BUCKETS_MS } from '../src/core/istio-buckets.js'
import { meshQuery, parseSelector } from '../src/core/mesh-query.js'
import type { Pair } from '../src/core/pair.js'
import { latencyTrafficAndAge } from '../src/core/promql.js'
import { createHttp } from '../src/io/http-client.js'
import { createMeshMonitor } from '../src/io/mesh-monitor.js'
import { createMonitor } from '../src/io/monitor.js'
import type { Poller } from '../src/io/serve-daemon.js'
import { findPrometheus, startPrometheus, writeTargets } from '../src/testbed/prometheus-server.js'
import { samplesNamed } from './helpers/exposition.js'
import { type FakeRuntime, fakeRuntime } from './helpers/fake-runtime.js'
import { eventually } from './helpers/live-mesh.js'
import { HOSTILE_NAMES } from './helpers/mesh-answers.js'
import { temporaryFolder } from './helpers/temporary-folder.js'

/** Prometheus's own text format of 2.42 takes them all but for a line separator, which the test's reader of lines does not. */
const EDGES: readonly Pair[] = [
  { source: 'frontend', destination: 'cart' },
  { source: 'frontend', destination: 'ads' },
  { source: 'frontend', destination: 'unknown' },
  ...HOSTILE_NAMES.filter((name) => name !== '\u2028').map((name) => ({ source: name, destination: `${name}2` })),
]
const OTHERS: readonly Pair[] = [{ source: 'elsewhere', destination: 'cart' }]

/** A sidecar whose counters rise at each scrape: requests of an edge take `median` ms. Two replicas each. */
function sidecars(scrape: number, gone: ReadonlySet<string>): string {
  const lines = ['# TYPE istio_request_duration_milliseconds histogram']
  for (const [namespace, edges] of [
    ['shop', EDGES],
    ['other', OTHERS],
  ] as const) {
    edges.forEach((pair, i) => {
      if (gone.has(pair.source)) return
      const median = 6 + i
      for (const pod of ['1', '2']) {
        const labels = `reporter="source",pod="${pod}",destination_service_namespace="${namespace}",${edgeLabels(pair)
          .replace('source=', 'source_app=')
          .replace(',destination=', ',destination_app=')}`
        const count = scrape * 10
        const name = 'istio_request_duration_milliseconds'
        for (const bound of ISTIO_BUCKETS_MS) {
          lines.push(`${name}_bucket{${labels},le="${bound}"} ${count / (1 + (median / bound) ** 4)}`)
        }
        lines.push(
          `${name}_bucket{${labels},le="+Inf"} ${count}`,
          `${name}_sum{${labels}} ${count * median}`,
          `${name}_count{${labels}} ${count}`,
        )
      }
    })
  }
  return `${lines.join('\n')}\n`
}

interface Fleet {
  readonly prometheusUrl: string
  readonly gone: Set<string>
  readonly runtime: FakeRuntime
}

async function startFleet(t: TestContext): Promise<Fleet> {
  const gone = new Set<string>()
  let scrapes = 0
  const server = createServer((_request, response) => {
    response.setHeader('content-type', 'text/plain; version=0.0.4')
    response.end(sidecars(++scrapes, gone))
  })
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
  t.after(() => server.close())
  const folder = temporaryFolder(t)
  const targetsFile = join(folder, 'targets.json')
  writeTargets(targetsFile, [{ targets: [`127.0.0.1:${(server.address() as AddressInfo).port}`] }])
  const runtime = fakeRuntime([])
  const program = { ...runtime.program, environment: process.env, isRoot: process.getuid?.() === 0 }
  const { url, child } = await startPrometheus({
    binary: await findPrometheus({ ...runtime, program }),
    folder: join(folder, 'prometheus'),
    scrapeIntervalSeconds: 1,
    jobs: [{ name: 'istio-proxy', metricsPath: '/stats/prometheus', targetsFile }],
  })
  t.after(() => child.stop())
  return { prometheusUrl: url, gone, runtime: { ...runtime, http: createHttp() } }
}

/** Expects 5 to 12 ms of everyone. */
const WATCH: Watch = {
  judge: ({ latencyMs }) => {
    const expectation = { yhatMs: 8, yMinMs: 5, yMaxMs: 12 }
    return { ...expectation, deviation: deviationIn(expectation, latencyMs), driftRatio: null, beyondTraining: false }
  },
}

const LABELS = { sourceLabel: 'source_app', destinationLabel: 'destination_app', window: '4s', quantiles: [0.5, 0.9] }
const COMMON = {
  quantiles: [0.5, 0.9],
  rules: { direction: 'above', minRequestsPerSecond: 0.1, minDeviationMs: 0, minDeviationRatio: 0, sloMs: null },
  pollIntervalMs: 60_000,
  maxAgeSeconds: 3,
} as const
const watches = (): Watches => [0.5, 0.9].map((quantile) => ({ quantile, watch: WATCH }))

function mesh(
  { prometheusUrl, runtime }: Fleet,
  selector: string,
): Poller & { readonly exported: (prefix: string) => Promise<Readonly<Record<string, number>>> } {
  const registry = new Registry()
  const poller = createMeshMonitor(
    {
      ...COMMON,
      ...LABELS,
      prometheusUrl,
      query: meshQuery({ ...LABELS, selector: parseSelector(selector, '--selector') }),
      baselines: { watchesOf: watches, version: () => 1, ready: () => true },
      maxEdges: 1_000,
      edgeGraceSeconds: 0,
      shard: { ordinal: 1, count: 1 },
    },
    runtime,
    registry,
  )
  let rendered = ''
  const exported = async (prefix: string): Promise<Readonly<Record<string, number>>> => {
    const handed = poller.exposition?.() ?? []
    if (handed.length > 0) rendered = Buffer.concat(handed).toString()
    return samplesNamed(`${await registry.metrics()}\n${rendered}`, prefix)
  }
  return { ...poller, exported }
}

test('mesh against Prometheus: one query watches what the selector matches, hostile names and all, as a query for each would', async (t) => {
  const fleet = await startFleet(t)
  const { prometheusUrl, runtime, gone } = fleet
  const watched = EDGES.filter(({ destination }) => destination !== 'unknown')
  const { poll, exported } = mesh(fleet, 'destination_service_namespace="shop"')
  const states = (counts: Readonly<Record<string, number>>): Readonly<Record<string, number>> => ({
    'meshfever_edges{state="ok"}': 0,
    'meshfever_edges{state="anomalous"}': 0,
    'meshfever_edges{state="low_traffic"}': 0,
    'meshfever_edges{state="no_data"}': 0,
    'meshfever_edges{state="warming"}': 0,
    ...counts,
  })
  // Medians rise by 1 ms an edge: the first few are within the band at both quantiles.
  await eventually('every edge has a sample', async () => {
    const { outcome } = await poll()
    const { ['meshfever_edges{state="anomalous"}']: anomalous = 0, ['meshfever_edges{state="ok"}']: ok = 0 } =
      await exported('meshfever_edges{')
    return outcome === 'ok' && anomalous + ok === watched.length ? true : undefined
  })
  assert.equal((await exported('meshfever_edges_refused'))['meshfever_edges_refused{reason="unknown"}'], 1)

  const own = await Promise.all(
    watched.map(async (pair) => {
      const registry = new Registry()
      const query = latencyTrafficAndAge({ ...LABELS, pair, reporter: 'source' })
      const monitor = createMonitor({ ...COMMON, pair, query, prometheusUrl, watches: watches() }, runtime, registry)
      assert.equal((await monitor.poll()).outcome, 'ok', pair.source)
      return samplesNamed(await registry.metrics(), 'lab7_')
    }),
  )
  await poll()
  const all = await exported('lab7_')
  // Counters and traffic stand for how often and when was asked; latency is the same for both within a scrape or two.
  for (const one of own) {
    const values = Object.entries(one).filter(([series]) => /^lab7_(y|anomaly_count|verdict)\{/.test(series))
    assert.equal(values.length, 2 + 1 + 5)
    for (const [series, value] of values) {
      const found = all[series] ?? assert.fail(`${series} is missing`)
      assert.ok(Math.abs(found - value) <= 0.02 * Math.abs(value), `${series} is ${found}, not ${value}`)
    }
  }
  assert.ok((all['lab7_requests_per_second{source="frontend",destination="cart"}'] ?? 0) > 5)
  assert.equal(all['lab7_y{source="elsewhere",destination="cart",quantile="0.5"}'], undefined)

  gone.add('frontend')
  await eventually('the edges that are gone are removed', async () => {
    await poll()
    return Object.keys(await exported('lab7_verdict{source="frontend"')).length === 0 ? true : undefined
  })
  const total = Object.values(await exported('meshfever_edges{')).reduce((sum, count) => sum + count, 0)
  assert.equal(total, watched.length - 2)

  const nobody = mesh(fleet, 'destination_service_namespace="none"')
  const { outcome, detail } = await nobody.poll()
  assert.equal(outcome, 'empty')
  assert.match(detail, /^no edge: does --selector match /)
  assert.deepEqual(await nobody.exported('meshfever_edges{'), states({}))
  const broken = mesh(fleet, 'destination_service_namespace=~"("')
  assert.equal((await broken.poll()).outcome, 'api_error')
})
