import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import test from 'node:test'

import { UsageError } from '../src/core/errors.js'
import { type MeshQuery, meshQuery, parseSelector } from '../src/core/mesh-query.js'
import { checkPromql } from '../src/core/promql.js'
import { noPromtool } from './helpers/promtool.js'
import { temporaryFile } from './helpers/temporary-folder.js'

const WHOLE_MESH: MeshQuery = {
  selector: null,
  sourceLabel: 'source_app',
  destinationLabel: 'destination_app',
  window: '1m',
  quantiles: [0.5],
}

test('mesh query: latency, traffic and age of all edges are one query', () => {
  const selector = '{reporter="source",destination_service_namespace="boutique"}'
  assert.equal(
    meshQuery({ ...WHOLE_MESH, selector: parseSelector('destination_service_namespace="boutique"', '--selector') }),
    [
      `label_replace(histogram_quantile(0.5, sum by (le, source_app, destination_app) (rate(istio_request_duration_milliseconds_bucket${selector}[1m]))), "quantile", "0.5", "", "")`,
      `or label_replace(sum by (source_app, destination_app) (rate(istio_request_duration_milliseconds_count${selector}[1m])), "series", "requests_per_second", "", "")`,
      `or label_replace(max by (source_app, destination_app) (timestamp(istio_request_duration_milliseconds_count${selector})), "series", "sample_timestamp_seconds", "", "")`,
    ].join('\n'),
  )
})

for (const { text, inQuery } of [
  { text: 'a="b"', inQuery: '{reporter="source",a="b"}' },
  { text: ' a = "b" , c!~\'d|e\' , ', inQuery: '{reporter="source",a = "b",c!~\'d|e\'}' },
  { text: 'a="b" # a remark }\n', inQuery: '{reporter="source",a="b"}' },
  { text: 'a="}",b=`{"`', inQuery: '{reporter="source",a="}",b=`{"`}' },
  { text: 'by="x",offset="y"', inQuery: '{reporter="source",by="x",offset="y"}' },
  { text: 'reporter="waypoint"', inQuery: '{reporter="waypoint"}' },
]) {
  test(`mesh query: --selector ${text.trim()} narrows the query to ${inQuery}`, () => {
    const query = meshQuery({ ...WHOLE_MESH, selector: parseSelector(text, '--selector') })
    checkPromql(query, 'the query')
    assert.equal(query.split(inQuery).length, 4, query)
    assert.equal(query.split('{').length, 4 + 3 * (inQuery.split('{').length - 2), 'and there are no other selectors')
  })
}

for (const text of [
  '',
  ' ',
  ',',
  '{a="b"}',
  'a="b"} or up{c="d"',
  'a="b"}[5m]) or vector(1) or rate(up{c="d"',
  'a="b"} offset 1h #',
  'a="b"}',
  'a="b"} #',
  'a="b" or c="d"',
  'a="b',
  'a=b',
  'a',
  'foo{a="b"',
  '"metric"',
  '"a label"="b"',
  '"__name__"="up"',
  'a="b" #',
]) {
  test(`mesh query: --selector ${JSON.stringify(text)} is refused, with an example`, () => {
    assert.throws(() => parseSelector(text, '--selector'), {
      name: 'UsageError',
      message: `--selector must be label matchers as between the braces of a PromQL selector, such as destination_service_namespace="boutique", got ${JSON.stringify(text)}`,
    })
  })
}

for (const { text, name } of [
  { text: '__name__="up"', name: '__name__' },
  { text: 'a="b",le="100"', name: 'le' },
]) {
  test(`mesh query: --selector ${text} is refused, since ${name} is the query's own`, () => {
    assert.throws(
      () => parseSelector(text, 'MESHFEVER_SELECTOR'),
      (error: unknown) =>
        error instanceof UsageError &&
        error.message.startsWith('MESHFEVER_SELECTOR must be ') &&
        error.message.includes(`but ${name} is the query's own`),
    )
  })
}

for (const { labels, message } of [
  { labels: { sourceLabel: 'le' }, message: "--source-label must be a label of Istio's, but le is the query's own" },
  {
    labels: { destinationLabel: 'quantile' },
    message: "--destination-label must be a label of Istio's, but quantile is the query's own",
  },
  {
    labels: { destinationLabel: 'source_app' },
    message: '--destination-label must be another label than --source-label, got source_app for both',
  },
]) {
  test(`mesh query: labels that cannot name an edge are refused: ${JSON.stringify(labels)}`, () => {
    assert.throws(() => meshQuery({ ...WHOLE_MESH, ...labels }), { name: 'UsageError', message })
  })
}

test(
  'mesh query: promtool accepts it, with several quantiles, and a selector with all its operators',
  { skip: noPromtool() },
  (t) => {
    const selector = parseSelector('a="\\"",b!="x",c=~"y.*",d!~`z\\d`', '--selector')
    const expr = meshQuery({ ...WHOLE_MESH, selector, quantiles: [0.5, 0.99], sourceLabel: 'source_workload' })
    const rules = { groups: [{ name: 'g', rules: [{ record: 'r', expr }] }] }
    const { status, stderr } = spawnSync('promtool', ['check', 'rules', temporaryFile(t, JSON.stringify(rules))], {
      encoding: 'utf8',
    })
    assert.equal(status, 0, stderr)
  },
)
