import { readFileSync } from 'node:fs'

import { anomalyHistoryQuery } from '../core/anomaly-history.js'
import { StartError } from '../core/errors.js'
import { matrixCsv } from '../core/matrix-csv.js'
import { type Pair, pairName } from '../core/pair.js'
import { latencyAndTraffic } from '../core/promql.js'
import type { RecordingQuality } from '../core/recording-quality.js'
import { parseAnswer } from '../core/series.js'
import { queryInstantMatrix } from '../io/prometheus.js'
import { fetchHistory } from '../io/range-history.js'
import { saveRecording } from '../io/recorder.js'
import type { Runtime } from '../io/runtime.js'
import type { Experiment } from './experiment-file.js'
import { type LatencySource, promDuration } from './fault-effect.js'
import type { RunRecord } from './run-record.js'

/** The scored quantile. */
export const QUANTILE = 0.5

const DEADLINE_MS = 30_000

/** Where a run's numbers are, and where they go. */
export interface Saving {
  readonly experiment: Experiment
  readonly record: RunRecord
  readonly latency: LatencySource
  /** Where what the daemons export is. */
  readonly gaugesUrl: string
}

/** Unix seconds. */
export interface Span {
  readonly fromSeconds: number
  readonly toSeconds: number
}

/**
 * Saves a pair's latency as `record` does, and as CSV.
 *
 * @throws {StartError} when there is none, or it cannot be written
 */
export async function saveLatency(
  runtime: Runtime,
  { experiment, record, latency }: Saving,
  { kind, pair, span }: { readonly kind: 'training' | 'metrics'; readonly pair: Pair; readonly span: Span },
): Promise<RecordingQuality> {
  const { sourceLabel, destinationLabel, prometheusUrl } = latency
  const { recordStepSeconds: stepSeconds, queryWindowSeconds: windowSeconds } = experiment
  const path = record.pathOf(kind, `${record.stemOf(pair)}.json`)
  const { quality } = await saveRecording(
    runtime,
    {
      pair,
      prometheusUrl,
      query: latencyAndTraffic({
        ...{ pair, sourceLabel, destinationLabel, reporter: 'source' },
        window: promDuration(windowSeconds),
        quantiles: [QUANTILE],
      }),
      startSeconds: Math.ceil(span.fromSeconds / stepSeconds) * stepSeconds,
      endSeconds: Math.floor(span.toSeconds / stepSeconds) * stepSeconds,
      stepSeconds,
      windowSeconds,
      // What is observed may well be an incident; what is normal may not.
      despiteIncident: kind === 'metrics',
    },
    path,
  )
  if (kind === 'metrics') {
    const matrix = parseAnswer(JSON.parse(readFileSync(path, 'utf8')), 'matrix')
    record.write(['metrics', `${record.stemOf(pair)}.csv`], matrixCsv(matrix))
  }
  return quality
}

/** A part that is kept, in words, and how. */
export interface Part {
  readonly what: string
  readonly save: () => Promise<unknown>
}

/** What Prometheus knows of the observed time. */
export function observedParts(
  runtime: Runtime,
  saving: Saving,
  { observed, startedSeconds }: { readonly observed: Span; readonly startedSeconds: number },
): readonly Part[] {
  const { experiment, record, gaugesUrl: prometheusUrl } = saving
  const { pairs, pollIntervalSeconds } = experiment
  return [
    ...pairs.map((pair) => ({
      what: `the latency of ${pairName(pair)}`,
      save: () => saveLatency(runtime, saving, { kind: 'metrics', pair, span: observed }),
    })),
    {
      what: 'the gauges',
      save: async () => {
        const answer = await fetchHistory(runtime, {
          prometheusUrl,
          query: '{__name__=~"lab7_.+"}',
          startSeconds: observed.fromSeconds,
          endSeconds: observed.toSeconds,
          stepSeconds: pollIntervalSeconds,
        })
        if (answer.kind === 'failure') throw new StartError(answer.detail)
        record.write(['metrics', 'gauges.json'], answer.text)
        record.write(['metrics', 'gauges.csv'], matrixCsv(answer.data))
      },
    },
    {
      what: 'the history of anomalies',
      save: async () => {
        // From before the daemons started: what was silence then does no harm.
        const rangeMs = Math.ceil(runtime.clock.nowMs() - startedSeconds * 1000)
        const query = anomalyHistoryQuery(pairs, { rangeMs, stepMs: pollIntervalSeconds * 1000 })
        const answer = await queryInstantMatrix(runtime, { prometheusUrl, query, deadlineMs: DEADLINE_MS })
        if (answer.kind === 'failure') throw new StartError(answer.detail)
        record.write(['metrics', 'anomaly-history.json'], answer.text)
      },
    },
  ]
}
