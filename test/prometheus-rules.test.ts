import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'

import { PrometheusRule } from '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule'
import { parse } from 'yaml'

import { RULES, renderManifests } from '../scripts/manifests.js'
import {
  INCIDENT_COUNTERS,
  INCIDENT_GAUGES,
  MESH_METRICS,
  type Metric,
  MONITOR_COUNTERS,
  MONITOR_GAUGES,
  SELF_METRICS,
  TRAINING_METRICS,
} from '../src/core/metric-names.js'
import { checkPromql } from '../src/core/promql.js'
import { POLL_OUTCOMES } from '../src/core/reading.js'
import { findKustomize, parseManifest, renderKustomization } from './helpers/kustomize.js'
import { packageRoot } from './helpers/package-root.js'
import { selectorsOf } from './helpers/promql-parts.js'
import { noPromtool } from './helpers/promtool.js'
import { type Expectation, promtoolTestRules, type World } from './helpers/promtool-rules.js'

const ROOT = packageRoot()
const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8')

interface Rule {
  readonly record?: string
  readonly alert?: string
  readonly expr: string
  readonly labels?: Readonly<Record<string, string>>
  readonly annotations?: Readonly<Record<string, string>>
}
const rulesOf = (text: string): readonly Rule[] =>
  (parse(text) as { readonly groups: readonly { readonly rules: readonly Rule[] }[] }).groups.flatMap(
    ({ rules }) => rules,
  )

const ALERTS_TEXT = read('k8s/prometheus/alerts.rules.yaml')
const ALL_RULES = RULES.flatMap(({ source }) => rulesOf(read(source)))
const ALERTS = rulesOf(ALERTS_TEXT).filter(({ alert }) => alert !== undefined)

const skip = noPromtool()

// One source ------------------------------------------------------------------------------------------------------------------

test('rules: the PrometheusRules are what `npm run render` makes of the rule files', async () => {
  const rendered = await renderManifests(read)
  for (const { source, made } of RULES) {
    assert.equal(read(made), rendered.get(made), `${made} is out of date: npm run render`)
    const [object] = parseManifest(read(made))
    assert.deepEqual(object?.['spec'], parse(read(source)), made)
  }
})

test('rules: the PrometheusRules fit their schema, which sees a rule that is a text', () => {
  for (const { made } of RULES) {
    const [object] = parseManifest(read(made))
    new PrometheusRule(object as never).validate()
    const broken = { ...object, spec: { groups: [{ name: 'a', rules: ['up == 0'] }] } }
    assert.throws(() => new PrometheusRule(broken as never).validate(), /rules\/0 must be object/)
  }
})

const kustomize = findKustomize()
test(
  'rules: `kubectl apply -k k8s/prometheus` applies both',
  {
    skip: kustomize.kind === 'missing' && kustomize.reason,
  },
  () => {
    assert(kustomize.kind === 'found')
    const objects = renderKustomization(kustomize, join(ROOT, 'k8s/prometheus'))
    assert.deepEqual(
      objects.map(({ kind, metadata }) => [kind, metadata.namespace, metadata.name]),
      RULES.map(({ name }) => ['PrometheusRule', 'meshfever', name]),
    )
    for (const { metadata } of objects) assert.equal(metadata.labels?.['app.kubernetes.io/part-of'], 'meshfever')
  },
)

test('rules: promtool finds nothing wrong', { skip }, () => {
  for (const { source } of RULES) {
    const { status, stdout, stderr } = spawnSync('promtool', ['check', 'rules', '--lint-fatal', join(ROOT, source)], {
      encoding: 'utf8',
    })
    assert.equal(status, 0, stdout + stderr)
  }
})

// Names -----------------------------------------------------------------------------------------------------------------------

const METRICS: readonly Metric[] = [
  MONITOR_GAUGES,
  MONITOR_COUNTERS,
  MESH_METRICS,
  INCIDENT_GAUGES,
  INCIDENT_COUNTERS,
  SELF_METRICS,
  TRAINING_METRICS,
].flatMap((group) => Object.values<Metric>(group))
const RECORDED = new Set(ALL_RULES.flatMap(({ record = [] }) => record))
const ISTIO = ['istio_request_duration_milliseconds_bucket', 'istio_request_duration_milliseconds_count']
const ISTIO_LABELS = ['reporter', 'source_app', 'destination_app']

/** What is wrong with the names in a query: metrics, labels and label values that nobody exports. */
function unknownNames(query: string): readonly string[] {
  return selectorsOf(query).flatMap(({ metric, matchers }) => {
    const ours = METRICS.find(({ name }) => name === metric)
    if (ours === undefined) {
      if (RECORDED.has(metric)) return []
      if (!ISTIO.includes(metric)) return [metric]
      return matchers.filter(({ label }) => !ISTIO_LABELS.includes(label)).map(({ label }) => `${metric}: ${label}`)
    }
    return matchers.flatMap(({ label, operator, value }) => {
      if (!ours.labels.includes(label)) return [`${metric}: ${label}`]
      const known = ours.values ?? (label === 'command' ? ['monitor', 'incident'] : undefined)
      const values = operator.endsWith('~') ? value.split('|') : [value]
      return known === undefined || label !== (ours.values === undefined ? 'command' : ours.labels.at(-1))
        ? []
        : values.filter((each) => !known.includes(each)).map((each) => `${metric}: ${label} ${each}`)
    })
  })
}

test('rules: every expression parses, and its metrics, labels and values are ones that the code exports', () => {
  for (const { expr, alert, record, annotations } of ALL_RULES) {
    const inner = [...(annotations?.['description'] ?? '').matchAll(/query (["`])(.*?)\1/g)].map(
      ([, , query = '']) => query,
    )
    for (const query of [expr, ...inner]) {
      const what = alert ?? record ?? ''
      checkPromql(query, what)
      assert.deepEqual(unknownNames(query), [], what)
    }
  }
})

test('rules: the check of names sees a metric, a label and a value that nobody exports', () => {
  assert.deepEqual(
    unknownNames(
      'lab7_verdicts + lab7_verdict{verdict="nodata"} + lab7_y{pair="x"} + meshfever_polls_total{outcome=~"ok|fine"}',
    ),
    ['lab7_verdicts', 'lab7_verdict: verdict nodata', 'lab7_y: pair', 'meshfever_polls_total: outcome fine'],
  )
})

test('rules: every alert has a name of ours, a severity, and says what to do', () => {
  for (const { alert = '', labels, annotations } of ALERTS) {
    assert.match(alert, /^Meshfever[A-Z]\w+$/)
    assert.match(labels?.['severity'] ?? '', /^(critical|warning|none)$/, alert)
    assert.deepEqual(Object.keys(annotations ?? {}).sort(), ['description', 'runbook', 'summary'], alert)
  }
})

// Behaviour -------------------------------------------------------------------------------------------------------------------

const CART = 'source="frontend",destination="cartservice"'
const PAY = 'source="checkoutservice",destination="paymentservice"'
const PAIR_OF: Readonly<Record<string, string>> = { cart: CART, pay: PAY }

const target = (instance: string): string => `job="pods",instance="${instance}"`
/** Ever the same for half an hour of scrapes, each 15 s. */
const always = (value: number): string => `${value}x120`

/** What the daemon itself exports; it polls three times a scrape. */
function self(instance: string, command: string): World {
  const polls = (outcome: string): string => `meshfever_polls_total{${target(instance)},outcome="${outcome}"}`
  return {
    [`meshfever_build_info{${target(instance)},command="${command}",version="0.1.0"}`]: always(1),
    ...Object.fromEntries(POLL_OUTCOMES.map((outcome) => [polls(outcome), always(0)])),
    [polls('ok')]: '0+3x120',
    [`meshfever_polls_skipped_total{${target(instance)}}`]: always(0),
  }
}

function monitor(
  instance: string,
  pair: string,
  verdicts: Readonly<Record<string, string>> = { ok: always(1) },
): World {
  return {
    ...self(instance, 'monitor'),
    ...Object.fromEntries(
      ['ok', 'anomalous', 'low_traffic', 'no_data', 'warming'].map((verdict) => [
        `lab7_verdict{${target(instance)},${PAIR_OF[pair] ?? ''},verdict="${verdict}"}`,
        verdicts[verdict] ?? always(0),
      ]),
    ),
  }
}

function incident(instance: string, { sev1 = always(0), sev2 = always(0), accumulator = always(0) } = {}): World {
  return {
    ...self(instance, 'incident'),
    [`lab7_incident_sev1{${target(instance)}}`]: sev1,
    [`lab7_incident_sev2{${target(instance)}}`]: sev2,
    [`lab7_incident_accumulator{${target(instance)},${CART}}`]: accumulator,
    [`lab7_incident_accumulator{${target(instance)},${PAY}}`]: always(0),
  }
}

/** One of the monitors of a mesh, with an edge that is there and one that is gone. */
function shard(
  instance: string,
  ordinal: number,
  {
    of = always(2),
    states = { ok: always(2) },
    refused = always(0),
    untrained = always(0),
  }: { of?: string; states?: Readonly<Record<string, string>>; refused?: string; untrained?: string } = {},
): World {
  const edges = [`source="frontend",destination="${instance}"`, `source="frontend",destination="gone"`]
  return {
    ...self(instance, 'monitor'),
    [`meshfever_shards{${target(instance)}}`]: of,
    [`meshfever_shard_ordinal{${target(instance)}}`]: always(ordinal),
    ...Object.fromEntries(
      ['ok', 'anomalous', 'low_traffic', 'no_data', 'warming'].map((state) => [
        `meshfever_edges{${target(instance)},state="${state}"}`,
        states[state] ?? always(0),
      ]),
    ),
    [`meshfever_edges_refused{${target(instance)},reason="max_edges"}`]: refused,
    [`meshfever_edges_refused{${target(instance)},reason="unknown"}`]: always(7),
    [`meshfever_edges_without_baseline{${target(instance)},reason="failed"}`]: untrained,
    [`meshfever_edges_without_baseline{${target(instance)},reason="too_short"}`]: always(3),
    ...Object.fromEntries(
      edges.flatMap((edge, i) =>
        ['ok', 'no_data'].map((verdict) => [
          `lab7_verdict{${target(instance)},${edge},verdict="${verdict}"}`,
          always(Number((verdict === 'no_data') === (i === 1))),
        ]),
      ),
    ),
  }
}

/** Two shards and an incident daemon without a hot edge, which then exports no accumulator. */
const MESH: World = {
  ...self('i1', 'incident'),
  [`lab7_incident_sev1{${target('i1')}}`]: always(0),
  [`lab7_incident_sev2{${target('i1')}}`]: always(0),
  ...shard('m1', 1),
  ...shard('m2', 2),
}

/** One incident daemon, a monitor for each of two pairs. */
const NORMAL: World = { ...incident('i1'), ...monitor('cart1', 'cart'), ...monitor('pay1', 'pay') }
/** The same, everything twice. */
const REPLICATED: World = {
  ...NORMAL,
  ...incident('i2'),
  ...monitor('cart2', 'cart'),
  ...monitor('pay2', 'pay'),
}

/** A world without what one address exports; or with it until a minute, and never again. */
function without(world: World, instance: string, fromMinute = 0): World {
  const scrapes = fromMinute * 4
  return Object.fromEntries(
    Object.entries(world).flatMap(([series, values]) => {
      if (!series.includes(`instance="${instance}"`)) return [[series, values]]
      return scrapes === 0 ? [] : [[series, values.replace('x120', `x${scrapes}`)]]
    }),
  )
}

/** A world whose counters of polls say something else for one address. */
function polling(world: World, instance: string, outcomes: Readonly<Record<string, string>>): World {
  const changed = Object.entries(outcomes).map(([outcome, values]) => [
    outcome === 'skipped'
      ? `meshfever_polls_skipped_total{${target(instance)}}`
      : `meshfever_polls_total{${target(instance)},outcome="${outcome}"}`,
    values,
  ])
  return { ...world, ...(Object.fromEntries(changed) as World) }
}

const fires = (alert: string, severity: string, labels: Readonly<Record<string, string>> = {}): string => {
  const all = { alertname: alert, alertstate: 'firing', severity, ...labels }
  return `ALERTS{${Object.entries(all)
    .map(([label, value]) => `${label}="${value}"`)
    .join(', ')}}`
}
const WATCHDOG = fires('MeshfeverWatchdog', 'none')
const SEV_1 = fires('MeshfeverIncidentSev1', 'critical')
const SEV_2 = fires('MeshfeverIncidentSev2', 'warning')
const INCIDENT_DOWN = fires('MeshfeverIncidentDaemonDown', 'critical', { command: 'incident' })
const OF_CART = { source: 'frontend', destination: 'cartservice' }
const MONITOR_DOWN = fires('MeshfeverMonitorDown', 'warning', OF_CART)
const NO_DATA = fires('MeshfeverNoData', 'warning', OF_CART)
const MONITOR_UNANSWERED = fires('MeshfeverNoSuccessfulPoll', 'critical', { command: 'monitor', ...OF_CART })
const INCIDENT_UNANSWERED = fires('MeshfeverNoSuccessfulPoll', 'critical', { command: 'incident' })
const MONITOR_SKIPS = fires('MeshfeverPollsSkipped', 'warning', { command: 'monitor', ...OF_CART })
const INCIDENT_SKIPS = fires('MeshfeverPollsSkipped', 'warning', { command: 'incident' })

const SHARD_MISSING = fires('MeshfeverShardMissing', 'warning')
const SHARDS_DISAGREE = fires('MeshfeverShardsDisagree', 'warning')
const EDGES_REFUSED = fires('MeshfeverEdgesRefused', 'warning')
const TRAINING_FAILED = fires('MeshfeverTrainingFailed', 'warning')
const MESH_NO_DATA = fires('MeshfeverMeshNoData', 'warning')
const SHARD_UNANSWERED = fires('MeshfeverNoSuccessfulPoll', 'critical', { command: 'monitor', shard: '2' })
const SHARD_SKIPS = fires('MeshfeverPollsSkipped', 'warning', { command: 'monitor', shard: '2' })

/** All alerts that fire at that minute. */
const firing = (minutes: number, ...alerts: readonly string[]): Expectation => ({
  minutes,
  query: 'ALERTS{alertstate="firing"}',
  is: Object.fromEntries(alerts.map((alert) => [alert, 1])),
})

interface Case {
  readonly name: string
  readonly world: World
  readonly queries: readonly Expectation[]
}

const PAIR_CASES: readonly Case[] = [
  {
    name: 'nothing but the watchdog fires in normal operation',
    world: NORMAL,
    queries: [0, 1, 5, 15, 30].map((minutes) => firing(minutes, WATCHDOG)),
  },
  {
    name: 'nothing but the watchdog fires with two replicas',
    world: REPLICATED,
    queries: [0, 5, 30].map((minutes) => firing(minutes, WATCHDOG)),
  },
  {
    name: 'nothing but the watchdog fires when one replica of each is gone from the start, or after a while',
    world: without(without(without(REPLICATED, 'i2', 10), 'cart1', 10), 'pay2'),
    queries: [9, 11, 13, 15, 20, 30].map((minutes) => firing(minutes, WATCHDOG)),
  },
  {
    name: 'nothing but the watchdog fires in a quiet night',
    world: polling(
      polling({ ...NORMAL, ...monitor('cart1', 'cart', { low_traffic: always(1) }) }, 'cart1', {
        ok: always(50),
        nonfinite: '0+3x120',
      }),
      'i1',
      { ok: always(50), empty: '0+3x120' },
    ),
    queries: [5, 15, 30].map((minutes) => firing(minutes, WATCHDOG)),
  },
  {
    name: 'a lost scrape, and a daemon that restarts within a minute, are no alert',
    world: Object.fromEntries(
      Object.entries(NORMAL).map(([series, values]) => {
        const [first = '', step] = values.replace('x120', '').split('+')
        const counts = step === undefined ? `${first}x40` : `0+${step}x40`
        const again = step === undefined ? `${first}x80` : `0+${step}x80`
        return [series, `${counts} stale _x3 ${again}`]
      }),
    ),
    queries: [10, 10.5, 11, 11.25, 12, 20].map((minutes) => firing(minutes, WATCHDOG)),
  },
  {
    name: 'a Sev 2 that escalates and ends is one alert at a time, from replicas, over a lost scrape',
    world: {
      ...REPLICATED,
      ...incident('i1', { sev2: '0x19 1x19 0x80', sev1: '0x39 1x7 _ 1x12 0x60' }),
      ...incident('i2', { sev2: '0x19 1x19 0x80', sev1: '0x39 1x7 _ 1x12 0x60' }),
    },
    queries: [
      firing(4.75, WATCHDOG),
      firing(5, SEV_2, WATCHDOG),
      firing(9.75, SEV_2, WATCHDOG),
      firing(10, SEV_1, WATCHDOG),
      firing(12, SEV_1, WATCHDOG),
      firing(15, SEV_1, WATCHDOG),
      firing(17, WATCHDOG),
    ],
  },
  {
    name: 'no incident daemon: the watchdog ends, and someone is woken after three minutes',
    world: without(NORMAL, 'i1', 10),
    queries: [firing(11, WATCHDOG), firing(12.75), firing(13.5, INCIDENT_DOWN), firing(30, INCIDENT_DOWN)],
  },
  {
    name: 'an incident daemon that was never there is missed',
    world: without(NORMAL, 'i1'),
    queries: [firing(0.5), firing(1, INCIDENT_DOWN)],
  },
  {
    name: 'a monitor that is gone is missed after three minutes, and for as long as it is',
    world: without(NORMAL, 'cart1', 10),
    queries: [firing(12.75, WATCHDOG), firing(13.5, MONITOR_DOWN, WATCHDOG), firing(30, MONITOR_DOWN, WATCHDOG)],
  },
  {
    name: 'a monitor that was never there is missed',
    world: without(without(REPLICATED, 'cart1'), 'cart2'),
    queries: [firing(0.5, WATCHDOG), firing(1, MONITOR_DOWN, WATCHDOG)],
  },
  {
    name: 'no data for a pair for ten minutes is an alert, which ends with the first datum',
    world: { ...NORMAL, ...monitor('cart1', 'cart', { no_data: '0x19 1x60 0x40', ok: '1x19 0x60 1x40' }) },
    queries: [
      firing(14.5, WATCHDOG),
      firing(15, NO_DATA, WATCHDOG),
      firing(19.75, NO_DATA, WATCHDOG),
      firing(20.25, WATCHDOG),
    ],
  },
  {
    name: 'no data for one replica, while the other has some, is no alert; for both it is one alert',
    world: {
      ...REPLICATED,
      ...monitor('cart1', 'cart', { no_data: always(1), ok: always(0) }),
      ...monitor('cart2', 'cart', { no_data: '0x40 1x80', ok: '1x40 0x80' }),
    },
    queries: [firing(10, WATCHDOG), firing(30, NO_DATA, WATCHDOG)],
  },
  {
    name: 'a monitor that gets no answer is an alert with its pair, an incident daemon one of its own',
    world: polling(polling(NORMAL, 'cart1', { ok: '0+3x40 120x80', conn: '0x40 0+3x80' }), 'i1', {
      ok: '0+3x40 120x80',
      timeout: '0x40 0+3x80',
    }),
    queries: [
      firing(15, WATCHDOG),
      firing(17, INCIDENT_UNANSWERED, MONITOR_UNANSWERED, WATCHDOG),
      firing(30, INCIDENT_UNANSWERED, MONITOR_UNANSWERED, WATCHDOG),
    ],
  },
  {
    name: 'daemons that never got an answer are an alert, one for all replicas',
    world: ['cart1', 'cart2', 'i1', 'i2'].reduce(
      (world, instance) => polling(world, instance, { ok: always(0), auth: '0+3x120' }),
      REPLICATED,
    ),
    queries: [firing(1, WATCHDOG), firing(5, INCIDENT_UNANSWERED, MONITOR_UNANSWERED, WATCHDOG)],
  },
  {
    name: 'one replica that gets no answer, while the other does, is no alert',
    world: polling(polling(REPLICATED, 'cart1', { ok: always(0), conn: '0+3x120' }), 'i2', {
      ok: always(0),
      conn: '0+3x120',
    }),
    queries: [firing(5, WATCHDOG), firing(30, WATCHDOG)],
  },
  {
    name: 'a third of the polls skipped is an alert, one in thirty is not',
    world: polling(
      polling(polling(NORMAL, 'cart1', { ok: '0+2x120', skipped: '0+1x120' }), 'i1', {
        ok: '0+2x120',
        skipped: '0+1x120',
      }),
      'pay1',
      { ok: '0+29x120', skipped: '0+1x120' },
    ),
    queries: [firing(4, WATCHDOG), firing(30, INCIDENT_SKIPS, MONITOR_SKIPS, WATCHDOG)],
  },
]

const MESH_CASES: readonly Case[] = [
  {
    name: 'nothing but the watchdog fires for a mesh, whose edges come and go, with replicas of a shard or not',
    world: { ...MESH, ...shard('m2b', 2) },
    queries: [0, 5, 15, 30].map((minutes) => firing(minutes, WATCHDOG)),
  },
  {
    name: 'a shard that is gone is missed after three minutes, for as long as it is, unless it has a replica',
    world: without({ ...MESH, ...shard('m1b', 1) }, 'm2', 10),
    queries: [firing(12.75, WATCHDOG), firing(13.5, SHARD_MISSING, WATCHDOG), firing(30, SHARD_MISSING, WATCHDOG)],
  },
  {
    name: 'a replica of a shard that is gone is not missed',
    world: without({ ...MESH, ...shard('m1b', 1) }, 'm1', 10),
    queries: [firing(13.5, WATCHDOG), firing(30, WATCHDOG)],
  },
  {
    name: 'a shard that was never there is missed, and so are all of them when none is left',
    world: without(without(MESH, 'm2'), 'm1', 10),
    queries: [
      firing(0.5, WATCHDOG),
      firing(1, SHARD_MISSING, WATCHDOG),
      firing(20, SHARD_MISSING, WATCHDOG),
      firing(30, SHARD_MISSING, WATCHDOG),
    ],
  },
  {
    name: 'shards that do not agree on their number are an alert after ten minutes, which a rolling update is not',
    world: {
      ...MESH,
      ...shard('m1', 1, { of: '2x19 3x100' }),
      ...shard('m2', 2, { of: '2x39 3x24 4x55' }),
      ...shard('m3', 3, { of: '_x20 3x100' }),
      ...shard('m4', 4, { of: always(4) }),
    },
    queries: [firing(9.5, WATCHDOG), firing(12, SHARDS_DISAGREE, WATCHDOG), firing(29, SHARDS_DISAGREE, WATCHDOG)],
  },
  {
    name: 'edges refused for want of room are an alert, edges with an unknown end are none',
    world: { ...MESH, ...shard('m2', 2, { refused: '0x39 3x80' }) },
    queries: [firing(19.5, WATCHDOG), firing(20.5, EDGES_REFUSED, WATCHDOG), firing(30, EDGES_REFUSED, WATCHDOG)],
  },
  {
    name: 'edges whose training fails are an alert, not at once, and edges that are too young are none',
    world: { ...MESH, ...shard('m2', 2, { untrained: '0x19 4x100' }) },
    queries: [firing(24, WATCHDOG), firing(26, TRAINING_FAILED, WATCHDOG)],
  },
  {
    name: 'no data for most edges of a mesh is one alert, for some of them or for one shard it is none',
    world: {
      ...MESH,
      ...shard('m1', 1, { states: { ok: '60x39 40x80', no_data: '40x39 60x80' } }),
      ...shard('m2', 2, { states: { ok: '10x59 40x60', no_data: '90x59 60x60' } }),
    },
    queries: [firing(15, WATCHDOG), firing(22, MESH_NO_DATA, WATCHDOG), firing(30, MESH_NO_DATA, WATCHDOG)],
  },
  {
    name: 'a mesh without an edge is an alert, an empty shard is none',
    world: {
      ...MESH,
      ...shard('m1', 1, { states: { ok: '5x39 0x80' } }),
      ...shard('m2', 2, { states: {} }),
    },
    queries: [firing(15, WATCHDOG), firing(20.5, MESH_NO_DATA, WATCHDOG)],
  },
  {
    name: 'a shard that gets no answer, or skips its polls, is an alert with its number and not one for each edge',
    world: polling(polling(MESH, 'm2', { ok: '0+2x40 80x80', conn: '0x40 0+2x80', skipped: '0+1x120' }), 'i1', {}),
    queries: [firing(4, WATCHDOG), firing(30, SHARD_SKIPS, SHARD_UNANSWERED, WATCHDOG)],
  },
]

const CASES = [...PAIR_CASES, ...MESH_CASES]

for (const { name, world, queries } of CASES) {
  test(`rules: ${name}`, { skip }, (t) => {
    assert.equal(promtoolTestRules(t, ALERTS_TEXT, world, { queries }), '')
  })
}

test('rules: every alert is seen firing and not firing', () => {
  for (const { alert = '' } of ALERTS) {
    const seen = CASES.flatMap(({ queries }) =>
      queries.map(({ is }) => Object.keys(is).some((labels) => labels.includes(`"${alert}"`))),
    )
    assert.deepEqual([...new Set(seen)].sort(), [false, true], alert)
  }
})

for (const { name, find, replace, cases = PAIR_CASES } of [
  {
    name: 'a Sev 1 metric of another name',
    find: 'max_over_time(lab7_incident_sev1[1m])) == 1\n        labels',
    replace: 'max_over_time(lab7_incident_sev3[1m])) == 1\n        labels',
  },
  {
    name: 'a Sev 1 gauge that a lost scrape hides',
    find: 'max(max_over_time(lab7_incident_sev1[1m])) == 1\n        labels',
    replace: 'max(last_over_time(lab7_incident_sev1[10s])) == 1\n        labels',
  },
  {
    name: 'a Sev 2 that does not wait for Sev 1',
    find: 'max(max_over_time(lab7_incident_sev1[1m])) == 1\n        labels:\n          severity: warning',
    replace: 'max(max_over_time(lab7_incident_sev1[1m])) == 2\n        labels:\n          severity: warning',
  },
  {
    name: 'one alert for each replica',
    find: 'max(max_over_time(lab7_incident_sev2[1m])) == 1',
    replace: 'max_over_time(lab7_incident_sev2[1m]) == 1',
  },
  {
    name: 'a watchdog of another daemon',
    find: 'max(max_over_time(meshfever_build_info{command="incident"}',
    replace: 'max(max_over_time(meshfever_build_info{command="monitor"}',
  },
  {
    name: 'a missing incident daemon missed at once',
    find: 'absent_over_time(meshfever_build_info{command="incident"}[2m])\n        for: 1m',
    replace: 'absent_over_time(meshfever_build_info{command="incident"}[15s])',
  },
  {
    name: 'a missing monitor missed by any pair',
    find: 'max by (source, destination) (max_over_time(lab7_verdict[2m]))',
    replace: 'max by (source) (max_over_time(lab7_verdict[2m]))',
  },
  {
    name: 'low traffic taken for no data',
    find: 'min_over_time(lab7_verdict{verdict="no_data"}',
    replace: 'min_over_time(lab7_verdict{verdict="low_traffic"}',
  },
  {
    name: 'no data of one replica taken for no data',
    find: 'min by (source, destination) (\n            min_over',
    replace: 'max by (source, destination) (\n            min_over',
  },
  {
    name: 'an answer that nothing is there taken for none',
    find: 'ok|warnings|empty|nonfinite',
    replace: 'ok|warnings|nonfinite',
  },
  {
    name: 'one replica without an answer taken for all',
    find: 'max by (command, source, destination, shard) (\n            sum by',
    replace: 'min by (command, source, destination, shard) (\n            sum by',
  },
  { name: 'skipped polls from one half on', find: ') > 0.1', replace: ') > 0.5' },
  { name: 'skipped polls from one in a hundred on', find: ') > 0.1', replace: ') > 0.01' },
  {
    name: 'an edge of a mesh taken for a pair without data',
    cases: MESH_CASES,
    find: '            unless on (job, instance)\n            max_over_time(meshfever_shards[5m])\n          ) == 1',
    replace: '          ) == 1',
  },
  {
    name: 'an edge of a mesh taken for a daemon',
    cases: MESH_CASES,
    find: '            unless on (job, instance)\n            max_over_time(meshfever_shards[5m]),',
    replace: '            ,',
  },
  {
    name: 'shards counted by address',
    cases: MESH_CASES,
    find: 'count(count_values("shard", max_over_time(meshfever_shard_ordinal[2m])))',
    replace: 'count(max_over_time(meshfever_shard_ordinal[2m]))',
  },
  {
    name: 'all shards missing taken for none to be missed',
    cases: MESH_CASES,
    find: ' or max(max_over_time(meshfever_shards[1h])))',
    replace: ')',
  },
  {
    name: 'shards that never disagree',
    cases: MESH_CASES,
    find: 'min(min_over_time(meshfever_shards',
    replace: 'max(max_over_time(meshfever_shards',
  },
  { name: 'edges untrained for any reason', cases: MESH_CASES, find: '{reason="failed"}', replace: '' },
  { name: 'edges refused for any reason', cases: MESH_CASES, find: '{reason="max_edges"}', replace: '' },
  {
    name: 'one shard without data taken for all',
    cases: MESH_CASES,
    find: 'min(\n            sum by',
    replace: 'max(\n            sum by',
  },
  { name: 'a few edges without data taken for most', cases: MESH_CASES, find: ') > 0.5', replace: ') > 0.3' },
  {
    name: 'a mesh without an edge that nobody misses',
    cases: MESH_CASES,
    find: ' == 0\n        for: 5m',
    replace: ' < 0\n        for: 5m',
  },
  { name: 'a daemon without a name', find: '"command", "monitor"', replace: '"command", ""' },
]) {
  test(`rules: the cases see ${name}`, { skip }, (t) => {
    const mutated = ALERTS_TEXT.replace(find, replace)
    assert.notEqual(mutated, ALERTS_TEXT, `nothing to mutate: ${find}`)
    assert.ok(
      cases.some(({ world, queries }) => promtoolTestRules(t, mutated, world, { queries }) !== ''),
      'every case passes all the same',
    )
  })
}

for (const { alert, minutes, labels, summary, description, world } of [
  {
    alert: 'MeshfeverIncidentSev2',
    minutes: 10,
    labels: { severity: 'warning' },
    summary: 'Latency incident, Sev 2, one pair of services is hot',
    description: 'Accumulators: frontend -> cartservice 12; ',
    world: { ...REPLICATED, ...incident('i1', { sev2: always(1), accumulator: always(12) }) },
  },
  {
    alert: 'MeshfeverNoSuccessfulPoll',
    minutes: 20,
    labels: { severity: 'critical', command: 'incident' },
    summary: 'No successful poll of Prometheus by incident',
    description: 'The daemon runs, and for minutes Prometheus has given it no answer that it can use.',
    world: polling(NORMAL, 'i1', { ok: always(0) }),
  },
  {
    alert: 'MeshfeverShardMissing',
    minutes: 20,
    labels: { severity: 'warning' },
    summary: '1 shards of the mesh are not watched',
    description:
      'Prometheus has had no sample of their monitors for over 2 minutes. There are shard 1, shard 3, and no others.',
    world: without(
      { ...shard('m1', 1, { of: always(3) }), ...shard('m2', 2), ...shard('m3', 3, { of: always(3) }) },
      'm2',
    ),
  },
  {
    alert: 'MeshfeverPollsSkipped',
    minutes: 20,
    labels: { severity: 'warning', command: 'monitor', shard: '2' },
    summary: 'monitor, shard 2 of the mesh, skips 33.33% of its polls',
    description:
      'Polls take longer than the poll interval, so accumulators rise and cool more slowly than the timing contract says.',
    world: polling(MESH, 'm2', { ok: '0+2x120', skipped: '0+1x120' }),
  },
  {
    alert: 'MeshfeverPollsSkipped',
    minutes: 30,
    labels: { severity: 'warning', command: 'monitor', ...OF_CART },
    summary: 'monitor frontend -> cartservice skips 33.33% of its polls',
    description:
      'Polls take longer than the poll interval, so accumulators rise and cool more slowly than the timing contract says.',
    world: polling(NORMAL, 'cart1', { ok: '0+2x120', skipped: '0+1x120' }),
  },
]) {
  test(`rules: ${alert} says what is the matter`, { skip }, (t) => {
    const runbook = ALERTS.find((rule) => rule.alert === alert)?.annotations?.['runbook']
    const found = promtoolTestRules(t, ALERTS_TEXT, world, {
      alerts: [
        {
          eval_time: `${minutes}m`,
          alertname: alert,
          exp_alerts: [{ exp_labels: labels, exp_annotations: { summary, description, runbook } }],
        },
      ],
    })
    assert.equal(found, '')
  })
}
