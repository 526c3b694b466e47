import { ISTIO_BUCKETS_MS } from '../core/istio-buckets.js'
import { type Pair, pairKey } from '../core/pair.js'
import { type PairQuery, requestsByBucket } from '../core/promql.js'
import type { Vector } from '../core/series.js'
import { queryInstant } from '../io/prometheus.js'
import type { Runtime } from '../io/runtime.js'
import type { Fault } from './experiment-file.js'
import type { FaultEffect, PairEffect } from './outcome.js'

/** How a pair is found among Istio's metrics, and where. */
export interface LatencySource extends Pick<PairQuery, 'sourceLabel' | 'destinationLabel'> {
  readonly prometheusUrl: string
}

/** Looks whether faults take effect: at what the callers' sidecars measured, where an injected delay is. */
export interface EffectWatch {
  /** Remembers what is normal. @param rangeSeconds - the time until now that was */
  readonly learn: (pairs: readonly Pair[], rangeSeconds: number) => Promise<void>
  /** Looks at a fault's pairs. @param inForceSeconds - since when it is in force */
  readonly look: (fault: Fault, inForceSeconds: number) => Promise<void>
  /** In the order in which the faults were first looked at. */
  readonly effects: () => readonly FaultEffect[]
}

/** Requests by the upper bound of their bucket, rising, each with those of the buckets below. */
type Distribution = readonly { readonly boundMs: number; readonly requests: number }[]

const DEADLINE_MS = 10_000

/** Of the delay: a request that had it is slower than the median by more than this share of it. */
const CLEARLY = 0.75
/** Of the requests that should be delayed: so many must be, more than in training. */
const MOST = 0.5

export function createEffectWatch(
  runtime: Runtime,
  { source, windowSeconds }: { readonly source: LatencySource; readonly windowSeconds: number },
): EffectWatch {
  const normal = new Map<string, Distribution>()
  const seen = new Map<Fault, PairEffect[]>()

  const ask = async (pair: Pair, rangeSeconds: number): Promise<Distribution> => {
    const query = requestsByBucket({ ...source, pair, reporter: 'source', window: promDuration(rangeSeconds) })
    const answer = await queryInstant(runtime, { ...source, query, deadlineMs: DEADLINE_MS })
    return answer.kind === 'answer' ? distributionOf(answer.data) : []
  }

  return {
    learn: async (pairs, rangeSeconds) => {
      for (const pair of pairs) normal.set(pairKey(pair), await ask(pair, rangeSeconds))
    },
    look: async (fault, inForceSeconds) => {
      const rangeSeconds = Math.min(windowSeconds, Math.max(inForceSeconds, 0.001))
      const before = seen.get(fault)
      const now = await Promise.all(
        fault.pairs.map(async (pair, i) => {
          const known = before?.[i] ?? firstLook(normal.get(pairKey(pair)) ?? [], fault.delayMs)
          const share = slowerShare(await ask(pair, rangeSeconds), known.boundMs)
          return nextLook(known, { share, fault, inForceSeconds })
        }),
      )
      seen.set(fault, now)
    },
    effects: () => [...seen].map(([fault, pairs]) => ({ fault, pairs })),
  }
}

function firstLook(normal: Distribution, delayMs: number): PairEffect {
  const boundMs = boundOver(normal, delayMs)
  return { boundMs, shareBefore: slowerShare(normal, boundMs), shareSince: null, seenAfterSeconds: null }
}

function nextLook(
  known: PairEffect,
  {
    share,
    fault,
    inForceSeconds,
  }: { readonly share: number | null; readonly fault: Fault; readonly inForceSeconds: number },
): PairEffect {
  if (share === null) return known
  const before = known.shareBefore ?? 0
  const took = share >= before + MOST * (fault.percent / 100) * (1 - before)
  return {
    ...known,
    shareSince: Math.max(share, known.shareSince ?? 0),
    seenAfterSeconds: known.seenAfterSeconds ?? (took ? inForceSeconds : null),
  }
}

/** The highest bound that a delayed request is sure to be slower than; the lowest one there is when none is. */
function boundOver(normal: Distribution, delayMs: number): number {
  const total = normal.at(-1)?.requests ?? 0
  const middle = normal.findIndex(({ requests }) => requests >= total / 2)
  const medianMs = normal[middle - 1]?.boundMs ?? 0
  const bounds = normal.length === 0 ? ISTIO_BUCKETS_MS : normal.map(({ boundMs }) => boundMs)
  return bounds.findLast((boundMs) => boundMs <= medianMs + CLEARLY * delayMs) ?? bounds[0] ?? 0
}

/** Null without requests. */
function slowerShare(distribution: Distribution, boundMs: number): number | null {
  const total = distribution.at(-1)?.requests ?? 0
  if (!(total > 0)) return null
  const within = distribution.findLast((bucket) => bucket.boundMs <= boundMs)?.requests ?? 0
  return 1 - within / total
}

function distributionOf({ result }: Vector): Distribution {
  return result
    .map(({ labels, value }) => ({
      boundMs: Number((labels.get('le') ?? '').replace('+Inf', 'Infinity')),
      requests: value ?? 0,
    }))
    .filter(({ boundMs }) => !Number.isNaN(boundMs))
    .sort((a, b) => a.boundMs - b.boundMs)
}

/** Prometheus takes whole milliseconds. */
export function promDuration(seconds: number): string {
  return `${Math.max(1, Math.round(seconds * 1000))}ms`
}
