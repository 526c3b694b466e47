import type { Pair } from './pair.js'
import type { Matrix } from './series.js'
import { LATENCY_COUNT } from './examination-queries.js'

interface PairLabels {
  readonly sourceLabel: string
  readonly destinationLabel: string
}

/** Shorter steps than this find no more pairs. */
export const LEAST_STEP_SECONDS = 300

/** Which pairs the callers' sidecars counted requests of, at each step since the step before. */
export function meshPairsQuery({ sourceLabel, destinationLabel }: PairLabels, stepSeconds: number): string {
  return `count by (${sourceLabel}, ${destinationLabel}) (count_over_time(${LATENCY_COUNT}{reporter="source"}[${Math.round(stepSeconds * 1000)}ms]))`
}

/** The pairs in an answer to `meshPairsQuery`, sorted; apart from them those with a side that Istio does not know. */
export function meshPairsOf(
  { result }: Matrix,
  { sourceLabel, destinationLabel }: PairLabels,
): { readonly known: readonly Pair[]; readonly unknown: readonly Pair[] } {
  const pairs = result
    .map(({ labels }) => ({ source: labels.get(sourceLabel) ?? '', destination: labels.get(destinationLabel) ?? '' }))
    .sort((a, b) => compare(a.source, b.source) || compare(a.destination, b.destination))
  const isKnown = ({ source, destination }: Pair): boolean =>
    [source, destination].every((name) => name !== '' && name !== 'unknown')
  return { known: pairs.filter(isKnown), unknown: pairs.filter((pair) => !isKnown(pair)) }
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}
