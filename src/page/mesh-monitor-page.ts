import type { EdgeCourse } from '../core/edge-course.js'
import type { MeshEdge } from '../core/mesh-edges.js'
import type { Refusal } from '../core/metric-names.js'
import type { Pair } from '../core/pair.js'
import type { ScoringRules, Verdict } from '../core/score.js'
import type { Shard } from '../core/shard.js'
import { type EdgeMatches, matching } from './edge-list.js'
import { type Point, withPoint } from './ring.js'

export interface MeshMonitorFacts {
  readonly query: string
  readonly rules: ScoringRules
  /** Those that are scored, in order. */
  readonly quantiles: readonly number[]
  readonly shard: Shard
  readonly maxEdges: number
}

/** What there is to show of a monitor that watches a whole mesh, or a shard of it. */
export interface MeshMonitorView extends MeshMonitorFacts {
  readonly kind: 'mesh-monitor'
  /** After the newest poll that was answered; null until there is one. */
  readonly now: MeshMonitorNow | null
  /** Polls of the last half hour in time order, a column each; null where a poll was not answered. */
  readonly history: {
    /** By the daemon's clock. */
    readonly timesSeconds: readonly number[]
    readonly edges: readonly (number | null)[]
    readonly anomalous: readonly (number | null)[]
  }
}

export interface MeshMonitorNow extends MeshMonitorCounts, EdgeMatches<ScoredEdge> {
  readonly receivedSeconds: number
}

export interface MeshMonitorCounts {
  /** Of the edges that are watched. */
  readonly verdicts: Readonly<Record<Verdict, number>>
  /** Edges that other shards watch. */
  readonly elsewhere: number
  /** Edges that are not watched. */
  readonly refused: Readonly<Record<Refusal, number>>
}

/** An edge as the last poll found it, by the quantile that is furthest out; null for what is not known. */
export interface ScoredEdge extends Pair {
  readonly verdict: Verdict
  readonly score: number | null
  readonly yMs: number | null
  readonly yhatMs: number | null
}

/** What GET api/edge answers of it. */
export interface LookedAtEdge extends ScoredEdge {
  /** As far as Prometheus holds what the monitor exported. */
  readonly history: EdgeCourse
}

export interface MeshMonitorPage {
  /**
   * A poll is over.
   *
   * @param counts - null when it was not answered
   */
  note(edges: Iterable<MeshEdge>, counts: MeshMonitorCounts | null, nowSeconds: number): void
  readonly view: () => MeshMonitorView
}

interface Polled extends Point {
  readonly edges: number | null
  readonly anomalous: number | null
}

/** Keeps what the page shows of a mesh: the hottest edges after the last poll, and half an hour of counts. */
export function createMeshMonitorPage(facts: MeshMonitorFacts): MeshMonitorPage {
  let points: readonly Polled[] = []
  let now: MeshMonitorNow | null = null
  return {
    note: (edges, counts, nowSeconds) => {
      const total = counts === null ? null : Object.values(counts.verdicts).reduce((sum, count) => sum + count, 0)
      const anomalous = counts?.verdicts.anomalous ?? null
      points = withPoint(points, { timeSeconds: nowSeconds, edges: total, anomalous })
      if (counts !== null) now = { ...counts, receivedSeconds: nowSeconds, ...findScored(edges, '') }
    },
    view: () => ({
      kind: 'mesh-monitor',
      ...facts,
      now,
      history: {
        timesSeconds: points.map(({ timeSeconds }) => timeSeconds),
        edges: points.map(({ edges }) => edges),
        anomalous: points.map(({ anomalous }) => anomalous),
      },
    }),
  }
}

/** The hottest of the edges that a text finds. */
export function findScored(edges: Iterable<MeshEdge>, text: string): EdgeMatches<ScoredEdge> {
  return matching(edges, text, { pairOf: ({ pair }) => pair, heatOf, shown: scoredEdge })
}

/** Edges without a score come last, those that were never scored after them. */
function heatOf({ score, verdict }: MeshEdge): number {
  return score ?? (verdict === 'warming' || verdict === null ? -2 : -1)
}

export function scoredEdge({ pair, verdict, score, yMs, yhatMs }: MeshEdge): ScoredEdge {
  return { ...pair, verdict: verdict ?? 'warming', score: short(score), yMs: short(yMs), yhatMs: short(yhatMs) }
}

/** Digits that a list can show. */
function short(value: number | null): number | null {
  return value === null ? null : Number(value.toPrecision(4))
}
