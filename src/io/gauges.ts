import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client'

import type { IncidentRules, IncidentState } from '../core/incident.js'
import { NO_SEVERITY, temperatureOf, transition } from '../core/incident.js'
import {
  INCIDENT_COUNTERS,
  INCIDENT_GAUGES,
  type Metric,
  MONITOR_COUNTERS,
  MONITOR_GAUGES,
  PAIR_METRICS,
  pairMetricName,
  SELF_METRICS,
} from '../core/metric-names.js'
import type { Pair } from '../core/pair.js'
import type { PollOutcome } from '../core/reading.js'
import { type Evaluation, VERDICTS } from '../core/score.js'
import type { Clock } from './clock.js'
import type { Runtime } from './runtime.js'

/** What is served under /metrics: rendered once a poll, however many scrapers there are. */
export interface Exposition {
  readonly contentType: string
  /** The last rendered snapshot. */
  read(): Buffer
  render(): Promise<void>
}

export async function createExposition({ clock }: Pick<Runtime, 'clock'>, registry: Registry): Promise<Exposition> {
  const process = createProcessMetrics(clock)
  const render = async (): Promise<Buffer> => Buffer.from(`${await registry.metrics()}\n${await process()}`)
  let snapshot = await render()
  return {
    contentType: registry.contentType,
    read: () => snapshot,
    render: async () => {
      snapshot = await render()
    },
  }
}

function gauge(registry: Registry, { name, help, labels }: Omit<Metric, 'type'>): Gauge {
  const made = new Gauge({ name, help, labelNames: [...labels], registers: [registry] })
  // A gauge without labels is born as 0: a value nobody measured.
  if (labels.length === 0) made.remove()
  return made
}

/** A counter starts at 0 under every label value known beforehand: one born at 3 has an increase() of 0. */
function counter(registry: Registry, { name, help, labels, values = [] }: Metric): Counter {
  const made = new Counter({ name, help, labelNames: [...labels], registers: [registry] })
  const label = labels.at(-1)
  if (label !== undefined) for (const value of values) made.inc({ [label]: value }, 0)
  return made
}

/** Sets what is known and removes what is not: an absent series is the truth, a kept one is not. */
function setOrRemove(target: Gauge, labels: Readonly<Record<string, string>>, value: number | null | undefined): void {
  if (value === null || value === undefined || !Number.isFinite(value)) target.remove(labels)
  else target.set(labels, value)
}

/** prom-client's default metrics read /proc and the heap: more work than a poll, so they are read less often. */
const PROCESS_EVERY_MS = 5_000

function createProcessMetrics(clock: Clock): () => Promise<string> {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: LOOP_SAMPLE_MS })
  let renderedMs = -Infinity
  let text = ''
  return async () => {
    const nowMs = clock.monotonicMs()
    if (nowMs - renderedMs >= PROCESS_EVERY_MS) {
      text = await registry.metrics()
      renderedMs = nowMs
    }
    return text
  }
}

/** How often the event loop's delay is sampled: prom-client's own 10 ms cost more CPU than the polls. */
const LOOP_SAMPLE_MS = 500

export interface SelfGauges {
  polled(outcome: PollOutcome, durationSeconds: number): void
  skipped(polls: number): void
  succeeded(timestampSeconds: number): void
}

export function createSelfGauges(
  registry: Registry,
  build: { readonly version: string; readonly nodeVersion: string; readonly command: string },
): SelfGauges {
  gauge(registry, SELF_METRICS.buildInfo).set(
    { version: build.version, node_version: build.nodeVersion, command: build.command },
    1,
  )
  const polls = counter(registry, SELF_METRICS.polls)
  const skipped = counter(registry, SELF_METRICS.pollsSkipped)
  const duration = new Histogram({
    name: SELF_METRICS.pollDuration.name,
    help: SELF_METRICS.pollDuration.help,
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
    registers: [registry],
  })
  const lastSuccess = gauge(registry, SELF_METRICS.lastSuccess)
  return {
    polled: (outcome, durationSeconds) => {
      polls.inc({ outcome })
      duration.observe(durationSeconds)
    },
    skipped: (count) => skipped.inc(count),
    succeeded: (timestampSeconds) => lastSuccess.set(timestampSeconds),
  }
}

export interface MonitorGauges {
  publish(evaluation: Evaluation): void
}

/** @param quantiles - those that are scored; the lab's gauges, which know no quantile, show the first */
export function createMonitorGauges(registry: Registry, pair: Pair, quantiles: readonly number[]): MonitorGauges {
  const labels = { source: pair.source, destination: pair.destination }
  const labelled = mapValues(MONITOR_GAUGES, (metric) => gauge(registry, metric))
  const anomalies = counter(registry, MONITOR_COUNTERS.anomalies)
  anomalies.inc(labels, 0)
  const named = mapValues(PAIR_METRICS, ({ suffix, help }) =>
    gauge(registry, { name: pairMetricName(pair, suffix), help, labels: [] }),
  )
  return {
    publish: (evaluation) => {
      for (const verdict of VERDICTS) {
        labelled.verdict.set({ ...labels, verdict }, verdict === evaluation.verdict ? 1 : 0)
      }
      quantiles.forEach((quantile, i) => {
        const found = evaluation.quantiles.find((candidate) => candidate.quantile === quantile)
        // A band without a sample would look like knowledge of now.
        const sample = found?.yMs === null ? undefined : found
        const values = {
          mae: sample?.maeMs,
          mape: sample?.mape,
          y: sample?.yMs,
          yMin: sample?.yMinMs,
          yMax: sample?.yMaxMs,
          yhat: sample?.yhatMs,
        }
        const scored = { ...labels, quantile: String(quantile) }
        for (const key of Object.keys(values) as (keyof typeof values)[]) {
          setOrRemove(labelled[key], scored, values[key])
          if (i === 0) setOrRemove(named[key], {}, values[key])
        }
        setOrRemove(labelled.score, scored, sample?.score)
        setOrRemove(labelled.saturated, scored, sample === undefined ? null : Number(sample.saturated))
        setOrRemove(labelled.drift, scored, sample?.driftRatio)
      })
      const [first] = evaluation.quantiles
      const beyond = first === undefined || first.yMs === null ? null : Number(first.beyondTraining)
      setOrRemove(labelled.beyondTraining, labels, beyond)
      setOrRemove(labelled.anomalyCount, labels, evaluation.anomalyCount)
      setOrRemove(named.anomalyCount, {}, evaluation.anomalyCount)
      setOrRemove(labelled.requestsPerSecond, labels, evaluation.requestsPerSecond)
      setOrRemove(labelled.sampleTimestamp, labels, evaluation.timestampSeconds)
      anomalies.inc(labels, evaluation.anomalyCount ?? 0)
    },
  }
}

export interface IncidentGauges {
  publish(state: IncidentState): void
  /** Counts what a live poll did; what was replayed at the start happened before this process. */
  count(before: IncidentState, after: IncidentState): void
}

export function createIncidentGauges(registry: Registry, { pairs }: IncidentRules): IncidentGauges {
  const gauges = mapValues(INCIDENT_GAUGES, (metric) => gauge(registry, metric))
  const incidents = counter(registry, INCIDENT_COUNTERS.incidents)
  return {
    publish: (state) => {
      pairs.forEach(({ source, destination }, i) => {
        setOrRemove(gauges.accumulator, { source, destination }, state.accumulators[i])
      })
      const level = state.open?.severity ?? NO_SEVERITY
      gauges.temperature.set(temperatureOf(state.accumulators))
      gauges.severity.set(level)
      gauges.sev1.set(level === 1 ? 1 : 0)
      gauges.sev2.set(level === 2 ? 1 : 0)
      setOrRemove(gauges.started, {}, state.open?.startedSeconds)
    },
    count: (before, after) => {
      const happened = transition(before, after)
      if (after.open !== null && (happened === 'opened' || happened === 'escalated')) {
        incidents.inc({ severity: String(after.open.severity) })
      }
    },
  }
}

function mapValues<K extends string, A, B>(record: Readonly<Record<K, A>>, map: (value: A) => B): Record<K, B> {
  return Object.fromEntries(Object.entries<A>(record).map(([key, value]) => [key, map(value)])) as Record<K, B>
}
