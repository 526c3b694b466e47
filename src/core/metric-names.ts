import type { Pair } from './pair.js'
import { POLL_OUTCOMES } from './reading.js'
import { VERDICTS } from './score.js'

/** A metric as the outside sees it. Dashboards, rules and manifests are held against these by a test. */
export interface Metric {
  readonly name: string
  readonly type: 'gauge' | 'counter' | 'histogram'
  readonly help: string
  readonly labels: readonly string[]
  /** For a label whose every value is known beforehand. */
  readonly values?: readonly string[]
}

/** Why an edge of a mesh is not watched. */
export const REFUSALS = ['max_edges', 'unknown', 'bad_name'] as const
export type Refusal = (typeof REFUSALS)[number]

/** Why an edge cannot be trained on its history. */
export const TRAINING_TROUBLES = ['no_history', 'too_short', 'incident', 'unusable', 'failed'] as const
export type TrainingTrouble = (typeof TRAINING_TROUBLES)[number]

/** What training an edge came to; kept: it was hot a moment ago, and has the baseline it had. */
export const TRAINING_OUTCOMES = ['fitted', 'kept', ...TRAINING_TROUBLES] as const
export type TrainingOutcome = (typeof TRAINING_OUTCOMES)[number]

/** Why a watched edge has no baseline; pending: it is being trained, or waits for that. */
export const UNTRAINED_REASONS = ['pending', ...TRAINING_TROUBLES] as const
export type UntrainedReason = (typeof UNTRAINED_REASONS)[number]

const PAIR = ['source', 'destination'] as const
const SCORED = [...PAIR, 'quantile'] as const

const MAE_HELP = 'Absolute error |y - yhat| of the last sample in milliseconds (scikit-learn: mean_absolute_error)'
const MAPE_HELP =
  'Absolute percentage error |y - yhat| / |y| of the last sample, a ratio (scikit-learn: mean_absolute_percentage_error); absent when y is 0'

/** The monitor's, with labels. */
export const MONITOR_GAUGES = {
  anomalyCount: {
    name: 'lab7_anomaly_count',
    type: 'gauge',
    help: 'How many of the scored quantiles were anomalous in the last poll',
    labels: PAIR,
  },
  mae: { name: 'lab7_mae', type: 'gauge', help: MAE_HELP, labels: SCORED },
  mape: { name: 'lab7_mape', type: 'gauge', help: MAPE_HELP, labels: SCORED },
  y: { name: 'lab7_y', type: 'gauge', help: 'Measured latency in milliseconds', labels: SCORED },
  yMin: { name: 'lab7_y_min', type: 'gauge', help: 'Lower edge of the expected band in milliseconds', labels: SCORED },
  yMax: { name: 'lab7_y_max', type: 'gauge', help: 'Upper edge of the expected band in milliseconds', labels: SCORED },
  yhat: { name: 'lab7_yhat', type: 'gauge', help: 'Expected latency in milliseconds', labels: SCORED },
  score: {
    name: 'lab7_anomaly_score',
    type: 'gauge',
    help: 'How far out the last sample was: 1 on the edge of the band, 2 twice as far; 0 or more',
    labels: SCORED,
  },
  saturated: {
    name: 'lab7_saturated',
    type: 'gauge',
    help: '1 when latency is beyond the last bucket of the histogram, so that it may be any amount worse, else 0',
    labels: SCORED,
  },
  drift: {
    name: 'lab7_training_drift_ratio',
    type: 'gauge',
    help: 'Normal latency now over normal latency in the training data, as far as the model follows it',
    labels: SCORED,
  },
  beyondTraining: {
    name: 'lab7_traffic_beyond_training',
    type: 'gauge',
    help: '1 when there is more traffic than the training data holds, and the band is wider for it, else 0',
    labels: PAIR,
  },
  verdict: {
    name: 'lab7_verdict',
    type: 'gauge',
    help: 'Verdict of the last poll: 1 for the one that holds, 0 for the others',
    labels: [...PAIR, 'verdict'],
    values: VERDICTS,
  },
  requestsPerSecond: {
    name: 'lab7_requests_per_second',
    type: 'gauge',
    help: 'Requests per second of the pair in the query window',
    labels: PAIR,
  },
  sampleTimestamp: {
    name: 'lab7_sample_timestamp_seconds',
    type: 'gauge',
    help: 'When the last sample was evaluated by Prometheus, unix seconds',
    labels: PAIR,
  },
} as const satisfies Readonly<Record<string, Metric>>

export const MONITOR_COUNTERS = {
  anomalies: {
    name: 'lab7_anomalies_total',
    type: 'counter',
    help: 'Anomalies found since the start, one per anomalous quantile and poll',
    labels: PAIR,
  },
} as const satisfies Readonly<Record<string, Metric>>

/** Of a monitor that watches a whole mesh, or a shard of it. */
export const MESH_METRICS = {
  edges: {
    name: 'meshfever_edges',
    type: 'gauge',
    help: 'Edges that are watched, by the verdict of the last poll',
    labels: ['state'],
    values: VERDICTS,
  },
  refused: {
    name: 'meshfever_edges_refused',
    type: 'gauge',
    help: 'Edges of the last answer that are not watched: no room within --max-edges, an end that Istio does not know, or a name that is none',
    labels: ['reason'],
    values: REFUSALS,
  },
  readings: {
    name: 'meshfever_edge_readings_total',
    type: 'counter',
    help: 'Readings of edges by what they came to, one per watched edge and poll',
    labels: ['outcome'],
    values: POLL_OUTCOMES,
  },
  shardOrdinal: {
    name: 'meshfever_shard_ordinal',
    type: 'gauge',
    help: 'Which shard of the mesh this monitor watches, from 1 to meshfever_shards',
    labels: [],
  },
  shards: {
    name: 'meshfever_shards',
    type: 'gauge',
    help: 'Into how many shards this monitor takes the mesh to be divided',
    labels: [],
  },
} as const satisfies Readonly<Record<string, Metric>>

/** Of a mesh's monitor, about its baselines. */
export const BASELINE_METRICS = {
  edges: {
    name: 'meshfever_baseline_edges',
    type: 'gauge',
    help: 'Edges that have a baseline',
    labels: [],
  },
  samples: {
    name: 'meshfever_baseline_training_samples',
    type: 'gauge',
    help: 'Samples that the baselines were trained on, one per time and edge, all edges together',
    labels: [],
  },
  oldest: {
    name: 'meshfever_baseline_oldest_timestamp_seconds',
    type: 'gauge',
    help: 'When the oldest of the baselines was made, unix seconds',
    labels: [],
  },
} as const satisfies Readonly<Record<string, Metric>>

/** Of a monitor that trains from Prometheus's history, besides. */
export const TRAINING_METRICS = {
  untrained: {
    name: 'meshfever_edges_without_baseline',
    type: 'gauge',
    help: 'Watched edges that have no baseline, by what their last training came to; pending: not yet tried',
    labels: ['reason'],
    values: UNTRAINED_REASONS,
  },
  progress: {
    name: 'meshfever_training_progress_ratio',
    type: 'gauge',
    help: 'Share of the edges of the training under way, or of the last one, that are done',
    labels: [],
  },
  trainings: {
    name: 'meshfever_trainings_total',
    type: 'counter',
    help: 'Trainings of edges by what they came to',
    labels: ['outcome'],
    values: TRAINING_OUTCOMES,
  },
} as const satisfies Readonly<Record<string, Metric>>

/** The incident daemon's. */
export const INCIDENT_GAUGES = {
  temperature: {
    name: 'lab7_incident_temperature',
    type: 'gauge',
    help: 'Sum of the accumulators of all pairs',
    labels: [],
  },
  accumulator: {
    name: 'lab7_incident_accumulator',
    type: 'gauge',
    help: 'Heat of a pair: rises by its anomaly count, falls on ok polls, stays in silence',
    labels: PAIR,
  },
  severity: {
    name: 'lab7_incident_severity',
    type: 'gauge',
    help: 'Severity of the open incident, the worst of several: 1 several pairs hot, 2 one pair, 0 no incident',
    labels: [],
  },
  sev1: { name: 'lab7_incident_sev1', type: 'gauge', help: '1 while a Sev 1 incident is open, else 0', labels: [] },
  sev2: { name: 'lab7_incident_sev2', type: 'gauge', help: '1 while a Sev 2 incident is open, else 0', labels: [] },
  started: {
    name: 'lab7_incident_started_timestamp_seconds',
    type: 'gauge',
    help: 'When the open incident began, unix seconds, the oldest of several; absent without one',
    labels: [],
  },
} as const satisfies Readonly<Record<string, Metric>>

/** The incident daemon's for a whole mesh, besides. Of the accumulators only those above 0 are exported. */
export const MESH_INCIDENT_GAUGES = {
  open: {
    name: 'lab7_incident_open',
    type: 'gauge',
    help: 'How many incidents are open, each with its own part of the mesh',
    labels: [],
  },
  incidentTemperature: {
    name: 'lab7_incident_component_temperature',
    type: 'gauge',
    help: 'Sum of the accumulators of the pairs of one open incident',
    labels: ['incident'],
  },
  warmEdges: {
    name: 'lab7_incident_warm_edges',
    type: 'gauge',
    help: 'Edges whose accumulator is above 0',
    labels: [],
  },
  monitors: {
    name: 'lab7_incident_monitors',
    type: 'gauge',
    help: 'Monitors that Prometheus knew of at the last poll',
    labels: [],
  },
} as const satisfies Readonly<Record<string, Metric>>

export const INCIDENT_COUNTERS = {
  incidents: {
    name: 'lab7_incidents_total',
    type: 'counter',
    help: 'Incidents that reached a severity since the start of the process; one that escalates counts under both',
    labels: ['severity'],
    values: ['1', '2'],
  },
} as const satisfies Readonly<Record<string, Metric>>

/** Of both daemons, about themselves. */
export const SELF_METRICS = {
  buildInfo: {
    name: 'meshfever_build_info',
    type: 'gauge',
    help: 'Always 1; the labels say what runs',
    labels: ['version', 'node_version', 'command'],
  },
  polls: {
    name: 'meshfever_polls_total',
    type: 'counter',
    help: 'Polls of Prometheus by what they came to',
    labels: ['outcome'],
    values: POLL_OUTCOMES,
  },
  pollDuration: {
    name: 'meshfever_poll_duration_seconds',
    type: 'histogram',
    help: 'Duration of a poll, from the request until its result was published',
    labels: [],
  },
  pollsSkipped: {
    name: 'meshfever_polls_skipped_total',
    type: 'counter',
    help: 'Polls that were left out because an earlier one still ran in their slot',
    labels: [],
  },
  lastSuccess: {
    name: 'meshfever_last_success_timestamp_seconds',
    type: 'gauge',
    help: 'When a poll was last answered with something that could be used, unix seconds',
    labels: [],
  },
} as const satisfies Readonly<Record<string, Metric>>

/** The lab's gauges carry the pair in their name: lab7_A_to_B_anomaly_count. What a name cannot hold becomes `_`. */
export const PAIR_METRICS = {
  anomalyCount: { suffix: 'anomaly_count', help: MONITOR_GAUGES.anomalyCount.help },
  mae: { suffix: 'mae', help: MAE_HELP },
  mape: { suffix: 'mape', help: MAPE_HELP },
  y: { suffix: 'y', help: MONITOR_GAUGES.y.help },
  yMin: { suffix: 'y_min', help: MONITOR_GAUGES.yMin.help },
  yMax: { suffix: 'y_max', help: MONITOR_GAUGES.yMax.help },
  yhat: { suffix: 'yhat', help: MONITOR_GAUGES.yhat.help },
} as const

export function pairMetricName({ source, destination }: Pair, suffix: string): string {
  return `lab7_${source}_to_${destination}_${suffix}`.replace(/[^a-zA-Z0-9_]/g, '_')
}

/** The incident daemon's, about what it tells Alertmanager. */
export const NOTIFIER_METRICS = {
  notifications: {
    name: 'meshfever_notifications_total',
    type: 'counter',
    help: 'Posts of alerts to an Alertmanager by what they came to',
    labels: ['result'],
    values: ['sent', 'failed', 'rejected'],
  },
  pending: {
    name: 'meshfever_notifications_pending',
    type: 'gauge',
    help: 'Alertmanagers that have not taken the newest alerts yet',
    labels: [],
  },
  expected: {
    name: 'lab7_incident_expected',
    type: 'gauge',
    help: '1 while a maintenance window marks incidents as expected, else 0',
    labels: [],
  },
} as const satisfies Readonly<Record<string, Metric>>
