import assert from 'node:assert/strict'
import test from 'node:test'

import { anomalyHistoryQuery, readPolls } from '../src/core/anomaly-history.js'
import type { PairVerdict, Poll } from '../src/core/incident.js'
import { parseAnswer } from '../src/core/series.js'
import { matrixAnswer } from './helpers/fake-runtime.js'

const CART = { source: 'frontend', destination: 'cart' }
const PAYMENT = { source: 'checkout', destination: 'payment' }
const RULES = { pairs: [CART, PAYMENT], staleAfterSeconds: 60 }
const T = 1_700_000_000

type Metric = Readonly<Record<string, string>>
interface Exported {
  readonly metric: Metric
  readonly values: readonly (readonly [number, string])[]
}

const POLL: Exported = { metric: { series: 'poll' }, values: [[T, '1']] }

function count(value: string, metric: Metric = CART, at = T): Exported {
  return { metric: { __name__: 'lab7_anomaly_count', ...metric }, values: [[at, value]] }
}

/** @param ageSeconds - how long before the poll Prometheus had evaluated the monitor's sample */
function sampled(ageSeconds: number, metric: Metric = CART, at = T): Exported {
  return { metric: { __name__: 'lab7_sample_timestamp_seconds', ...metric }, values: [[at, String(at - ageSeconds)]] }
}

function held(verdict: string, metric: Metric = CART): Exported {
  return { metric: { __name__: 'lab7_verdict', ...metric, verdict }, values: [[T, '1']] }
}

function polls(exported: readonly Exported[]): readonly Poll[] {
  return readPolls(parseAnswer(JSON.parse(matrixAnswer(exported)), 'matrix'), RULES)
}

const unknown = (reason: 'no_data' | 'stale' | 'warming' | 'low_traffic'): PairVerdict => ({ kind: 'unknown', reason })
const OK: PairVerdict = { kind: 'ok' }
const anomalous = (anomalyCount: number): PairVerdict => ({ kind: 'anomalous', anomalyCount })

const A = { ...CART, instance: 'monitor-a:8080' }
const B = { ...CART, instance: 'monitor-b:8080' }

for (const { name, exported, verdict } of [
  { name: 'a fresh count of 0 is ok', exported: [count('0'), sampled(2)], verdict: OK },
  { name: 'a fresh count of 1 is anomalous', exported: [count('1'), sampled(2)], verdict: anomalous(1) },
  { name: 'two anomalous quantiles count twice', exported: [count('2'), sampled(2)], verdict: anomalous(2) },
  { name: 'nothing exported is no data', exported: [], verdict: unknown('no_data') },
  {
    name: 'low traffic is what the monitor says it is',
    exported: [held('low_traffic')],
    verdict: unknown('low_traffic'),
  },
  { name: 'warming is what the monitor says it is', exported: [held('warming')], verdict: unknown('warming') },
  { name: 'no_data is what the monitor says it is', exported: [held('no_data')], verdict: unknown('no_data') },
  { name: 'a verdict nobody knows is no data', exported: [held('splendid')], verdict: unknown('no_data') },
  { name: 'a verdict without its count is no data', exported: [held('ok'), sampled(1)], verdict: unknown('no_data') },
  { name: 'the oldest sample that counts', exported: [count('1'), sampled(60)], verdict: anomalous(1) },
  { name: 'values frozen by a dead monitor are stale', exported: [count('1'), sampled(61)], verdict: unknown('stale') },
  { name: 'a frozen count of 0 is stale and not ok', exported: [count('0'), sampled(3600)], verdict: unknown('stale') },
  { name: 'a count without a sample time is stale', exported: [count('0')], verdict: unknown('stale') },
  { name: 'a clock a little ahead is no fault', exported: [count('0'), sampled(-3)], verdict: OK },
  { name: 'a sample from the far future is stale', exported: [count('0'), sampled(-61)], verdict: unknown('stale') },
  { name: 'a count of NaN is no data', exported: [count('NaN'), sampled(1)], verdict: unknown('no_data') },
  { name: 'a negative count is no data', exported: [count('-1'), sampled(1)], verdict: unknown('no_data') },
  { name: 'an infinite count is no data', exported: [count('+Inf'), sampled(1)], verdict: unknown('no_data') },
  {
    name: 'two monitors that see the same anomaly are not added up',
    exported: [count('1', A), sampled(1, A), count('1', B), sampled(2, B)],
    verdict: anomalous(1),
  },
  {
    name: 'of two monitors the one that sees more holds',
    exported: [count('1', A), sampled(1, A), count('2', B), sampled(2, B)],
    verdict: anomalous(2),
  },
  {
    name: 'an anomaly seen by one of two monitors stands',
    exported: [count('0', A), sampled(1, A), count('1', B), sampled(2, B)],
    verdict: anomalous(1),
  },
  {
    name: 'a stale replica does not make a fresh one stale',
    exported: [count('1', A), sampled(600, A), count('0', B), sampled(2, B)],
    verdict: OK,
  },
  {
    name: "one replica's sample time does not vouch for another's count",
    exported: [count('1', A), sampled(2, B)],
    verdict: unknown('stale'),
  },
]) {
  test(`anomaly history: ${name}`, () => {
    assert.deepEqual(polls([POLL, ...exported]), [{ timestampSeconds: T, verdicts: [verdict, unknown('no_data')] }])
    // The order of an answer means nothing.
    assert.deepEqual(polls([...exported].reverse().concat(POLL)), polls([POLL, ...exported]))
  })
}

test('anomaly history: each pair has its own verdict, in the order of the rules', () => {
  const answer = [count('0', PAYMENT), sampled(1, PAYMENT), count('3', CART), sampled(1, CART), POLL]
  assert.deepEqual(polls(answer), [{ timestampSeconds: T, verdicts: [anomalous(3), OK] }])
})

test('anomaly history: a pair that is not watched is left out', () => {
  const stranger = { source: 'frontend', destination: 'payment' }
  assert.deepEqual(polls([POLL, count('9', stranger), sampled(1, stranger)]), [
    { timestampSeconds: T, verdicts: [unknown('no_data'), unknown('no_data')] },
  ])
})

test('anomaly history: the polls are those of the series "poll", silent ones included', () => {
  const at = [T, T + 5, T + 10]
  const answer: readonly Exported[] = [
    { metric: { series: 'poll' }, values: at.map((time) => [time, '1']) },
    count('1', CART, T),
    sampled(1, CART, T),
    count('0', CART, T + 10),
    sampled(1, CART, T + 10),
    // Not the time of any poll.
    count('1', CART, T + 12),
  ]
  assert.deepEqual(
    polls(answer).map(({ timestampSeconds, verdicts }) => [timestampSeconds, verdicts[0]]),
    [
      [T, anomalous(1)],
      [T + 5, unknown('no_data')],
      [T + 10, OK],
    ],
  )
})

test('anomaly history: steps that begin anywhere become multiples of the step, and a step that repeats an earlier one is no poll', () => {
  // As VictoriaMetrics has them, asked at T + 12.3: what it takes for settled ends at T + 7.3.
  const steps = [T - 2.7, T + 2.3, T + 7.3, T + 12.3]
  const answer: readonly Exported[] = [
    { metric: { series: 'poll' }, values: steps.map((time) => [time, String(Math.min(time, T + 7.3))]) },
    ...steps.flatMap((time) => [count('1', CART, time), sampled(1, CART, time)]),
  ]
  assert.deepEqual(
    polls(answer).map(({ timestampSeconds, verdicts }) => [timestampSeconds, verdicts[0]]),
    [
      [T - 5, anomalous(1)],
      [T, anomalous(1)],
      [T + 5, anomalous(1)],
    ],
  )
})

test('anomaly history: an answer without the series "poll" holds no poll', () => {
  assert.deepEqual(polls([count('1'), sampled(1)]), [])
})

test('anomaly history: labels called __proto__ or constructor tell replicas apart and do no harm', () => {
  const hostile = (value: string): Metric => JSON.parse(`{"__proto__":"${value}","constructor":"x"}`) as Metric
  const answer = ['a', 'b'].flatMap((value) => {
    const metric = Object.fromEntries([...Object.entries(hostile(value)), ...Object.entries(CART)])
    return [count('1', metric), sampled(1, metric)]
  })
  assert.deepEqual(polls([POLL, ...answer])[0]?.verdicts[0], anomalous(1))
  assert.equal(({} as Record<string, unknown>)['a'], undefined)
})

test('anomaly history: the query is a subquery over both gauges, the verdict that holds, and the poll itself', () => {
  assert.equal(
    anomalyHistoryQuery([CART, PAYMENT, { source: 'frontend', destination: 'a.b' }], {
      rangeMs: 900_000,
      stepMs: 5_000,
    }),
    '({__name__=~"lab7_anomaly_count|lab7_sample_timestamp_seconds",source=~"frontend|checkout",destination=~"cart|payment|a\\\\.b"}' +
      ' or lab7_verdict{source=~"frontend|checkout",destination=~"cart|payment|a\\\\.b"} == 1' +
      ' or label_replace(vector(time()), "series", "poll", "", ""))[900000ms:5000ms] offset 1000ms',
  )
})
