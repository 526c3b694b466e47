import type { GroundTruth } from '../core/ground-truth.js'
import type { Severity, Transition } from '../core/incident.js'
import type { Pair } from '../core/pair.js'
import type { Verdict } from '../core/score.js'

/** One pair over the time that is reported on. Points in time order. */
export interface ReportedPair {
  readonly pair: Pair
  /** Which quantile of latency is drawn. */
  readonly quantile: number
  readonly points: readonly {
    readonly timestampSeconds: number
    /** Null where there was no sample. */
    readonly yMs: number | null
    readonly yhatMs: number | null
    readonly yMinMs: number | null
    readonly yMaxMs: number | null
    readonly verdict: Verdict
  }[]
  readonly accumulatorThreshold: number
}

/** The incident rule's state after one poll. */
export interface ReportedPoll {
  readonly timestampSeconds: number
  /** In the order of the pairs. */
  readonly accumulators: readonly number[]
  readonly temperature: number
  readonly severity: Severity | null
}

export interface ReportedTransition {
  readonly timestampSeconds: number
  readonly transition: Transition
  readonly severity: Severity | null
  /** As evidence tells it, a sentence a line; may be empty. */
  readonly text: readonly string[]
}

export interface Table {
  readonly title: string
  readonly columns: readonly string[]
  /** A number is aligned to the right; null is shown as a dash. */
  readonly rows: readonly (readonly (string | number | null)[])[]
  /** Said below the table; may be empty. */
  readonly note: string
}

/** A trade-off: each point is one setting, named. */
export interface TradeOff {
  readonly title: string
  readonly xTitle: string
  readonly yTitle: string
  /** Points of one series are joined in order. */
  readonly points: readonly {
    readonly series: string
    readonly label: string
    readonly x: number
    readonly y: number
  }[]
}

/** All that a report shows: an experiment's, or a backtest's. */
export interface Report {
  readonly title: string
  /** Plain sentences under the title: what was run, with what, and what came out. */
  readonly summary: readonly string[]
  /** True when the run ended before its end. */
  readonly partial: boolean
  readonly startSeconds: number
  readonly endSeconds: number
  readonly pairs: readonly ReportedPair[]
  readonly polls: readonly ReportedPoll[]
  readonly transitions: readonly ReportedTransition[]
  readonly groundTruth: GroundTruth
  readonly incidentThreshold: number
  readonly clearThreshold: number
  readonly tables: readonly Table[]
  readonly tradeOffs: readonly TradeOff[]
}
