/*
 * Which times of an edge's history are not normal. One anomalous sample is no such time: of a hundred normal ones about one lies
 * outside its band, and a baseline that never learnt from those would have a narrower band each time it is made.
 */
import { incidentSpans } from './incident-spans.js'
import { batchMatchers, type EdgeBatch } from './mesh-query.js'
import { INCIDENT_GAUGES, MONITOR_GAUGES } from './metric-names.js'
import type { TimeSpan } from './range-answer.js'

/** Over so long most of an edge's polls have to be anomalous. */
const SUSTAINED_SECONDS = 300

const NAMES = { sourceLabel: 'source', destinationLabel: 'destination' } as const

/** Answers how many verdicts Prometheus knows: none when it scrapes no monitor, and then it cannot tell what was hot. */
export const VERDICTS_KNOWN_QUERY = `count(${MONITOR_GAUGES.verdict.name})`

/**
 * Answers something for each of the edges that is hot: most of its polls found it anomalous, or it warms an incident that is open.
 */
export function edgeHeatQuery(batch: EdgeBatch): string {
  const { verdict } = MONITOR_GAUGES
  const { accumulator, severity } = INCIDENT_GAUGES
  const edges = batchMatchers(batch, NAMES).join(',')
  const anomalous = `avg_over_time(${verdict.name}{verdict="anomalous",${edges}}[${SUSTAINED_SECONDS}s]) >= 0.5`
  const warming = `${accumulator.name}{${edges}} > 0 and on () (max(${severity.name}) > 0)`
  return `max by (${NAMES.sourceLabel}, ${NAMES.destinationLabel}) ((${anomalous}) or (${warming}))`
}

/**
 * The times of a history that show heat: those at which it was hot, what led to that, and what the rate window still shows of it.
 *
 * @param hotSeconds - the times that `edgeHeatQuery` answers for the edge, rising
 */
export function heatSpans(
  hotSeconds: readonly number[],
  range: {
    readonly stepSeconds: number
    /** The rate window. */
    readonly windowSeconds: number
    readonly startSeconds: number
    readonly endSeconds: number
  },
): readonly TimeSpan[] {
  return incidentSpans(
    hotSeconds.map((seconds) => seconds - SUSTAINED_SECONDS),
    { ...range, windowSeconds: SUSTAINED_SECONDS + range.windowSeconds },
  )
}
