import { createHash } from 'node:crypto'

import { StartError } from '../core/errors.js'
import { INCIDENT_GAUGES } from '../core/metric-names.js'
import type { Pair } from '../core/pair.js'
import { readRecording, type Recording } from '../core/recording.js'
import { ShapeError } from '../core/series.js'
import { writeAtomically } from './atomic-file.js'
import { queryInstant, queryRange } from './prometheus.js'
import type { Runtime } from './runtime.js'

export interface RecordRequest {
  readonly pair: Pair
  readonly prometheusUrl: string
  readonly query: string
  readonly startSeconds: number
  readonly endSeconds: number
  readonly stepSeconds: number
  /** Record even while the incident daemon says that what happens is not normal. */
  readonly despiteIncident: boolean
}

/** Prometheus refuses a range query with more points than this per series. */
export const MAX_POINTS = 11_000

const DEADLINE_MS = 60_000

/**
 * Saves a range of a pair's history: Prometheus's answer byte for byte, with one more top-level key that says what it is.
 *
 * @throws {StartError} when Prometheus does not answer, or has nothing to save, or during an incident
 */
export async function saveRecording(runtime: Runtime, request: RecordRequest, path: string): Promise<Recording> {
  const { prometheusUrl, query, startSeconds, endSeconds, stepSeconds, pair } = request
  if (!request.despiteIncident) await refuseDuringIncident(runtime, request)
  const answer = await queryRange(runtime, {
    prometheusUrl,
    query,
    startSeconds,
    endSeconds,
    stepSeconds,
    deadlineMs: DEADLINE_MS,
  })
  if (answer.kind === 'failure') throw new StartError(`nothing recorded from ${prometheusUrl}: ${answer.detail}`)
  let recording: Recording
  try {
    recording = readRecording(answer.data)
  } catch (error) {
    if (!(error instanceof ShapeError)) throw error
    throw new StartError(
      `nothing recorded: Prometheus has no latency from ${pair.source} to ${pair.destination} in this range`,
      { cause: error },
    )
  }
  if (!recording.series.some(({ latenciesMs }) => latenciesMs.some(Number.isFinite))) {
    throw new StartError(`nothing recorded: no request from ${pair.source} to ${pair.destination} in this range`)
  }
  const about = {
    pair,
    query,
    step_seconds: stepSeconds,
    range_seconds: [startSeconds, endSeconds],
    recorded_at: new Date(runtime.clock.nowMs()).toISOString(),
    sha256: createHash('sha256').update(valuesOf(answer.text)).digest('hex'),
  }
  const end = answer.text.lastIndexOf('}')
  writeAtomically(path, `${answer.text.slice(0, end)},"meshfever":${JSON.stringify(about)}}\n`)
  return recording
}

/** Nothing is recorded as normal while the temperature is above 0, or over a time in which an incident was open. */
async function refuseDuringIncident(runtime: Runtime, request: RecordRequest): Promise<void> {
  const { prometheusUrl, startSeconds, endSeconds } = request
  const { temperature, severity } = INCIDENT_GAUGES
  const range = `${Math.ceil(endSeconds - startSeconds)}s`
  const query = `max(${temperature.name}) > 0 or max(max_over_time(${severity.name}[${range}])) > 0`
  const answer = await queryInstant(runtime, { prometheusUrl, query, deadlineMs: DEADLINE_MS })
  if (answer.kind === 'failure') throw new StartError(`nothing recorded from ${prometheusUrl}: ${answer.detail}`)
  if (answer.data.result.length === 0) return
  throw new StartError(
    'nothing recorded: an incident is open, is cooling, or lies in this range, and would be learnt as normal; ' +
      'record later, give a shorter --range, or --despite-incident',
  )
}

/** The `result` array, as it stands in the file. */
function valuesOf(answer: string): string {
  return answer.slice(answer.indexOf('['), answer.lastIndexOf(']') + 1)
}
