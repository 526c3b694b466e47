import {
  factsQuery,
  gaugesQuery,
  type IstioNaming,
  type MeshFacts,
  type PairGauges,
  readFacts,
  readGauges,
} from '../core/edge-facts.js'
import {
  askedPairs,
  DEFAULT_QUANTILE,
  type Evidence,
  evidenceOf,
  firstAnomalousSeconds,
  type Happened,
  toldPairs,
  type Unanswered,
} from '../core/evidence.js'
import type { IncidentRules } from '../core/incident.js'
import { pairKey } from '../core/pair.js'
import type { Vector } from '../core/series.js'
import { queryInstant } from './prometheus.js'
import type { Runtime } from './runtime.js'

export interface EvidenceSourceConfig {
  readonly rules: IncidentRules
  readonly prometheusUrl: string
  readonly istio: IstioNaming
}

export interface EvidenceSource {
  /** Never rejects, and never without a packet: what is not answered within `deadlineMs` is named in it. */
  readonly gather: (happened: Happened, deadlineMs: number) => Promise<Evidence>
}

/** Asks Prometheus about a transition, at the pinned time of its poll. */
export function createEvidenceSource(
  { rules, prometheusUrl, istio }: EvidenceSourceConfig,
  runtime: Runtime,
): EvidenceSource {
  const { clock, signal } = runtime

  const ask = async <T>(query: string, deadlineMs: number, read: Read<T>): Promise<T | Unanswered> => {
    if (signal.aborted) return { unanswered: 'stopped' }
    if (deadlineMs <= 0) return { unanswered: 'no time was left' }
    const answer = await queryInstant(runtime, { prometheusUrl, query, deadlineMs })
    return answer.kind === 'failure' ? { unanswered: `${answer.outcome}: ${answer.detail}` } : read(answer.data)
  }

  return {
    gather: async (happened, deadlineMs) => {
      const endMs = clock.monotonicMs() + deadlineMs
      const { timestampSeconds: atSeconds } = happened
      const pairs = askedPairs(happened, rules)
      // The first may not use up all the time of the second.
      const gauges = await ask<ReadonlyMap<string, PairGauges>>(
        gaugesQuery(toldPairs(happened, rules), atSeconds),
        deadlineMs / 2,
        readGauges,
      )
      // One for all pairs: what moves a lower quantile moves a higher one, too.
      const quantiles = 'unanswered' in gauges ? [] : pairs.map((pair) => gauges.get(pairKey(pair))?.quantile ?? 0)
      const request = {
        pairs,
        quantile: Math.max(0, ...quantiles) || DEFAULT_QUANTILE,
        atSeconds,
        firstAnomalousSeconds: firstAnomalousSeconds(happened),
        istio,
      }
      const facts = await ask<MeshFacts>(factsQuery(request), endMs - clock.monotonicMs(), (vector) =>
        readFacts(vector, request),
      )
      return evidenceOf(happened, { gauges, facts }, { rules, istio })
    },
  }
}

type Read<T> = (vector: Vector) => T
