/*
 * The edges that a mesh's monitor watches, found in its answers. What is kept of an edge is small and of fixed size; what an
 * answer says of it is kept until it is scored.
 */
import type { Refusal } from './metric-names.js'
import type { Pair } from './pair.js'
import { QUANTILE_LABEL, SERIES_LABEL } from './promql.js'
import type { BaselineSource } from './mesh-baselines.js'
import { addSeries, emptyPairSeries, missing, type PairSeries, readPair, type Reading } from './reading.js'
import type { Verdict, Watches } from './score.js'
import { glimpse, isObject, parseInstantValue, ShapeError } from './series.js'
import { type Shard, shardOf } from './shard.js'

/** An edge that is watched. */
export interface MeshEdge {
  readonly kind: 'watched'
  readonly pair: Pair
  /** Of the last poll; null before the first. */
  verdict: Verdict | null
  /** Of the quantile that was furthest out in the last poll that was answered; null where it was not scored. */
  score: number | null
  yMs: number | null
  yhatMs: number | null
  /** Found so far, one per anomalous quantile and poll. */
  anomalies: number
  watches: Watches | null
  /** Version of the baselines at which `watches` was asked for. */
  version: number
  /** Number of the last answer that held it. */
  seen: number
  /** What that answer holds of it, until it is read. */
  series: PairSeries | null
  /** What is wrong with an element of it. */
  trouble: string | null
  /** Of the last sample. */
  lastTimestampSeconds: number | null
  /** Since when complete answers do not hold it; null while they do. */
  vanishedSeconds: number | null
}

export interface EdgeTable {
  readonly edges: ReadonlySet<MeshEdge>
  /** Undefined for one that is not watched. */
  readonly edgeOf: (pair: Pair) => MeshEdge | undefined
  /** Begins an answer; what was taken of the one before and not read is forgotten. */
  begin(): void
  /**
   * Takes one element of the answer. What is wrong with its value is the edge's own trouble.
   *
   * @throws {ShapeError} when it cannot be told whose it is
   */
  take(element: unknown): void
  /** How many edges of the answer so far are watched by others, and are not watched, by reason. */
  readonly passedOver: () => { readonly elsewhere: number; readonly refused: Readonly<Record<Refusal, number>> }
  /**
   * What the answer says of an edge.
   *
   * @param warnings - how many the answer carries as a whole
   */
  read(edge: MeshEdge, warnings: number): Reading
  watchesOf(edge: MeshEdge): Watches | null
  /** Removes an edge that no complete answer has held for the grace time. @returns whether it did */
  removeVanished(edge: MeshEdge, nowSeconds: number): boolean
  /** Ends an answer. */
  end(): void
}

export interface EdgeTableOptions {
  readonly sourceLabel: string
  readonly destinationLabel: string
  /** Edges found beyond it are refused, and those that are watched stay. */
  readonly maxEdges: number
  readonly graceSeconds: number
  readonly shard: Shard
  readonly baselines: BaselineSource
  /** As in a pair's reading. */
  readonly quantiles: readonly number[]
  readonly maxAgeSeconds: number | null
  readonly ageOptional?: boolean
}

/** A longer name is none that Istio gives; it would be held in memory and sent with every scrape. */
const MAX_NAME = 253

/** Istio's word for an end of a request that it knows nothing of; many different ones have it. */
const UNKNOWN = 'unknown'

/** Passed-over edges that were not seen again are forgotten once they are this many more than those that were. */
const FORGOTTEN_AT = 1_000

/** Each element of an answer has its names anew; this one is kept for all edges of the source. */
interface Source {
  readonly name: string
  readonly destinations: Map<string, MeshEdge | PassedOver>
}

interface PassedOver {
  readonly kind: 'elsewhere' | Refusal
  seen: number
}

export function createEdgeTable(options: EdgeTableOptions): EdgeTable {
  const { sourceLabel, destinationLabel, maxEdges, graceSeconds, shard, baselines, quantiles, maxAgeSeconds } = options
  const { ageOptional = false } = options
  // By source, then by destination: no key could be ambiguous, and none has to be made for each element.
  const table = new Map<string, Source>()
  const edges = new Set<MeshEdge>()
  let answer = 0
  let passed = newCounts()
  let passedSize = 0

  const kindOf = (pair: Pair): MeshEdge['kind'] | PassedOver['kind'] => {
    const names = [pair.source, pair.destination]
    if (names.some((name) => name === '' || name === UNKNOWN)) return 'unknown'
    if (names.some((name) => name.length > MAX_NAME || /\p{Surrogate}/u.test(name))) return 'bad_name'
    if (shardOf(pair, shard.count) !== shard.ordinal) return 'elsewhere'
    return edges.size < maxEdges ? 'watched' : 'max_edges'
  }

  const admit = (pair: Pair): MeshEdge | PassedOver => {
    const kind = kindOf(pair)
    if (kind !== 'watched') {
      passedSize++
      return { kind, seen: -1 }
    }
    const edge: MeshEdge = {
      kind,
      pair,
      verdict: null,
      score: null,
      yMs: null,
      yhatMs: null,
      anomalies: 0,
      watches: null,
      version: -1,
      seen: -1,
      series: null,
      trouble: null,
      lastTimestampSeconds: null,
      vanishedSeconds: null,
    }
    edges.add(edge)
    return edge
  }

  const entryOf = (source: string, destination: string): MeshEdge | PassedOver => {
    let known = table.get(source)
    if (known === undefined) {
      known = { name: source, destinations: new Map() }
      table.set(source, known)
    }
    const { name, destinations } = known
    let entry = destinations.get(destination)
    if (entry?.kind === 'max_edges' && edges.size < maxEdges) {
      passedSize--
      entry = undefined
    }
    if (entry === undefined) {
      entry = admit({ source: name, destination })
      destinations.set(destination, entry)
    }
    return entry
  }

  const forget = ({ source, destination }: Pair): void => {
    const destinations = table.get(source)?.destinations
    destinations?.delete(destination)
    if (destinations?.size === 0) table.delete(source)
  }

  const forgetPassedOver = (): void => {
    for (const [source, { destinations }] of table) {
      for (const [destination, entry] of destinations) {
        if (entry.kind === 'watched' || entry.seen === answer) continue
        passedSize--
        forget({ source, destination })
      }
    }
  }

  return {
    edges,
    edgeOf: ({ source, destination }) => {
      const entry = table.get(source)?.destinations.get(destination)
      return entry?.kind === 'watched' ? entry : undefined
    },
    begin: () => {
      answer++
      passed = newCounts()
    },
    take: (element) => {
      const metric = isObject(element) ? element['metric'] : undefined
      if (!isObject(element) || !isObject(metric)) {
        throw new ShapeError('bad_shape', `data.result: expected objects with a metric, got ${glimpse(element)}`)
      }
      const source = labelIn(metric, sourceLabel)
      const destination = labelIn(metric, destinationLabel)
      const entry = entryOf(source ?? '', destination ?? '')
      if (entry.kind !== 'watched') {
        if (entry.seen !== answer) passed[entry.kind]++
        entry.seen = answer
        return
      }
      if (entry.seen !== answer || entry.series === null) {
        entry.seen = answer
        entry.series = emptyPairSeries()
        entry.trouble = null
      }
      try {
        const labels = { series: labelIn(metric, SERIES_LABEL), quantile: labelIn(metric, QUANTILE_LABEL) }
        addSeries(entry.series, labels, parseInstantValue(element, 'data.result[]'))
      } catch (error) {
        if (!(error instanceof ShapeError)) throw error
        entry.trouble = error.message
      }
    },
    passedOver: () => {
      const { elsewhere, ...refused } = passed
      return { elsewhere, refused }
    },
    read: (edge, warnings) => {
      const { series, trouble, lastTimestampSeconds } = edge
      edge.series = null
      edge.trouble = null
      if (edge.seen !== answer || series === null) return missing('empty', 'not in the answer')
      if (trouble !== null) return missing('bad_shape', trouble)
      const reading = readPair(series, warnings, { quantiles, maxAgeSeconds, ageOptional, lastTimestampSeconds })
      if (reading.kind === 'sample') edge.lastTimestampSeconds = reading.sample.timestampSeconds
      return reading
    },
    watchesOf: (edge) => {
      const version = baselines.version()
      if (edge.version !== version) {
        edge.watches = baselines.watchesOf(edge.pair)
        edge.version = version
      }
      return edge.watches
    },
    removeVanished: (edge, nowSeconds) => {
      if (edge.seen === answer) {
        edge.vanishedSeconds = null
        return false
      }
      edge.vanishedSeconds ??= nowSeconds
      if (nowSeconds - edge.vanishedSeconds < graceSeconds) return false
      edges.delete(edge)
      forget(edge.pair)
      return true
    },
    end: () => {
      const seen = Object.values(passed).reduce((sum, count) => sum + count, 0)
      if (passedSize > 2 * seen + FORGOTTEN_AT) forgetPassedOver()
    },
  }
}

function newCounts(): Record<PassedOver['kind'], number> {
  return { elsewhere: 0, max_edges: 0, unknown: 0, bad_name: 0 }
}

/** @throws {ShapeError} when the label is there and is no text */
function labelIn(metric: Readonly<Record<string, unknown>>, name: string): string | undefined {
  const value = metric[name]
  if (typeof value === 'string') return value
  if (!Object.hasOwn(metric, name)) return undefined
  throw new ShapeError('bad_shape', `data.result: expected texts as labels, got ${glimpse(value)} for ${name}`)
}
