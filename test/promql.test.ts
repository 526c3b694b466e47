import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import test from 'node:test'

import { anomalyHistoryQuery } from '../src/core/anomaly-history.js'
import { UsageError } from '../src/core/errors.js'
import {
  checkPromql,
  latencyAndTraffic,
  latencyTrafficAndAge,
  type PairQuery,
  promqlOneOf,
  promqlString,
} from '../src/core/promql.js'
import { noPromtool } from './helpers/promtool.js'
import { temporaryFile } from './helpers/temporary-folder.js'

const QUERY: PairQuery = {
  pair: { source: 'frontend', destination: 'shippingservice' },
  sourceLabel: 'source_app',
  destinationLabel: 'destination_app',
  reporter: 'source',
  window: '1m',
  quantiles: [0.5],
}

/** What a service would have to be called to watch every edge of the mesh. */
const INJECTION = 'x"}[10s])) or sum(rate(m{destination=~".+'

test('promql: the built-in query asks for latency, traffic and age of one moment', () => {
  const selector = '{reporter="source",source_app="frontend",destination_app="shippingservice"}'
  assert.equal(
    latencyTrafficAndAge(QUERY),
    [
      `label_replace(histogram_quantile(0.5, sum by (le) (rate(istio_request_duration_milliseconds_bucket${selector}[1m]))), "quantile", "0.5", "", "")`,
      `or label_replace(sum(rate(istio_request_duration_milliseconds_count${selector}[1m])), "series", "requests_per_second", "", "")`,
      `or label_replace(max(timestamp(istio_request_duration_milliseconds_count${selector})), "series", "sample_timestamp_seconds", "", "")`,
    ].join('\n'),
  )
})

test('promql: every quantile is a series of its own, and labels, reporter and window are those asked for', () => {
  const query = latencyAndTraffic({
    pair: { source: 'a', destination: 'b' },
    sourceLabel: 'source_workload',
    destinationLabel: 'destination_workload',
    reporter: 'destination',
    window: '90s',
    quantiles: [0.5, 0.99],
  })
  const selector = '{reporter="destination",source_workload="a",destination_workload="b"}'
  assert.equal(
    query,
    [
      `label_replace(histogram_quantile(0.5, sum by (le) (rate(istio_request_duration_milliseconds_bucket${selector}[90s]))), "quantile", "0.5", "", "")`,
      `or label_replace(histogram_quantile(0.99, sum by (le) (rate(istio_request_duration_milliseconds_bucket${selector}[90s]))), "quantile", "0.99", "", "")`,
      `or label_replace(sum(rate(istio_request_duration_milliseconds_count${selector}[90s])), "series", "requests_per_second", "", "")`,
    ].join('\n'),
  )
})

for (const { name, text, quoted } of [
  { name: 'a plain text', text: 'frontend', quoted: '"frontend"' },
  { name: 'a quote', text: 'a"b', quoted: String.raw`"a\"b"` },
  { name: 'a backslash', text: 'a\\', quoted: String.raw`"a\\"` },
  { name: 'a backslash before a quote', text: '\\"', quoted: String.raw`"\\\""` },
  { name: 'a newline', text: 'a\nb', quoted: String.raw`"a\nb"` },
  { name: 'an injection', text: INJECTION, quoted: String.raw`"x\"}[10s])) or sum(rate(m{destination=~\".+"` },
]) {
  test(`promql: ${name} stays one string`, () => {
    assert.equal(promqlString(text), quoted)
  })
}

test('promql: a regular expression matches exactly the names it was made of', () => {
  assert.equal(promqlOneOf(['a.b', 'c|d']), String.raw`"a\\.b|c\\|d"`)
  const hostile = ['a.b', 'x+', '(y)', '[z]', '{1}', '^', '$', 'p*', 'q?', 'r|s', '\\']
  // What Prometheus makes of the PromQL string, anchored as it anchors.
  const pattern = new RegExp(`^(?:${JSON.parse(promqlOneOf(hostile)) as string})$`)
  for (const name of hostile) assert.match(name, pattern)
  for (const name of ['axb', 'xx', 'y', 'z', 'r', 's', 'p', '']) assert.doesNotMatch(name, pattern)
})

test('promql: a hostile service name changes nothing but its own matcher', () => {
  const hostile = latencyTrafficAndAge({ ...QUERY, pair: { source: INJECTION, destination: 'b\\' } })
  const shape = hostile.replaceAll(promqlString(INJECTION), '"frontend"').replaceAll('"b\\\\"', '"shippingservice"')
  assert.equal(shape, latencyTrafficAndAge(QUERY))
})

for (const query of [
  'up',
  'sum by (le) (rate(x_bucket{a="b"}[5m]))',
  'histogram_quantile(0.5, sum(rate(x[1m])) by (le)) > 3 and on () vector(1)',
  '(a or b)[5m:10s] offset 1s',
  '{__name__=~"a|b"}',
  '1 + 2 # a comment',
  String.raw`up{a="b\"c\\",d='e"f'}`,
  'up{a=~`b\\"c`}',
]) {
  test(`promql: ${query} is accepted`, () => {
    assert.doesNotThrow(() => checkPromql(query, '--query'))
  })
}

for (const query of [
  'sum(up',
  'up{',
  'up{a=b}',
  'sum(up))',
  'rate(up[5m)',
  '1 +',
  'a b',
  '"x',
  'up{a="b',
  "up{a='b",
  'up{a=`b',
  '   ',
  'up{a="b" or c}',
]) {
  test(`promql: ${JSON.stringify(query)} is refused with the place where it stops parsing`, () => {
    assert.throws(
      () => checkPromql(query, '--query'),
      (error: unknown) => {
        assert.ok(error instanceof UsageError)
        assert.match(
          error.message,
          /^--query must be a PromQL expression, got one that does not parse at character \d+, near "/,
        )
        return true
      },
    )
  })
}

test('promql: a query that no server would take is refused by its length', () => {
  assert.throws(() => checkPromql(`up + ${'1'.repeat(1_000_000)}`, '--query'), {
    name: 'UsageError',
    message: '--query must be shorter than 1,000,000 characters, got 1000005',
  })
})

test('promql: Prometheus itself parses every query we build, hostile names included', { skip: noPromtool() }, (t) => {
  const pairs = [
    QUERY.pair,
    { source: INJECTION, destination: 'b\\' },
    { source: 'a\nb', destination: 'c.d+(e)[f]{2}^$*?|g' },
  ]
  const rules = [
    ...pairs.map((pair) => latencyTrafficAndAge({ ...QUERY, pair, quantiles: [0.5, 0.9, 1e-7] })),
    `max_over_time(${anomalyHistoryQuery(pairs, { rangeMs: 900_000, stepMs: 5_000 })})`,
  ].map((expr, i) => ({ record: `test:query_${i}`, expr }))
  // YAML is a superset of JSON.
  const file = temporaryFile(t, JSON.stringify({ groups: [{ name: 'queries', rules }] }), 'rules.yml')
  const { status, stderr, stdout } = spawnSync('promtool', ['check', 'rules', file], { encoding: 'utf8' })
  assert.equal(status, 0, stdout + stderr)
})
