import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import test from 'node:test'

import { edgeHeatQuery, heatSpans } from '../src/core/edge-heat.js'
import {
  batchMatchers,
  type MeshQuery,
  meshTrainingQuery,
  narrowedQuery,
  parseSelector,
} from '../src/core/mesh-query.js'
import { checkPromql } from '../src/core/promql.js'
import { HOSTILE_NAMES } from './helpers/mesh-answers.js'
import { noPromtool } from './helpers/promtool.js'
import { temporaryFile } from './helpers/temporary-folder.js'

const MESH: MeshQuery = {
  selector: parseSelector('destination_service_namespace="boutique"', '--selector'),
  sourceLabel: 'source_app',
  destinationLabel: 'destination_app',
  window: '1m',
  quantiles: [0.5],
}
const BATCH = { source: 'front"end', destinations: ['cart', 'a.b|c'] }
const OF_BATCH = String.raw`source_app="front\"end",destination_app=~"cart|a\\.b\\|c"`

test('edge batch: its latency and traffic are one query, narrowed to it', () => {
  const selector = `{reporter="source",destination_service_namespace="boutique",${OF_BATCH}}`
  assert.equal(
    meshTrainingQuery(MESH, BATCH),
    [
      `label_replace(histogram_quantile(0.5, sum by (le, source_app, destination_app) (rate(istio_request_duration_milliseconds_bucket${selector}[1m]))), "quantile", "0.5", "", "")`,
      `or label_replace(sum by (source_app, destination_app) (rate(istio_request_duration_milliseconds_count${selector}[1m])), "series", "requests_per_second", "", "")`,
    ].join('\n'),
  )
})

for (const { query, narrowed } of [
  { query: 'mesh:latency', narrowed: `mesh:latency{${OF_BATCH}}` },
  { query: 'mesh:latency{}', narrowed: `mesh:latency{${OF_BATCH}}` },
  { query: '{__name__="a"}', narrowed: `{${OF_BATCH},__name__="a"}` },
  {
    query: 'max(a{b="}"}) by (c) or rate(d [1m]) # e{f="g"}',
    narrowed: `max(a{${OF_BATCH},b="}"}) by (c) or rate(d{${OF_BATCH}} [1m]) # e{f="g"}`,
  },
  { query: 'vector(1)', narrowed: 'vector(1)' },
]) {
  test(`edge batch: ${query} is narrowed in each of its selectors`, () => {
    const found = narrowedQuery(query, batchMatchers(BATCH, MESH))
    assert.equal(found, narrowed)
    checkPromql(found, 'the query')
  })
}

test('edge batch: hostile names make no other query', () => {
  const parts = (query: string): string => {
    const names: string[] = []
    checkPromql(query, 'the query').iterate({ enter: ({ name }) => void names.push(name) })
    return names.join(' ')
  }
  for (const name of HOSTILE_NAMES) {
    const batch = { source: name, destinations: [name, 'b'] }
    const calm = { source: 'a', destinations: ['a', 'b'] }
    assert.equal(parts(meshTrainingQuery(MESH, batch)), parts(meshTrainingQuery(MESH, calm)), name)
    assert.equal(parts(edgeHeatQuery(batch)), parts(edgeHeatQuery(calm)), name)
  }
})

test('edge batch: promtool accepts the queries', { skip: noPromtool() }, (t) => {
  const rules = [meshTrainingQuery({ ...MESH, quantiles: [0.5, 0.99] }, BATCH), edgeHeatQuery(BATCH)].map(
    (expr, i) => ({ record: `r${i}`, expr }),
  )
  const file = temporaryFile(t, JSON.stringify({ groups: [{ name: 'g', rules }] }))
  const { status, stderr } = spawnSync('promtool', ['check', 'rules', file], { encoding: 'utf8' })
  assert.equal(status, 0, stderr)
})

test('edge heat: what led to it and what the rate window still shows belong to it; what touches is one time', () => {
  const range = { stepSeconds: 60, windowSeconds: 120, startSeconds: 10_000, endSeconds: 20_000 }
  assert.deepEqual(heatSpans([9_940, 15_000, 15_060, 15_300, 19_980], range), [
    { fromSeconds: 10_000, toSeconds: 10_060 },
    { fromSeconds: 14_700, toSeconds: 15_420 },
    { fromSeconds: 19_680, toSeconds: 20_000 },
  ])
  assert.deepEqual(heatSpans([], range), [])
})
