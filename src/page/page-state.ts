/*
 * What the page is told: the JSON of GET /api/state, as the daemon writes it and the browser reads it. Times of samples are
 * Prometheus's, all others are the daemon's; the two are never compared, only differences of one with the other's.
 */
import type { EdgeCourse } from '../core/edge-course.js'
import type { IncidentRules, OpenIncident, PairVerdict, Severity, TimingContract } from '../core/incident.js'
import type { Pair } from '../core/pair.js'
import type { PollOutcome } from '../core/reading.js'
import type { Evaluation, ScoringRules } from '../core/score.js'
import type { MeshIncidentView } from './mesh-incident-page.js'
import type { MeshMonitorView } from './mesh-monitor-page.js'

export interface PageState {
  readonly version: string
  /** When the daemon began to poll, unix seconds. */
  readonly startedSeconds: number
  readonly pollIntervalSeconds: number
  /** Null until the first poll has ended. */
  readonly poll: LastPoll | null
  /** Null when the daemon has nothing to show of its own. */
  readonly view: MonitorView | IncidentView | MeshMonitorView | MeshIncidentView | null
}

export interface LastPoll {
  readonly endedSeconds: number
  readonly outcome: PollOutcome
  readonly detail: string
  /** Whether Prometheus said something that could be read, if only that there is nothing. */
  readonly answered: boolean
  /** The end of the first of the polls in a row that were answered, or were not. */
  readonly sinceSeconds: number
}

/** What a baseline was made of. */
export interface TrainingFacts {
  readonly model: string
  readonly file: string
  readonly series: readonly {
    readonly quantile: number
    readonly samples: number
    readonly fromSeconds: number
    readonly toSeconds: number
  }[]
}

export interface MonitorFacts {
  readonly pair: Pair
  readonly query: string
  readonly rules: ScoringRules
  /** Null when whoever made the monitor did not say. */
  readonly training: TrainingFacts | null
}

export interface MonitorView extends MonitorFacts {
  readonly kind: 'monitor'
  /** What the last poll came to. */
  readonly evaluation: Evaluation | null
  /** The newest that had a sample, and when it came. */
  readonly sampled: { readonly evaluation: Evaluation; readonly receivedSeconds: number } | null
  readonly history: EdgeCourse
}

export interface IncidentFacts {
  readonly rules: IncidentRules
  readonly contract: TimingContract
}

export interface IncidentView extends IncidentFacts {
  readonly kind: 'incident'
  /** After the newest poll that Prometheus holds; null until there is one. */
  readonly now: IncidentNow | null
  readonly history: TemperatureHistory
}

export interface IncidentNow {
  readonly timestampSeconds: number
  readonly receivedSeconds: number
  readonly temperature: number
  readonly open: OpenIncident | null
  /** Why an incident is expected now, in a maintenance window; null outside of one. */
  readonly expected: string | null
  /** In the order of the rules. */
  readonly pairs: readonly {
    readonly accumulator: number
    readonly verdict: PairVerdict
    /** By Prometheus's clock; null for never. */
    readonly heardSeconds: number | null
  }[]
}

/** Polls in time order, a column each. */
export interface TemperatureHistory {
  readonly timesSeconds: readonly number[]
  readonly temperatures: readonly number[]
  readonly severities: readonly (Severity | 0)[]
  /** Pairs that were not cold all the time, by their place in the rules. */
  readonly accumulators: readonly { readonly pair: number; readonly levels: readonly number[] }[]
}
