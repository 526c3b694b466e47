import assert from 'node:assert/strict'
import test from 'node:test'

import pino, { type Logger } from 'pino'

import { EVALUATED, EVALUATED_MESH, INCIDENT, NO_INCIDENT, tableStream, TRANSITION } from '../src/io/log.js'

interface Table {
  readonly logger: Logger
  readonly shown: () => string
}

/** A logger on a table, whose clock goes five seconds a line. */
function table(): Table {
  let text = ''
  let lines = -1 // pino asks once when it is made
  const timestamp = (): string => `,"time":"${new Date(Date.UTC(2026, 0, 1, 0, 0, 5 * lines++)).toISOString()}"`
  const logger = pino(
    { base: null, timestamp },
    tableStream((more) => (text += more)),
  )
  return { logger, shown: () => text }
}

const evaluated = (maeMs: number, mape: number | null, anomalyCount = 0): Record<string, unknown> => ({
  source: 'a',
  destination: 'b',
  verdict: anomalyCount > 0 ? 'anomalous' : 'ok',
  anomalyCount,
  requestsPerSecond: 5,
  quantiles: [{ quantile: 0.5, maeMs, mape }],
})
const unjudged = (verdict: string): Record<string, unknown> => ({ verdict, anomalyCount: null, quantiles: [] })

test('log table: evaluations are rows under a header, with a word where nothing was judged', () => {
  const { logger, shown } = table()
  logger.info(evaluated(1.234, 0.0567), EVALUATED)
  logger.info(evaluated(1234.5, 12.3456, 2), EVALUATED)
  logger.info(evaluated(10, null), EVALUATED)
  logger.info(unjudged('no_data'), EVALUATED)
  logger.info({ ...unjudged('low_traffic'), quantiles: [{ quantile: 0.5, maeMs: 5, mape: 1 }] }, EVALUATED)
  assert.equal(
    shown(),
    [
      'Timestamp            Anomalies         MAE      MAPE',
      '2026-01-01 00:00:00          0        1.23     0.057',
      '2026-01-01 00:00:05          2     1234.50    12.346',
      '2026-01-01 00:00:10          0       10.00         -',
      '2026-01-01 00:00:15          -           -         -  no_data',
      '2026-01-01 00:00:20          -           -         -  low_traffic',
      '',
    ].join('\n'),
  )
})

test('log table: the header comes back every 30 rows', () => {
  const { logger, shown } = table()
  for (let i = 0; i < 61; i++) logger.info(evaluated(1, 1), EVALUATED)
  const lines = shown().trimEnd().split('\n')
  const headers = lines.flatMap((line, i) => (line.startsWith('Timestamp') ? [i] : []))
  assert.deepEqual([lines.length, headers], [64, [0, 31, 62]])
})

test('log table: a line that tears the table apart is followed by a header', () => {
  const { logger, shown } = table()
  logger.info(evaluated(1, 1), EVALUATED)
  logger.warn({ outcome: 'conn', detail: 'ECONNREFUSED', empty: '', none: null }, 'polls fail')
  logger.error({ pairs: ['a -> b'] }, 'something else')
  logger.info(evaluated(1, 1), EVALUATED)
  assert.equal(
    shown(),
    [
      'Timestamp            Anomalies         MAE      MAPE',
      '2026-01-01 00:00:00          0        1.00     1.000',
      '2026-01-01 00:00:05  warning: polls fail: outcome conn, detail ECONNREFUSED',
      '2026-01-01 00:00:10  error: something else: pairs ["a -> b"]',
      'Timestamp            Anomalies         MAE      MAPE',
      '2026-01-01 00:00:15          0        1.00     1.000',
      '',
    ].join('\n'),
  )
})

test('log table: polls of a mesh are rows that count verdicts and name the anomalous edges furthest out', () => {
  const { logger, shown } = table()
  const hot = (source: string, verdict: string, score: number): object => ({ source, destination: 'x', verdict, score })
  logger.info(
    { edges: 14, verdicts: { ok: 9, anomalous: 0, no_data: 5 }, hottest: [hot('a', 'ok', 0.9)] },
    EVALUATED_MESH,
  )
  const hottest = ['a', 'b', 'c', 'd'].map((source, i) => hot(source, 'anomalous', 30.66 - i))
  logger.info(
    { edges: 12345, verdicts: { ok: 12341, anomalous: 4 }, refused: { max_edges: 0 }, hottest },
    EVALUATED_MESH,
  )
  assert.equal(
    shown(),
    [
      '2026-01-01 00:00:00     14 edges: 9 ok, 5 no_data',
      '2026-01-01 00:00:05  12345 edges: 12341 ok, 4 anomalous  furthest out: a -> x 30.7, b -> x 29.7, c -> x 28.7',
      '',
    ].join('\n'),
  )
})

test('log table: incident polls are rows with the words that people search for', () => {
  const { logger, shown } = table()
  logger.info({ temperature: 0, accumulators: { 'a -> b': 0, 'c -> d': 0 } }, NO_INCIDENT)
  logger.warn({ temperature: 27, accumulators: { 'a -> b': 20, 'c -> d': 7 } }, `${INCIDENT}1`)
  logger.warn(
    { temperature: 20, accumulators: { 'a -> b': 20, 'c -> d': 0 }, unknown: { 'c -> d': 'no_data' } },
    `${INCIDENT}2`,
  )
  logger.warn({ transition: 'resolved', severity: null, temperature: 4 }, TRANSITION)
  assert.equal(
    shown(),
    [
      '2026-01-01 00:00:00  temperature   0  a -> b  0  c -> d  0  No incident detected',
      '2026-01-01 00:00:05  temperature  27  a -> b 20  c -> d  7  Incident detected! Severity: Sev 1',
      '2026-01-01 00:00:10  temperature  20  a -> b 20  c -> d  0 (no_data)  Incident detected! Severity: Sev 2',
      '2026-01-01 00:00:15  warning: incident transition: transition resolved, temperature 4',
      '',
    ].join('\n'),
  )
})

test('log table: a transition with its evidence is three lines, and a header follows', () => {
  const { logger, shown } = table()
  const text = ['Incident x opened', 'Suspect: cart', 'See it again: y']
  logger.info(evaluated(1, 1), EVALUATED)
  logger.warn({ transition: 'opened', severity: 2, temperature: 11, evidence: { id: 'x' }, text }, TRANSITION)
  logger.info(evaluated(1, 1), EVALUATED)
  assert.equal(
    shown(),
    [
      'Timestamp            Anomalies         MAE      MAPE',
      '2026-01-01 00:00:00          0        1.00     1.000',
      '2026-01-01 00:00:05  Incident x opened',
      '                     Suspect: cart',
      '                     See it again: y',
      'Timestamp            Anomalies         MAE      MAPE',
      '2026-01-01 00:00:10          0        1.00     1.000',
      '',
    ].join('\n'),
  )
})

test('log table: a newline in a name makes no second row', () => {
  const { logger, shown } = table()
  logger.info({ labels: { a: 'x\ny\u001b[31m' } }, 'listening')
  assert.equal(shown().split('\n').length, 2)
  assert.equal(shown().includes('\u001b'), false)
})
