import { promisify } from 'node:util'
import { constants, gzip as gzipWithCallback } from 'node:zlib'

import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client'

import { edgeLabels } from '../core/exposition-text.js'
import { PAIR_GAUGES, pairValues, QUANTILE_GAUGES, quantileValues } from '../core/gauge-values.js'
import type { IncidentRules, IncidentState } from '../core/incident.js'
import { NO_SEVERITY, temperatureOf, transition } from '../core/incident.js'
import {
  type IncidentStep,
  meshIncidentId,
  meshSeverity,
  type MeshState,
  meshTemperature,
} from '../core/mesh-incident.js'
import {
  BASELINE_METRICS,
  INCIDENT_COUNTERS,
  INCIDENT_GAUGES,
  MESH_INCIDENT_GAUGES,
  MESH_METRICS,
  type Metric,
  MONITOR_COUNTERS,
  MONITOR_GAUGES,
  PAIR_METRICS,
  pairMetricName,
  type Refusal,
  REFUSALS,
  SELF_METRICS,
  TRAINING_METRICS,
  type TrainingOutcome,
  UNTRAINED_REASONS,
  type UntrainedReason,
} from '../core/metric-names.js'
import type { BaselineSummary } from '../core/mesh-baselines.js'
import type { Pair } from '../core/pair.js'
import type { PollOutcome } from '../core/reading.js'
import { type Evaluation, type Verdict, VERDICTS } from '../core/score.js'
import type { Shard } from '../core/shard.js'
import type { Clock } from './clock.js'
import type { Runtime } from './runtime.js'

const gzip = promisify(gzipWithCallback)

/** What is served under /metrics: rendered once a poll, however many scrapers there are. */
export interface Exposition {
  readonly contentType: string
  /** The last rendered snapshot. */
  read(): Buffer
  /** The same, compressed off the event loop when someone asks for it first. */
  readGzipped(): Promise<Buffer>
  render(): Promise<void>
}

/** @param takeRendered - hands over what else there is to serve, each time anew */
export async function createExposition(
  { clock }: Pick<Runtime, 'clock'>,
  registry: Registry,
  takeRendered: () => readonly Uint8Array[] = () => [],
): Promise<Exposition> {
  const process = createProcessMetrics(clock)
  const render = async (): Promise<Buffer> => {
    const own = `${await registry.metrics()}\n`
    return Buffer.concat([Buffer.from(own), ...takeRendered(), Buffer.from(await process())])
  }
  let snapshot = await render()
  let gzipped: Promise<Buffer> | null = null
  return {
    contentType: registry.contentType,
    read: () => snapshot,
    readGzipped: () => (gzipped ??= gzip(snapshot, { level: constants.Z_BEST_SPEED })),
    render: async () => {
      snapshot = await render()
      gzipped = null
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
  for (const part of LOOP_PARTS) registry.removeSingleMetric(`nodejs_eventloop_lag_${part}_seconds`)
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

/** Node adds the time between two samples to each delay: half a second that nothing was late. The lag itself is measured apart. */
const LOOP_PARTS = ['min', 'max', 'mean', 'stddev', 'p50', 'p90', 'p99']

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
        const values = quantileValues(evaluation, quantile)
        for (const key of QUANTILE_GAUGES) {
          setOrRemove(labelled[key], { ...labels, quantile: String(quantile) }, values[key])
          if (i === 0 && key in named) setOrRemove(named[key as keyof typeof named], {}, values[key])
        }
      })
      const values = pairValues(evaluation)
      for (const key of PAIR_GAUGES) setOrRemove(labelled[key], labels, values[key])
      setOrRemove(named.anomalyCount, {}, values.anomalyCount)
      anomalies.inc(labels, evaluation.anomalyCount ?? 0)
    },
  }
}

/** How many edges a poll of a mesh came to what. */
export interface MeshCounts {
  readonly verdicts: Readonly<Record<Verdict, number>>
  readonly outcomes: Readonly<Partial<Record<PollOutcome, number>>>
  /** Null when there was no answer that would hold any. */
  readonly refused: Readonly<Record<Refusal, number>> | null
}

export interface MeshGauges {
  publish(counts: MeshCounts): void
}

/** A mesh's own gauges; those of its edges are too many for prom-client. */
export function createMeshGauges(registry: Registry, { ordinal, count }: Shard): MeshGauges {
  const edges = gauge(registry, MESH_METRICS.edges)
  const refusals = gauge(registry, MESH_METRICS.refused)
  const readings = counter(registry, MESH_METRICS.readings)
  gauge(registry, MESH_METRICS.shardOrdinal).set(ordinal)
  gauge(registry, MESH_METRICS.shards).set(count)
  return {
    publish: ({ verdicts, outcomes, refused }) => {
      for (const state of VERDICTS) edges.set({ state }, verdicts[state])
      for (const reason of REFUSALS) setOrRemove(refusals, { reason }, refused?.[reason])
      for (const [outcome, count] of Object.entries(outcomes)) readings.inc({ outcome }, count)
    },
  }
}

export interface BaselineGauges {
  publish(summary: BaselineSummary): void
}

export function createBaselineGauges(registry: Registry): BaselineGauges {
  const gauges = mapValues(BASELINE_METRICS, (metric) => gauge(registry, metric))
  return {
    publish: ({ edges, samples, oldestSeconds }) => {
      gauges.edges.set(edges)
      gauges.samples.set(samples)
      setOrRemove(gauges.oldest, {}, oldestSeconds)
    },
  }
}

export interface TrainingGauges {
  trained(outcome: TrainingOutcome): void
  progress(ratio: number): void
  untrained(edges: Readonly<Record<UntrainedReason, number>>): void
}

export function createTrainingGauges(registry: Registry): TrainingGauges {
  const untrained = gauge(registry, TRAINING_METRICS.untrained)
  const progress = gauge(registry, TRAINING_METRICS.progress)
  const trainings = counter(registry, TRAINING_METRICS.trainings)
  return {
    trained: (outcome) => trainings.inc({ outcome }),
    progress: (ratio) => progress.set(ratio),
    untrained: (edges) => {
      for (const reason of UNTRAINED_REASONS) untrained.set({ reason }, edges[reason])
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

export interface MeshIncidentGauges {
  /** @param monitors - how many Prometheus knows of */
  publish(state: MeshState, monitors: number): void
  /** Counts what a live poll did. */
  count(incidents: readonly IncidentStep[]): void
  /** The accumulators, rendered: they are too many for prom-client, and their names are anyone's. */
  readonly rendered: () => readonly Uint8Array[]
}

export function createMeshIncidentGauges(registry: Registry): MeshIncidentGauges {
  const { accumulator, ...whole } = INCIDENT_GAUGES
  const gauges = mapValues({ ...whole, ...MESH_INCIDENT_GAUGES }, (metric) => gauge(registry, metric))
  const counted = counter(registry, INCIDENT_COUNTERS.incidents)
  const head = `# HELP ${accumulator.name} ${accumulator.help}\n# TYPE ${accumulator.name} ${accumulator.type}\n`
  let rendered = Buffer.from(head)
  return {
    publish: (state, monitors) => {
      const { edges, incidents } = state
      gauges.temperature.set(meshTemperature(state))
      gauges.severity.set(meshSeverity(state) ?? NO_SEVERITY)
      gauges.sev1.set(incidents.some(({ severity }) => severity === 1) ? 1 : 0)
      gauges.sev2.set(incidents.some(({ severity }) => severity === 2) ? 1 : 0)
      setOrRemove(gauges.started, {}, incidents[0]?.startedSeconds)
      gauges.open.set(incidents.length)
      gauges.warmEdges.set(edges.length)
      gauges.monitors.set(monitors)
      const temperatures = new Map<string | null, number>()
      for (const { incident, accumulator: level } of edges) {
        temperatures.set(incident, (temperatures.get(incident) ?? 0) + level)
      }
      gauges.incidentTemperature.reset()
      for (const incident of incidents) {
        const labels = { incident: meshIncidentId(incident) }
        gauges.incidentTemperature.set(labels, temperatures.get(incident.key) ?? 0)
      }
      const lines = edges.map((edge) => `${accumulator.name}{${edgeLabels(edge)}} ${edge.accumulator}\n`)
      rendered = Buffer.from(head + lines.join(''))
    },
    count: (incidents) => {
      for (const { happened, after } of incidents) {
        if (after.open === null || (happened !== 'opened' && happened !== 'escalated')) continue
        counted.inc({ severity: String(after.open.severity) })
      }
    },
    rendered: () => [rendered],
  }
}

function mapValues<K extends string, A, B>(record: Readonly<Record<K, A>>, map: (value: A) => B): Record<K, B> {
  return Object.fromEntries(Object.entries<A>(record).map(([key, value]) => [key, map(value)])) as Record<K, B>
}
