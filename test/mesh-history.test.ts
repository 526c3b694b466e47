import assert from 'node:assert/strict'
import test from 'node:test'

import type { PairVerdict } from '../src/core/incident.js'
import {
  edgeHistoryQuery,
  MAX_NAMED,
  meshHistoryQuery,
  newlyAnomalous,
  readMeshHistory,
} from '../src/core/mesh-history.js'
import { type Pair, pairKey } from '../src/core/pair.js'
import { checkPromql } from '../src/core/promql.js'
import { type Matrix, parseAnswer } from '../src/core/series.js'
import { matrixAnswer } from './helpers/fake-runtime.js'

const T = 1_700_000_000
const CART = { source: 'frontend', destination: 'cart' }
const PAYMENT = { source: 'checkout', destination: 'payment' }
const RANGE = { rangeMs: 10_000, stepMs: 5_000, atSeconds: null }
const RULES = { staleAfterSeconds: 60 }

type Labels = Readonly<Record<string, string>>
interface Exported {
  readonly metric: Labels
  readonly values: readonly (readonly [number, string])[]
}

function matrix(exported: readonly Exported[]): Matrix {
  return parseAnswer(JSON.parse(matrixAnswer(exported)), 'matrix')
}

const series = (metric: Labels, ...values: readonly (readonly [number, string])[]): Exported => ({ metric, values })
const clock = (...at: readonly number[]): Exported =>
  series({ series: 'poll' }, ...at.map((time) => [time, '1'] as const))
const count = (labels: Labels, ...values: readonly (readonly [number, string])[]): Exported =>
  series({ __name__: 'lab7_anomaly_count', ...labels }, ...values)
/** Evaluated two seconds before each time. */
const sampled = (labels: Labels, ...at: readonly number[]): Exported =>
  series(
    { __name__: 'lab7_sample_timestamp_seconds', ...labels },
    ...at.map((time) => [time, String(time - 2)] as const),
  )

const OK: PairVerdict = { kind: 'ok' }
const BAD: PairVerdict = { kind: 'anomalous', anomalyCount: 1 }
const SILENT: PairVerdict = { kind: 'unknown', reason: 'no_data' }

const MONITORS = 'label_replace(count(meshfever_build_info{command="monitor"}), "series", "monitors", "", "")'
const POLL = 'label_replace(vector(time()), "series", "poll", "", "")'

for (const { name, query, text } of [
  {
    name: 'of a mesh in which nothing is warm it asks for anomalies, the monitors and the poll itself',
    query: meshHistoryQuery([], '', RANGE),
    text: `(lab7_anomaly_count > 0 or ${MONITORS} or ${POLL})[10000ms:5000ms] offset 1000ms`,
  },
  {
    name: 'warm edges are asked for by name, whatever is in it, at a time that is given',
    query: meshHistoryQuery([CART, { source: 'a.b', destination: '"c\\' }], '', { ...RANGE, atSeconds: T }),
    text:
      '({__name__=~"lab7_anomaly_count|lab7_sample_timestamp_seconds",source=~"frontend|a\\\\.b",destination=~"cart|\\"c\\\\\\\\"}' +
      ' or lab7_verdict{source=~"frontend|a\\\\.b",destination=~"cart|\\"c\\\\\\\\"} == 1' +
      ' or lab7_anomaly_count > 0' +
      ` or ${MONITORS} or ${POLL})[10000ms:5000ms] @ ${T}`,
  },
  {
    name: 'a selector narrows every part of it',
    query: meshHistoryQuery([CART], 'job="meshfever",shard!="9"', RANGE),
    text:
      '({__name__=~"lab7_anomaly_count|lab7_sample_timestamp_seconds",job="meshfever",shard!="9",source=~"frontend",destination=~"cart"}' +
      ' or lab7_verdict{job="meshfever",shard!="9",source=~"frontend",destination=~"cart"} == 1' +
      ' or lab7_anomaly_count{job="meshfever",shard!="9"} > 0' +
      ' or label_replace(count(meshfever_build_info{command="monitor",job="meshfever",shard!="9"}), "series", "monitors", "", "")' +
      ` or ${POLL})[10000ms:5000ms] offset 1000ms`,
  },
  {
    name: 'edges that were the first to be heard of are asked for alone',
    query: edgeHistoryQuery([PAYMENT], 'job="m"', { ...RANGE, atSeconds: T + 0.5 }),
    text:
      '({__name__=~"lab7_anomaly_count|lab7_sample_timestamp_seconds",job="m",source=~"checkout",destination=~"payment"}' +
      ' or lab7_verdict{job="m",source=~"checkout",destination=~"payment"} == 1' +
      ` or ${POLL})[10000ms:5000ms] @ ${T}.5`,
  },
  {
    name: 'of more edges than can be named all are asked for',
    query: edgeHistoryQuery(
      Array.from({ length: MAX_NAMED + 1 }, (_, i) => ({ source: `s${i}`, destination: 'd' })),
      '',
      RANGE,
    ),
    text: `({__name__=~"lab7_anomaly_count|lab7_sample_timestamp_seconds"} or ${POLL})[10000ms:5000ms] offset 1000ms`,
  },
]) {
  test(`mesh history: ${name}`, () => {
    assert.equal(query, text)
    checkPromql(query, 'the query')
  })
}

test('mesh history: newly anomalous is who had an anomaly since the last poll and is not warm', () => {
  const late = { source: 'a', destination: 'late' }
  const answer = matrix([
    clock(T, T + 5),
    count(CART, [T, '1'], [T + 5, '1']),
    count({ ...PAYMENT, instance: 'a' }, [T + 5, '2']),
    count({ ...PAYMENT, instance: 'b' }, [T + 5, '2']),
    count(late, [T, '1']),
    count({ source: 'a', destination: 'calm' }, [T + 5, '0']),
    count({ source: 'a', destination: 'odd' }, [T + 5, 'NaN']),
    count({ source: 'nameless' }, [T + 5, '1']),
    sampled({ source: 'a', destination: 'sampled' }, T + 5),
  ])
  const options = { warm: new Set([pairKey(CART)]), afterSeconds: T }
  assert.deepEqual(newlyAnomalous(answer, options), [PAYMENT])
  assert.deepEqual(newlyAnomalous(answer, { ...options, afterSeconds: T - 5 }), [PAYMENT, late])
})

const verdicts = (pairs: readonly (readonly [Pair, PairVerdict])[]): ReadonlyMap<string, unknown> =>
  new Map(pairs.map(([pair, verdict]) => [pairKey(pair), { ...pair, verdict }]))

test('mesh history: what an anomaly is worth is known from the second answer, with all that follows it', () => {
  const answer = matrix([
    clock(T, T + 5),
    series({ series: 'monitors' }, [T, '2'], [T + 5, '3']),
    count(CART, [T, '0'], [T + 5, '1']),
    sampled(CART, T, T + 5),
    // Of these the first answer knows the anomalies, and not how old they are.
    count(PAYMENT, [T, '1']),
    count({ source: 'old', destination: 'news' }, [T + 5, '1']),
  ])
  const more = matrix([
    clock(T - 5, T, T + 5),
    count(PAYMENT, [T - 5, '0'], [T, '1'], [T + 5, '0']),
    sampled(PAYMENT, T - 5, T, T + 5),
    count({ source: 'old', destination: 'news' }, [T + 5, '1']),
    series({ __name__: 'lab7_sample_timestamp_seconds', source: 'old', destination: 'news' }, [T + 5, String(T - 100)]),
  ])
  const stale: PairVerdict = { kind: 'unknown', reason: 'stale' }
  assert.deepEqual(readMeshHistory(answer, more, RULES), {
    monitors: 3,
    polls: [
      {
        timestampSeconds: T,
        verdicts: verdicts([
          [CART, OK],
          [PAYMENT, BAD],
          [{ source: 'old', destination: 'news' }, SILENT],
        ]),
      },
      {
        timestampSeconds: T + 5,
        verdicts: verdicts([
          [CART, BAD],
          [PAYMENT, OK],
          [{ source: 'old', destination: 'news' }, stale],
        ]),
      },
    ],
  })
})

test('mesh history: of several monitors of one edge the strongest verdict holds, and a stale one does not count', () => {
  const a = { ...CART, instance: 'shard-a' }
  const b = { ...CART, instance: 'shard-b' }
  const answer = matrix([clock(T), count(a, [T, '0']), sampled(a, T), count(b, [T, '2']), sampled(b, T)])
  assert.deepEqual(
    readMeshHistory(answer, null, RULES).polls[0]?.verdicts,
    verdicts([[CART, { ...BAD, anomalyCount: 2 }]]),
  )
  const gone = matrix([
    clock(T),
    count(a, [T, '0']),
    sampled(a, T),
    count(b, [T, '2']),
    series({ __name__: 'lab7_sample_timestamp_seconds', ...b }, [T, String(T - 61)]),
  ])
  assert.deepEqual(readMeshHistory(gone, null, RULES).polls[0]?.verdicts, verdicts([[CART, OK]]))
})

for (const { name, exported, monitors } of [
  { name: 'none are known of', exported: [clock(T)], monitors: 0 },
  {
    name: 'there were some, a while ago',
    exported: [clock(T, T + 5), series({ series: 'monitors' }, [T, '2'])],
    monitors: 0,
  },
  { name: 'there are some', exported: [clock(T), series({ series: 'monitors' }, [T, '2'])], monitors: 2 },
  { name: 'nothing is known', exported: [], monitors: 0 },
]) {
  test(`mesh history: monitors, when ${name}`, () => {
    assert.equal(readMeshHistory(matrix(exported), null, RULES).monitors, monitors)
  })
}
