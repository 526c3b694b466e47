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
  MESH_INCIDENT_GAUGES,
  MESH_METRICS,
  type Metric,
  MONITOR_COUNTERS,
  MONITOR_GAUGES,
  SELF_METRICS,
} from '../src/core/metric-names.js'
import { checkPromql } from '../src/core/promql.js'
import { VERDICTS } from '../src/core/score.js'
import { createHttp } from '../src/io/http-client.js'
import { queryInstant } from '../src/io/prometheus.js'
import { fakeRuntime } from './helpers/fake-runtime.js'
import { type FilledSeries, startFilledPrometheus } from './helpers/filled-prometheus.js'
import { findKustomize, renderKustomization } from './helpers/kustomize.js'
import { eventually, startLiveMesh } from './helpers/live-mesh.js'
import { packageRoot } from './helpers/package-root.js'
import { selectorsOf } from './helpers/promql-parts.js'
import { noPromtool } from './helpers/promtool.js'
import { recordingOf } from './helpers/recordings.js'

const ROOT = packageRoot()
const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8')

interface Panel {
  readonly id?: number
  readonly type: string
  readonly title: string
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number }
  readonly targets?: readonly { readonly refId: string; readonly expr: string; readonly legendFormat?: string }[]
  readonly fieldConfig?: {
    readonly overrides: readonly {
      readonly matcher: { readonly options: string }
      readonly properties: readonly { readonly id: string; readonly value?: unknown }[]
    }[]
  }
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

/** Panels that show only what the daemons of a whole mesh export. */
const MESH_ONLY = ['Edges by verdict', 'Components', 'Shards and edges not watched']
const isMeshOnly = ({ name }: Query): boolean => MESH_ONLY.some((title) => name.startsWith(title))

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
      'row: Mesh',
      'table: Hottest edges',
      'timeseries: Highest scores',
      'timeseries: Edges by verdict',
      'timeseries: Components',
      'timeseries: Shards and edges not watched',
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
    // A series may be named after a label, as each verdict is.
    const legends = targets.flatMap(({ legendFormat = '' }) =>
      legendFormat === '{{state}}' ? VERDICTS : [legendFormat],
    )
    for (const { matcher } of fieldConfig?.overrides ?? [])
      assert.ok(legends.includes(matcher.options), matcher.options)
  }
})

test('grafana: the names of the hottest edges lead to the chart of their edge, and nothing else is set anew', () => {
  const panel = MODEL.panels.find(({ title }) => title === 'Hottest edges')
  const links = panel?.fieldConfig?.overrides.flatMap(({ matcher, properties }) =>
    properties.filter(({ id }) => id === 'links').map(({ value }) => [matcher.options, value] as const),
  )
  assert.deepEqual(
    links?.map(([name]) => name),
    ['source', 'destination'],
  )
  for (const [, value] of links) {
    const [{ url }] = value as readonly [{ readonly url: string }]
    const set = url.split(/[?&]/).slice(1)
    assert.equal(url.split('?')[0], `/d/${MODEL.uid}`)
    assert.deepEqual(set, [
      '${datasource:queryparam}',
      'var-source=${__data.fields.source:percentencode}',
      'var-destination=${__data.fields.destination:percentencode}',
      '${incident_threshold:queryparam}',
      '${clear_threshold:queryparam}',
      '${__url_time_range}',
    ])
  }
})

const METRICS = new Set(
  [
    ...[MONITOR_GAUGES, MONITOR_COUNTERS, INCIDENT_GAUGES, INCIDENT_COUNTERS, SELF_METRICS],
    ...[MESH_METRICS, MESH_INCIDENT_GAUGES],
  ].flatMap((group) => Object.values<Metric>(group).map(({ name }) => name)),
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

  const unanswered = new Set(QUERIES.filter((query) => !isMeshOnly(query)).map(({ name }) => name))
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

/** What two shards, one of them with two replicas, and an incident daemon export of 60 edges. */
function meshSeries(nowSeconds: number): readonly FilledSeries[] {
  const samples = (value: number): FilledSeries['samples'] => [-30, -15, 0].map((at) => [nowSeconds + at, value])
  const series = (name: string, labels: Readonly<Record<string, string>>, value: number): FilledSeries => ({
    name,
    labels,
    samples: samples(value),
  })
  const monitors = [
    { shard: 1, instance: 'one-a' },
    { shard: 1, instance: 'one-b' },
    { shard: 2, instance: 'two' },
  ].flatMap(({ shard, instance }) => {
    const where = { job: 'meshfever', instance }
    const pairs = Array.from({ length: 30 }, (_, i) => ({
      source: `caller-${shard}-${i}`,
      destination: i === 0 && shard === 1 ? 'cart "a"' : `callee-${i}`,
      heat: 2 * i + shard,
    }))
    return [
      series('meshfever_shard_ordinal', where, shard),
      series('meshfever_shards', where, 2),
      ...VERDICTS.map((state, i) => series('meshfever_edges', { ...where, state }, [25, 3, 1, 1, 0][i] ?? 0)),
      ...['max_edges', 'unknown', 'bad_name'].map((reason, i) =>
        series('meshfever_edges_refused', { ...where, reason }, [7, 2, 0][i] ?? 0),
      ),
      ...pairs.flatMap(({ source, destination, heat }) => {
        const labels = { ...where, source, destination }
        const scored = { ...labels, quantile: '0.5' }
        return [
          ...['y', 'yhat', 'y_min', 'y_max', 'mae', 'mape'].map((name) => series(`lab7_${name}`, scored, 10 + heat)),
          series('lab7_anomaly_score', scored, heat / 10),
          series('lab7_requests_per_second', labels, 5),
          ...VERDICTS.map((verdict) => series('lab7_verdict', { ...labels, verdict }, Number(verdict === 'ok'))),
        ]
      }),
    ]
  })
  const incident = { job: 'meshfever', instance: 'incident' }
  return [
    ...monitors,
    ...Array.from({ length: 40 }, (_, i) =>
      series('lab7_incident_accumulator', { ...incident, source: `caller-1-${i}`, destination: `callee-${i}` }, i),
    ),
    series('lab7_incident_open', incident, 2),
    series('lab7_incident_warm_edges', incident, 40),
    series('lab7_incident_component_temperature', { ...incident, incident: 'A' }, 31),
    series('lab7_incident_component_temperature', { ...incident, incident: 'B' }, 12),
  ]
}

test(
  'grafana: of a mesh it shows the hottest edges, the shards and the components',
  { skip: noPromtool(), timeout: 60_000 },
  async (t) => {
    const prometheus = await startFilledPrometheus(meshSeries(Math.floor(Date.now() / 1000) - 5))
    t.after(prometheus.stop)
    const runtime = { ...fakeRuntime([]), http: createHttp() }
    const ask = async (name: string, legend: (labels: ReadonlyMap<string, string>) => string) => {
      const asked = QUERIES.find((each) => each.name === name)
      assert.ok(asked, name)
      const answer = await queryInstant(runtime, {
        prometheusUrl: prometheus.url,
        query: asked.expr,
        deadlineMs: 10_000,
      })
      assert.equal(answer.kind, 'answer', name)
      return answer.data.result.map(({ labels, value }) => [legend(labels), value] as const)
    }
    const byEdge = (labels: ReadonlyMap<string, string>): string =>
      `${labels.get('source') ?? ''} ${labels.get('destination') ?? ''}`
    const by = (label: string) => (labels: ReadonlyMap<string, string>) => labels.get(label) ?? ''

    const scores = await ask('Hottest edges A', byEdge)
    assert.equal(scores.length, 20, 'one for each edge, though there are two replicas')
    assert.deepEqual(scores.slice(0, 2), [
      ['caller-2-29 callee-29', 6],
      ['caller-1-29 callee-29', 5.9],
    ])
    for (const column of ['B', 'C']) {
      const names = (await ask(`Hottest edges ${column}`, byEdge)).map(([name]) => name)
      assert.deepEqual(names.sort(), scores.map(([name]) => name).sort(), column)
    }
    const accumulators = await ask('Hottest edges D', byEdge)
    assert.deepEqual(accumulators.find(([name]) => name === 'caller-1-29 callee-29')?.[1], 29)
    assert.equal((await ask('Highest scores A', byEdge)).length, 20)
    assert.equal((await ask('Accumulators A', byEdge)).length, 20)
    assert.equal((await ask('Verdicts A', byEdge)).length, 20)

    const counts = Object.fromEntries(await ask('Edges by verdict A', by('state')))
    assert.deepEqual(counts, { ok: 50, anomalous: 6, low_traffic: 2, no_data: 2, warming: 0 }, 'each shard once')
    assert.deepEqual(await ask('Components A', by('incident')), [
      ['A', 31],
      ['B', 12],
    ])
    const whole = async (name: string): Promise<number | undefined> => (await ask(name, () => ''))[0]?.[1]
    assert.deepEqual([await whole('Components B'), await whole('Components C')], [2, 40])
    const shards = ['A', 'B'].map((column) => whole(`Shards and edges not watched ${column}`))
    assert.deepEqual(await Promise.all(shards), [2, 2])
    assert.deepEqual(Object.fromEntries(await ask('Shards and edges not watched C', by('reason'))), {
      max_edges: 14,
      unknown: 4,
      bad_name: 0,
    })
    const sources = await ask('source', by('source'))
    assert.equal(sources.length, 60)
  },
)
