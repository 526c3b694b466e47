import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import test from 'node:test'

import { Registry } from 'prom-client'

import {
  BASELINE_METRICS,
  INCIDENT_COUNTERS,
  INCIDENT_GAUGES,
  MESH_INCIDENT_GAUGES,
  MESH_METRICS,
  type Metric,
  MONITOR_COUNTERS,
  MONITOR_GAUGES,
  NOTIFIER_METRICS,
  PAIR_METRICS,
  pairMetricName,
  SELF_METRICS,
  TRAINING_METRICS,
} from '../src/core/metric-names.js'
import { POLL_OUTCOMES } from '../src/core/reading.js'
import { createNotifierMetrics } from '../src/io/alertmanager.js'
import {
  createBaselineGauges,
  createIncidentGauges,
  createMeshGauges,
  createMeshIncidentGauges,
  createMonitorGauges,
  createSelfGauges,
  createTrainingGauges,
} from '../src/io/gauges.js'
import { packageRoot } from './helpers/package-root.js'

const GROUPS: readonly Readonly<Record<string, Metric>>[] = [
  MONITOR_GAUGES,
  MONITOR_COUNTERS,
  MESH_METRICS,
  BASELINE_METRICS,
  TRAINING_METRICS,
  INCIDENT_GAUGES,
  MESH_INCIDENT_GAUGES,
  INCIDENT_COUNTERS,
  NOTIFIER_METRICS,
  SELF_METRICS,
]
const METRICS = GROUPS.flatMap((group) => Object.values(group))

const PAIR = { source: 'frontend', destination: 'cart' }

/** Every name that our /metrics can show, the parts of histograms included. */
function isOurs(name: string): boolean {
  const suffixes = Object.values(PAIR_METRICS).map(({ suffix }) => suffix)
  if (new RegExp(`^lab7_[a-zA-Z0-9_]+_to_[a-zA-Z0-9_]+_(${suffixes.join('|')})$`).test(name)) return true
  return METRICS.some(
    (metric) =>
      metric.name === name ||
      (metric.type === 'histogram' && ['bucket', 'sum', 'count'].some((part) => `${metric.name}_${part}` === name)),
  )
}

/** What looks like one of our metrics and is not at the same time part of a longer word, such as a recorded series. */
function namesIn(text: string): readonly string[] {
  return [
    ...new Set([...text.matchAll(/(?<![\w:./-])(?:lab7|meshfever)_[a-z0-9_]+(?![\w:*])/gi)].map(([name]) => name)),
  ].filter(
    // MESHFEVER_PROMETHEUS_URL is a variable.
    (name) => name !== name.toUpperCase(),
  )
}

function filesUnder(folder: string): readonly string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
}

test('metric names: every name in k8s/ and the README is one that the code exports', () => {
  const root = packageRoot()
  const readme = join(root, 'README.md')
  const files = [...filesUnder(join(root, 'k8s')), ...(existsSync(readme) ? [readme] : [])]
  const unknown = files.flatMap((file) =>
    namesIn(readFileSync(file, 'utf8'))
      .filter((name) => !isOurs(name))
      .map((name) => `${relative(root, file)}: ${name}`),
  )
  assert.deepEqual(unknown, [])
})

test('metric names: names in a text are found, and what is no metric is not', () => {
  const text =
    'lab7_y{source="a"} + sum(lab7_incidents_total) meshfever_polls_total[5m] MESHFEVER_PROMETHEUS_URL x_lab7_y lab7_a_to_b_y'
  assert.deepEqual(namesIn(text), ['lab7_y', 'lab7_incidents_total', 'meshfever_polls_total', 'lab7_a_to_b_y'])
  assert.deepEqual(
    ['lab7_y', 'lab7_a_to_b_yhat', 'meshfever_poll_duration_seconds_bucket', 'lab7_z', 'lab7_y_bucket'].map(isOurs),
    [true, true, true, false, false],
  )
})

for (const { name, type, help, labels } of METRICS) {
  test(`metric names: ${name} is a valid name with a help text, and counters end in _total`, () => {
    assert.match(name, /^(lab7|meshfever)_[a-z][a-z0-9_]*$/)
    assert.equal(name.endsWith('_total'), type === 'counter')
    assert.ok(help.length > 10 && !help.endsWith('.'), help)
    for (const label of labels) assert.match(label, /^[a-z_]+$/)
  })
}

test('metric names: no name is there twice', () => {
  const names = METRICS.map(({ name }) => name)
  assert.deepEqual([...new Set(names)], names)
})

for (const { source, destination, suffix, name } of [
  {
    source: 'frontend',
    destination: 'shippingservice',
    suffix: 'anomaly_count',
    name: 'lab7_frontend_to_shippingservice_anomaly_count',
  },
  { source: 'a-b', destination: 'c.d/e:f@g', suffix: 'y', name: 'lab7_a_b_to_c_d_e_f_g_y' },
  { source: '1', destination: '購物車', suffix: 'yhat', name: 'lab7_1_to_____yhat' },
]) {
  test(`metric names: ${source} to ${destination} is ${name}`, () => {
    assert.equal(pairMetricName({ source, destination }, suffix), name)
    assert.match(name, /^[a-zA-Z_:][a-zA-Z0-9_:]*$/)
  })
}

test('metric names: prom-client has each as it is declared: name, type, help', async () => {
  const registry = new Registry()
  createSelfGauges(registry, { version: '1', nodeVersion: 'v20', command: 'monitor' })
  createMonitorGauges(registry, PAIR, [0.5])
  createMeshGauges(registry, { ordinal: 2, count: 5 })
  createBaselineGauges(registry)
  createTrainingGauges(registry)
  createIncidentGauges(registry, {
    pairs: [{ ...PAIR, accumulatorThreshold: 5 }],
    incidentThreshold: 10,
    clearThreshold: 5,
    coolBy: 2,
    accumulatorMax: 20,
    noDataTimeoutSeconds: 600,
  })
  createNotifierMetrics(registry, () => 0)
  // It has some names in common with that of pairs.
  const mesh = new Registry()
  createMeshIncidentGauges(mesh)
  const text = `${await registry.metrics()}\n${await mesh.metrics()}`
  const lines = new Set(text.split('\n'))
  for (const { name, type, help } of METRICS) {
    assert.ok(lines.has(`# TYPE ${name} ${type}`), `${name} is no ${type}`)
    assert.ok(lines.has(`# HELP ${name} ${help}`), `${name} has another help text`)
  }
  const exported = [...text.matchAll(/^# TYPE ((?:lab7|meshfever)_\S+) /gm)].map(([, name]) => name ?? '')
  const declared = new Set([
    ...METRICS.map(({ name }) => name),
    ...Object.values(PAIR_METRICS).map(({ suffix }) => pairMetricName(PAIR, suffix)),
  ])
  assert.deepEqual(new Set(exported), declared)
  const polls = [...text.matchAll(/^meshfever_polls_total\{outcome="(\w+)"\} 0$/gm)].map(([, outcome]) => outcome)
  assert.deepEqual(polls, [...POLL_OUTCOMES], 'every outcome is at 0 from the start')
})
