import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import test from 'node:test'

import {
  bandExpression,
  type FactsRequest,
  factsQuery,
  gaugesQuery,
  type MeshFacts,
  readFacts,
  readGauges,
  sidesExpression,
} from '../src/core/edge-facts.js'
import { pairKey } from '../src/core/pair.js'
import { checkPromql } from '../src/core/promql.js'
import { parseAnswer } from '../src/core/series.js'
import { vectorAnswer } from './helpers/fake-runtime.js'
import { noPromtool } from './helpers/promtool.js'
import { temporaryFile } from './helpers/temporary-folder.js'

const CART = { source: 'frontend', destination: 'cart' }
const ISTIO = { sourceLabel: 'source_app', destinationLabel: 'destination_app', window: { text: '1m', seconds: 60 } }
/** The fault begins at 1200 s, is seen at 1260 s and told at 1500 s. */
const REQUEST: FactsRequest = {
  pairs: [CART, { source: 'checkout', destination: 'cart' }],
  quantile: 0.5,
  atSeconds: 1500,
  firstAnomalousSeconds: 1260,
  istio: ISTIO,
}

type Result = Parameters<typeof vectorAnswer>[0]

function facts(result: Result, request: FactsRequest = REQUEST): MeshFacts {
  return readFacts(parseAnswer(JSON.parse(vectorAnswer(result)), 'vector'), request)
}

test('evidence queries: each is PromQL whatever the services are called', () => {
  const pairs = [CART, { source: 'a"b\\c\n', destination: 'x|y.*' }]
  for (const query of [
    gaugesQuery(pairs, 1_700_000_002.5),
    factsQuery({ ...REQUEST, pairs }),
    bandExpression(pairs[1] ?? CART),
    sidesExpression(pairs[1] ?? CART, 0.99, ISTIO),
  ]) {
    assert.doesNotThrow(() => checkPromql(query, 'the query'), query)
  }
})

test('evidence queries: every time is pinned, so that who asks later reads the same', () => {
  const query = factsQuery(REQUEST)
  for (const range of query.matchAll(/\[1m\](?! @ 1500)(.{0,60})/g))
    assert.match(range[1] ?? '', /\[600000ms:30000ms\] @ 1140/)
  assert.match(gaugesQuery([CART], 1500), / @ 1500$/)
})

const sample = (name: string, labels: Readonly<Record<string, string>>, value: string): Result[number] => ({
  metric: { __name__: name, ...CART, ...labels },
  value,
})

for (const { name, result, expected } of [
  { name: 'nothing exported', result: [], expected: undefined },
  {
    name: 'one quantile of one monitor',
    result: [
      sample('lab7_y', { quantile: '0.5', instance: 'a' }, '208'),
      sample('lab7_yhat', { quantile: '0.5', instance: 'a' }, '8'),
      sample('lab7_y_min', { quantile: '0.5', instance: 'a' }, '5'),
      sample('lab7_y_max', { quantile: '0.5', instance: 'a' }, '12'),
      sample('lab7_requests_per_second', { instance: 'a' }, '43'),
    ],
    expected: { quantile: 0.5, latencyMs: 208, yhatMs: 8, yMinMs: 5, yMaxMs: 12, requestsPerSecond: 43 },
  },
  {
    name: 'of two quantiles the one that is furthest out',
    result: [
      sample('lab7_y', { quantile: '0.5' }, '13'),
      sample('lab7_y_max', { quantile: '0.5' }, '12'),
      sample('lab7_y', { quantile: '0.99' }, '900'),
      sample('lab7_y_max', { quantile: '0.99' }, '90'),
    ],
    expected: { quantile: 0.99, latencyMs: 900, yhatMs: null, yMinMs: null, yMaxMs: 90, requestsPerSecond: null },
  },
  {
    name: 'replicas are not mixed, and of two alike it is always the same',
    result: [
      sample('lab7_y', { quantile: '0.5', instance: 'b' }, '24'),
      sample('lab7_y_max', { quantile: '0.5', instance: 'b' }, '12'),
      sample('lab7_y_max', { quantile: '0.5', instance: 'a' }, '11'),
      sample('lab7_y', { quantile: '0.5', instance: 'a' }, '22'),
    ],
    expected: { quantile: 0.5, latencyMs: 22, yhatMs: null, yMinMs: null, yMaxMs: 11, requestsPerSecond: null },
  },
  {
    name: 'what is no number is not there',
    result: [
      sample('lab7_y', { quantile: 'x' }, 'NaN'),
      sample('lab7_yhat', { quantile: 'x' }, '8'),
      sample('lab7_requests_per_second', {}, '+Inf'),
    ],
    expected: { quantile: null, latencyMs: null, yhatMs: 8, yMinMs: null, yMaxMs: null, requestsPerSecond: null },
  },
]) {
  test(`evidence queries: monitors' values, ${name}`, () => {
    for (const order of [result, [...result].reverse()]) {
      const read = readGauges(parseAnswer(JSON.parse(vectorAnswer(order)), 'vector'))
      assert.deepEqual(read.get(pairKey(CART)), expected)
    }
  })
}

test('evidence queries: an empty answer is facts without a value', () => {
  const nothing = { beforeMs: null, nowMs: null }
  assert.deepEqual(facts([]), {
    edges: new Map(
      REQUEST.pairs.map((pair) => [
        pairKey(pair),
        {
          ...pair,
          quantile: 0.5,
          callerSide: nothing,
          calleeSide: nothing,
          requestsPerSecond: { before: null, now: null },
          versions: [],
        },
      ]),
    ),
    injected: [],
  })
})

/** What sidecars export of an edge: requests per minute by labels, in the bucket of `ms`, from minute 0 on. */
interface Traffic {
  readonly labels: Readonly<Record<string, string>>
  /** The bucket's bound, before and from minute 20 on. */
  readonly le: readonly [before: string, after: string]
  readonly perMinute: readonly [before: number, after: number]
}
const MINUTES = 30
const BOUNDS = ['5', '10', '100', '250', '500', '+Inf']

/** The traffic as promtool's input series, with Istio's histogram. */
function seriesOf({ labels, le, perMinute }: Traffic): readonly { readonly series: string; readonly values: string }[] {
  const text = (more: Readonly<Record<string, string>> = {}): string =>
    Object.entries({ ...labels, ...more })
      .map(([name, value]) => `${name}=${JSON.stringify(value)}`)
      .join(',')
  const counts = (each: (after: boolean) => number): string => {
    let total = 0
    return Array.from({ length: 4 * MINUTES + 1 }, (_, i) => {
      if (i > 0) total += each(i > 80) / 4
      return total
    }).join(' ')
  }
  const rate = (after: boolean): number => (after ? perMinute[1] : perMinute[0])
  const within = (bound: string, after: boolean): boolean =>
    BOUNDS.indexOf(bound) >= BOUNDS.indexOf(after ? le[1] : le[0])
  return [
    { series: `istio_requests_total{${text()}}`, values: counts(rate) },
    ...BOUNDS.map((bound) => ({
      series: `istio_request_duration_milliseconds_bucket{${text({ le: bound })}}`,
      values: counts((after) => (within(bound, after) ? rate(after) : 0)),
    })),
  ]
}

const edge = (
  source: string,
  destination: string,
  reporter: string,
  more: Readonly<Record<string, string>> = {},
): Traffic['labels'] => ({
  reporter,
  source_app: source,
  destination_app: destination,
  response_flags: '-',
  destination_version: 'unknown',
  ...more,
})

test("evidence queries: Prometheus's own engine answers what was measured", { skip: noPromtool() }, (t) => {
  const traffic: readonly Traffic[] = [
    // Delayed on the way since minute 20: the callee sees nothing of it.
    {
      labels: edge('frontend', 'cart', 'source', { destination_version: 'v1' }),
      le: ['10', '10'],
      perMinute: [120, 0],
    },
    {
      labels: edge('frontend', 'cart', 'source', { destination_version: 'v1', response_flags: 'DI' }),
      le: ['250', '250'],
      perMinute: [0, 180],
    },
    {
      labels: edge('frontend', 'cart', 'source', { destination_version: 'v2', response_flags: 'DI,UF' }),
      le: ['500', '500'],
      perMinute: [0, 60],
    },
    { labels: edge('frontend', 'cart', 'destination'), le: ['10', '10'], perMinute: [120, 240] },
    { labels: edge('checkout', 'cart', 'source'), le: ['5', '5'], perMinute: [60, 60] },
    // Nobody watches these; a fault on what leaves the cart is told, one between strangers is not.
    { labels: edge('cart', 'redis', 'source', { response_flags: 'FI' }), le: ['5', '5'], perMinute: [0, 15] },
    { labels: edge('cart', 'redis', 'source'), le: ['5', '5'], perMinute: [60, 45] },
    { labels: edge('cart', 'mail', 'source', { response_flags: 'UNDI' }), le: ['5', '5'], perMinute: [60, 60] },
    { labels: edge('x', 'y', 'source', { response_flags: 'DI' }), le: ['5', '5'], perMinute: [60, 60] },
  ]
  const file = temporaryFile(
    t,
    JSON.stringify({
      tests: [
        {
          interval: '15s',
          input_series: traffic.flatMap(seriesOf),
          // promtool tells what the engine answered only by complaining that it is not what was expected.
          promql_expr_test: [{ expr: factsQuery(REQUEST), eval_time: `${MINUTES}m`, exp_samples: [] }],
        },
      ],
    }),
    'facts.yaml',
  )
  const { stdout, stderr } = spawnSync('promtool', ['test', 'rules', file], { encoding: 'utf8' })
  const got = `${stdout}${stderr}`
  const result = [...(got.split('got:')[1] ?? '').matchAll(/\{([^}]*)\} ([-+.\dE]+)/g)].map(
    ([, labels = '', value = '']) => ({
      metric: Object.fromEntries(
        [...labels.matchAll(/(\w+)="([^"]*)"/g)].map(([, label = '', text = '']) => [label, text]),
      ),
      value,
    }),
  )
  assert.notEqual(result.length, 0, got)
  const { edges, injected } = facts(result)
  const reversed = facts([...result].reverse())
  assert.deepEqual(
    [[...reversed.edges], reversed.injected],
    [[...edges], injected],
    'the order of an answer means nothing',
  )
  const round = (value: number | null): number | null => (value === null ? null : Number(value.toFixed(3)))
  const cart = edges.get(pairKey(CART))
  assert.deepEqual(
    {
      caller: [round(cart?.callerSide.beforeMs ?? null), round(cart?.callerSide.nowMs ?? null)],
      callee: [round(cart?.calleeSide.beforeMs ?? null), round(cart?.calleeSide.nowMs ?? null)],
      rps: [round(cart?.requestsPerSecond.before ?? null), round(cart?.requestsPerSecond.now ?? null)],
      versions: cart?.versions.map(({ version, share, latencyMs }) => [version, round(share), round(latencyMs)]),
    },
    // Medians are interpolated: the middle of a bucket that holds everything; two thirds into one that holds three quarters.
    {
      caller: [7.5, 200],
      callee: [7.5, 7.5],
      rps: [2, 4],
      versions: [
        ['v1', 0.75, 175],
        ['v2', 0.25, 375],
      ],
    },
  )
  assert.deepEqual(
    injected.map(({ source, destination, fault, share }) => [source, destination, fault, round(share)]),
    [
      ['frontend', 'cart', 'delay', 1],
      ['cart', 'redis', 'abort', 0.25],
    ],
  )
  const checkout = edges.get(pairKey({ source: 'checkout', destination: 'cart' }))
  assert.deepEqual(checkout?.calleeSide, { beforeMs: null, nowMs: null }, 'its destination side is not measured')
  assert.deepEqual(checkout.versions, [], 'a version that Istio does not know is none')
})
