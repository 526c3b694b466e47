import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'

import { ConfigMap } from 'kubernetes-models/v1/ConfigMap'
import { parse } from 'yaml'

import { DASHBOARD, renderManifests } from '../scripts/manifests.js'
import {
  INCIDENT_COUNTERS,
  INCIDENT_GAUGES,
  type Metric,
  MONITOR_COUNTERS,
  MONITOR_GAUGES,
  SELF_METRICS,
} from '../src/core/metric-names.js'
import { checkPromql } from '../src/core/promql.js'
import { findKustomize, renderKustomization } from './helpers/kustomize.js'
import { eventually, startLiveMesh } from './helpers/live-mesh.js'
import { packageRoot } from './helpers/package-root.js'
import { selectorsOf } from './helpers/promql-parts.js'
import { recordingOf } from './helpers/recordings.js'

const ROOT = packageRoot()
const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8')

interface Panel {
  readonly id?: number
  readonly type: string
  readonly title: string
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number }
  readonly targets?: readonly { readonly refId: string; readonly expr: string; readonly legendFormat?: string }[]
  readonly fieldConfig?: { readonly overrides: readonly { readonly matcher: { readonly options: string } }[] }
}
interface Model {
  readonly uid: string
  readonly panels: readonly Panel[]
  readonly annotations: { readonly list: readonly { readonly name: string; readonly expr?: string }[] }
  readonly templating: {
    readonly list: readonly {
      readonly name: string
      readonly type: string
      readonly query?: string | { readonly query: string }
    }[]
  }
}
const MODEL = JSON.parse(read(DASHBOARD)) as Model

/** What Grafana puts in place of variables. */
const VALUES: Readonly<Record<string, string>> = {
  source: 'frontend',
  destination: 'cartservice',
  quantile: '0.5',
  incident_threshold: '10',
  clear_threshold: '5',
  __rate_interval: '15s',
  __range: '5m',
}
const filled = (text: string): string => text.replace(/\$(\w+)/g, (_, name: string) => VALUES[name] ?? `$${name}`)

interface Query {
  readonly name: string
  readonly expr: string
}
const PANEL_QUERIES: readonly Query[] = MODEL.panels.flatMap(({ title, targets = [] }) =>
  targets.map(({ refId, expr }) => ({ name: `${title} ${refId}`, expr: filled(expr) })),
)
const ANNOTATIONS: readonly Query[] = MODEL.annotations.list.flatMap(({ name, expr }) =>
  expr === undefined ? [] : [{ name, expr: filled(expr) }],
)
/** label_values(SELECTOR, LABEL) asks for the label's values on the selector's series. */
const VARIABLES: readonly Query[] = MODEL.templating.list.flatMap(({ name, type, query }) => {
  if (type !== 'query') return []
  const text = typeof query === 'string' ? query : (query?.query ?? '')
  const [, selector = '', label = ''] = /^label_values\((.*), (\w+)\)$/.exec(text) ?? []
  assert.equal(label, name)
  return [{ name, expr: `count by (${label}) (${filled(selector)})` }]
})
const QUERIES = [...PANEL_QUERIES, ...ANNOTATIONS, ...VARIABLES]

test('grafana: the dashboard is what `npm run render` makes', async () => {
  assert.equal(read(DASHBOARD), (await renderManifests(read)).get(DASHBOARD), 'out of date: npm run render')
})

test('grafana: the dashboard shows what it should', () => {
  assert.deepEqual(
    MODEL.panels.map(({ type, title }) => `${type}: ${title}`),
    [
      'row: Incidents',
      'stat: Severity',
      'timeseries: Temperature',
      'timeseries: Accumulators',
      'state-timeline: Verdicts',
      'table: Incidents',
      'row: $source -> $destination',
      'timeseries: Latency',
      'timeseries: Request rate',
      "heatmap: Istio's duration histogram",
      'timeseries: MAE',
      'timeseries: MAPE',
    ],
  )
  assert.deepEqual(
    MODEL.templating.list.map(({ name }) => name),
    ['datasource', 'source', 'destination', 'quantile', 'incident_threshold', 'clear_threshold'],
  )
  assert.deepEqual(
    ANNOTATIONS.map(({ name }) => name),
    ['Sev 1', 'Sev 2'],
  )
})

test('grafana: panels lie on the grid beside each other, and an override names a series that is there', () => {
  const cells = new Set<string>()
  for (const { title, gridPos, targets = [], fieldConfig, type } of MODEL.panels) {
    assert.ok(gridPos.x + gridPos.w <= 24, title)
    for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
      for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
        assert.ok(!cells.has(`${x} ${y}`), `${title} lies on another panel`)
        cells.add(`${x} ${y}`)
      }
    }
    if (type !== 'timeseries') continue
    const legends = targets.map(({ legendFormat }) => legendFormat ?? '')
    for (const { matcher } of fieldConfig?.overrides ?? [])
      assert.ok(legends.includes(matcher.options), matcher.options)
  }
})

const METRICS = new Set(
  [MONITOR_GAUGES, MONITOR_COUNTERS, INCIDENT_GAUGES, INCIDENT_COUNTERS, SELF_METRICS].flatMap((group) =>
    Object.values<Metric>(group).map(({ name }) => name),
  ),
)

test('grafana: every query parses, knows its variables, and names metrics that the code or Istio exports', () => {
  for (const { name, expr } of QUERIES) {
    assert.doesNotMatch(expr, /\$/, name)
    checkPromql(expr, name)
    const unknown = selectorsOf(expr)
      .map(({ metric }) => metric)
      .filter((metric) => !METRICS.has(metric) && metric !== 'istio_request_duration_milliseconds_bucket')
    assert.deepEqual(unknown, [], name)
  }
})

const kustomize = findKustomize()
test(
  'grafana: `kubectl apply -k k8s/grafana` applies one ConfigMap that the sidecar finds',
  {
    skip: kustomize.kind === 'missing' && kustomize.reason,
  },
  () => {
    assert(kustomize.kind === 'found')
    const objects = renderKustomization(kustomize, join(ROOT, 'k8s/grafana'))
    assert.deepEqual(
      objects.map(({ kind, metadata }) => [
        kind,
        metadata.namespace,
        metadata.name,
        metadata.labels?.['grafana_dashboard'],
      ]),
      [['ConfigMap', 'meshfever', 'meshfever-dashboard', '1']],
    )
    new ConfigMap(objects[0]).validate()
    assert.deepEqual(objects[0]?.['data'], { 'meshfever-dashboard.json': read(DASHBOARD) })
  },
)

test('grafana: the provider file is one of version 1 that reads files', () => {
  const { apiVersion, providers } = parse(read('k8s/grafana/dashboard-provider.yaml')) as {
    readonly apiVersion: number
    readonly providers: readonly { readonly type: string; readonly options: { readonly path: string } }[]
  }
  assert.equal(apiVersion, 1)
  assert.deepEqual(
    providers.map(({ type, options }) => [type, options.path]),
    [['file', '/var/lib/grafana/dashboards/meshfever']],
  )
})

test('grafana: every query returns data from a mesh with an incident', { timeout: 240_000 }, async (t) => {
  const pairs = [
    { source: 'frontend', destination: 'cartservice' },
    { source: 'checkoutservice', destination: 'paymentservice' },
  ]
  const mesh = await startLiveMesh(t, { fault: 'frontend-cartservice-delay.yaml' })
  const file = join(mesh.folder, 'training.json')
  // Wide, so that a busy machine is no anomaly; the delay is 200 ms.
  writeFileSync(file, recordingOf(Array.from({ length: 60 }, (_, i) => 6 + 2 * (i % 5))))
  for (const { source, destination } of pairs) {
    const services = ['--service1', source, '--service2', destination]
    await mesh.daemon(['monitor', ...services, '--training-data-file', file, '--query-window', '15s'])
  }
  await mesh.daemon(['incident', ...pairs.flatMap(({ source, destination }) => ['--pair', `${source}:${destination}`])])

  const unanswered = new Set(QUERIES.map(({ name }) => name))
  const look = async (): Promise<boolean> => {
    for (const { name, expr } of QUERIES.filter((each) => unanswered.has(each.name))) {
      const series = await mesh.ask(expr)
      const finite = series.some(({ values }) => values.some(([, value]) => Number.isFinite(Number(value))))
      if (finite) unanswered.delete(name)
    }
    return unanswered.size === 0
  }
  // One pair is slow: a Sev 2, and so no Sev 1.
  const expected = ['Sev 1']
  await eventually('data for every query', async () =>
    (await look()) || [...unanswered].every((name) => expected.includes(name)) ? true : undefined,
  ).catch((error: unknown) => {
    throw new Error(`no data for ${[...unanswered].join(', ')}`, { cause: error })
  })

  const incidents = PANEL_QUERIES.filter(({ name }) => name.startsWith('Incidents '))
  const [began, worst, open] = await Promise.all(incidents.map(({ expr }) => mesh.ask(expr)))
  const startedSeconds = Number((await mesh.ask('lab7_incident_started_timestamp_seconds'))[0]?.values[0]?.[1])
  for (const column of [began, worst, open]) {
    assert.equal(column?.length, 1, 'a line for each incident')
    assert.equal(Number(column[0]?.metric['started']), startedSeconds)
  }
  assert.equal(Number(began?.[0]?.values[0]?.[1]), startedSeconds * 1000)
  assert.equal(worst?.[0]?.values[0]?.[1], '2')
  const buckets = await mesh.ask(PANEL_QUERIES.find(({ name }) => name.includes('histogram'))?.expr ?? '')
  assert.ok(buckets.length > 10 && buckets.every(({ metric }) => metric['le'] !== undefined))
})
