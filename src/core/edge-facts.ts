/*
 * What Prometheus knows of the hot pairs at one moment: the monitors' own values, and what Istio measured on both sides of
 * each pair, now and before the first anomaly. Every time is pinned in the expression (`@`), so whoever asks, and whenever,
 * reads the same.
 */
import { type Bucket, bucketOf } from './istio-buckets.js'
import { MONITOR_GAUGES } from './metric-names.js'
import { type Pair, pairKey } from './pair.js'
import { promqlOneOf, promqlString, QUANTILE_LABEL, SERIES_LABEL } from './promql.js'
import type { InstantSample, Vector } from './series.js'

const { y, yhat, yMin, yMax, requestsPerSecond } = MONITOR_GAUGES

/** How the pairs are found among Istio's metrics. */
export interface IstioNaming {
  readonly sourceLabel: string
  readonly destinationLabel: string
  readonly window: {
    /** A Prometheus duration. */
    readonly text: string
    readonly seconds: number
  }
}

/** What a pair's monitor exported. The quantile is the one that is furthest above what was expected. */
export interface PairGauges {
  readonly quantile: number | null
  readonly latencyMs: number | null
  readonly yhatMs: number | null
  readonly yMinMs: number | null
  readonly yMaxMs: number | null
  readonly requestsPerSecond: number | null
}

export const NO_GAUGES: PairGauges = {
  quantile: null,
  latencyMs: null,
  yhatMs: null,
  yMinMs: null,
  yMaxMs: null,
  requestsPerSecond: null,
}

/** @param atSeconds - the time of the poll */
export function gaugesQuery(pairs: readonly Pair[], atSeconds: number): string {
  const names = [y, yhat, yMin, yMax, requestsPerSecond].map(({ name }) => name).join('|')
  return `{__name__=~"${names}",${pairMatchers(pairs)}} @ ${atSeconds}`
}

/** The value, the band and the traffic of one pair over time: what its monitor saw. */
export function bandExpression({ source, destination }: Pair): string {
  const names = [y, yhat, yMin, yMax].map(({ name }) => name).join('|')
  return `{__name__=~"${names}",source=${promqlString(source)},destination=${promqlString(destination)}}`
}

/** One quantile of one pair over time, by the side that measured it. */
export function sidesExpression({ source, destination }: Pair, quantile: number, istio: IstioNaming): string {
  const selector = `{reporter=~"source|destination",${istio.sourceLabel}=${promqlString(source)},${istio.destinationLabel}=${promqlString(destination)}}`
  return `histogram_quantile(${quantile}, sum by (le, reporter) (rate(istio_request_duration_milliseconds_bucket${selector}[${istio.window.text}])))`
}

function pairMatchers(pairs: readonly Pair[]): string {
  const distinct = (names: readonly string[]): string => promqlOneOf([...new Set(names)])
  return `source=~${distinct(pairs.map(({ source }) => source))},destination=~${distinct(pairs.map(({ destination }) => destination))}`
}

/** By pair key. Of several replicas of a monitor, and of several quantiles, the one that is furthest out is told. */
export function readGauges(vector: Vector): ReadonlyMap<string, PairGauges> {
  /** Pair -> monitor and quantile -> its gauges. */
  const found = new Map<string, Map<string, Map<string, number>>>()
  const rates = new Map<string, number>()
  for (const { labels, value } of vector.result) {
    if (value === undefined || !Number.isFinite(value)) continue
    const { __name__: name = '', source = '', destination = '', ...rest } = Object.fromEntries(labels)
    const pair = pairKey({ source, destination })
    if (name === requestsPerSecond.name) {
      rates.set(pair, Math.max(rates.get(pair) ?? 0, value))
      continue
    }
    const monitors = found.get(pair) ?? new Map<string, Map<string, number>>()
    found.set(pair, monitors)
    const key = JSON.stringify([rest[QUANTILE_LABEL] ?? '', Object.entries(rest).sort()])
    const gauges = monitors.get(key) ?? new Map<string, number>()
    monitors.set(key, gauges.set(name, value))
  }
  return new Map(
    [...new Set([...found.keys(), ...rates.keys()])].map((pair) => [
      pair,
      { ...furthestOut(found.get(pair)), requestsPerSecond: rates.get(pair) ?? null },
    ]),
  )
}

function furthestOut(monitors: ReadonlyMap<string, ReadonlyMap<string, number>> | undefined): PairGauges {
  const out = (gauges: ReadonlyMap<string, number>): number => {
    const distance = (gauges.get(y.name) ?? NaN) / (gauges.get(yMax.name) ?? NaN)
    return Number.isNaN(distance) ? -1 : distance
  }
  // Sorted by key first, so that of two alike it is always the same one.
  const [first] = [...(monitors ?? [])].sort(([a], [b]) => (a < b ? -1 : 1)).sort(([, a], [, b]) => out(b) - out(a))
  if (first === undefined) return NO_GAUGES
  const [key, gauges] = first
  const [quantile] = JSON.parse(key) as readonly [string]
  return {
    quantile: quantile === '' || !Number.isFinite(Number(quantile)) ? null : Number(quantile),
    latencyMs: gauges.get(y.name) ?? null,
    yhatMs: gauges.get(yhat.name) ?? null,
    yMinMs: gauges.get(yMin.name) ?? null,
    yMaxMs: gauges.get(yMax.name) ?? null,
    requestsPerSecond: null,
  }
}

/** Latency that one side of a pair measured, milliseconds; null where it did not. */
export interface SideLatency {
  readonly beforeMs: number | null
  readonly nowMs: number | null
}

export interface VersionFacts {
  readonly version: string
  /** Of the pair's requests, in (0, 1]. */
  readonly share: number
  readonly latencyMs: number | null
}

/** A fault that a caller's sidecar reports to inject: Envoy's response flags DI (delay) and FI (abort). */
export interface InjectedFault extends Pair {
  readonly fault: 'delay' | 'abort'
  /** Of the pair's requests, in (0, 1]. */
  readonly share: number
}

/** What Istio measured of one pair. */
export interface EdgeFacts extends Pair {
  readonly quantile: number
  /** reporter="source": with the network, the proxies, retries and injected faults. */
  readonly callerSide: SideLatency
  /** reporter="destination": the service's own work, and what it waits for. */
  readonly calleeSide: SideLatency
  readonly requestsPerSecond: { readonly before: number | null; readonly now: number | null }
  /** Known versions of the destination that requests went to, by name. */
  readonly versions: readonly VersionFacts[]
}

export interface MeshFacts {
  /** By pair key: the asked pairs, and the edges that leave one of their services. */
  readonly edges: ReadonlyMap<string, EdgeFacts>
  /** On the asked pairs and on others that leave one of their services. */
  readonly injected: readonly InjectedFault[]
}

/** The time before the first anomaly that is compared with: this many windows, of which the median counts. */
const BEFORE_WINDOWS = 10
/** The window of the first anomaly holds slow requests, and its monitor may have polled up to a window earlier. */
const SKIPPED_WINDOWS = 2

export interface FactsRequest {
  readonly pairs: readonly Pair[]
  /** In (0, 1). */
  readonly quantile: number
  readonly atSeconds: number
  /** The first anomalous poll of any of the pairs. */
  readonly firstAnomalousSeconds: number
  readonly istio: IstioNaming
}

const NOW_MS = 'now_ms'
const BEFORE_MS = 'before_ms'
const BEFORE_RPS = 'before_rps'
const BY_FLAGS = 'rps_by_flags'
const BY_VERSION = 'rps_by_version'
const VERSION_MS = 'ms_by_version'

/** Envoy separates its response flags by commas. */
const DELAYED = /(^|,)DI(,|$)/
const ABORTED = /(^|,)FI(,|$)/

/**
 * All of it in one query, told apart by the label `series`. Asked of every edge that leaves a service of the pairs: a slow
 * callee may wait for an edge that nobody watches.
 */
export function factsQuery({ pairs, quantile, atSeconds, firstAnomalousSeconds, istio }: FactsRequest): string {
  const { sourceLabel, destinationLabel, window } = istio
  const services = promqlOneOf([...new Set(pairs.flatMap(({ source, destination }) => [source, destination]))])
  const matchers = `${sourceLabel}=~${services}`
  const edge = `${sourceLabel}, ${destinationLabel}`
  const rate = (metric: string, selector: string, at: string): string =>
    `rate(${metric}{${selector}}[${window.text}]${at})`
  const quantiles = (by: string, reporter: string, at = ''): string =>
    `histogram_quantile(${quantile}, sum by (le, ${edge}, ${by}) (${rate('istio_request_duration_milliseconds_bucket', `reporter=~"${reporter}",${matchers}`, at)})) >= 0`
  const requests = (by: string, at = ''): string =>
    `sum by (${edge}${by}) (${rate('istio_requests_total', `reporter="source",${matchers}`, at)}) > 0`
  const now = ` @ ${atSeconds}`
  const stepMs = Math.max(1, Math.round(window.seconds * 500))
  const before = `[${Math.round(BEFORE_WINDOWS * window.seconds * 1000)}ms:${stepMs}ms] @ ${firstAnomalousSeconds - SKIPPED_WINDOWS * window.seconds}`
  const parts: readonly (readonly [series: string, expression: string])[] = [
    [NOW_MS, quantiles('reporter', 'source|destination', now)],
    [BEFORE_MS, `quantile_over_time(0.5, (${quantiles('reporter', 'source|destination')})${before})`],
    [BEFORE_RPS, `quantile_over_time(0.5, (${requests('')})${before})`],
    [BY_FLAGS, requests(', response_flags', now)],
    [BY_VERSION, requests(', destination_version', now)],
    [VERSION_MS, quantiles('destination_version', 'source', now)],
  ]
  return parts
    .map(([series, expression]) => `label_replace(${expression}, "${SERIES_LABEL}", "${series}", "", "")`)
    .join('\nor ')
}

export function readFacts(vector: Vector, { pairs, quantile, istio }: FactsRequest): MeshFacts {
  const pairOf = ({ labels }: InstantSample): Pair => ({
    source: labels.get(istio.sourceLabel) ?? '',
    destination: labels.get(istio.destinationLabel) ?? '',
  })
  /** Series -> pair -> samples. In the order of their labels: that of an answer changes, and sums of floats with it. */
  const found = new Map<string, Map<string, InstantSample[]>>()
  const strangers = new Map<string, Pair>()
  for (const sample of vector.result.toSorted((a, b) => (labelsKey(a) < labelsKey(b) ? -1 : 1))) {
    const [series, pair] = [sample.labels.get(SERIES_LABEL) ?? '', pairOf(sample)]
    const byPair = found.get(series) ?? new Map<string, InstantSample[]>()
    found.set(series, byPair)
    const key = pairKey(pair)
    byPair.set(key, [...(byPair.get(key) ?? []), sample])
    strangers.set(key, pair)
  }
  for (const pair of pairs) strangers.delete(pairKey(pair))
  const all = [...pairs.map(({ source, destination }) => ({ source, destination })), ...strangers.values()]
  const of = (series: string, pair: Pair): readonly InstantSample[] => found.get(series)?.get(pairKey(pair)) ?? []
  const one = (series: string, pair: Pair, labels: Readonly<Record<string, string>> = {}): number | null => {
    const value = of(series, pair).find((sample) =>
      Object.entries(labels).every(([label, wanted]) => sample.labels.get(label) === wanted),
    )?.value
    return value !== undefined && Number.isFinite(value) ? value : null
  }
  const sum = (samples: readonly InstantSample[]): number =>
    samples.reduce((total, { value = NaN }) => total + (Number.isFinite(value) ? value : 0), 0)

  const edges = new Map(
    all.map((pair): [string, EdgeFacts] => {
      const side = (reporter: string): SideLatency => ({
        beforeMs: one(BEFORE_MS, pair, { reporter }),
        nowMs: one(NOW_MS, pair, { reporter }),
      })
      const flags = of(BY_FLAGS, pair)
      const versions = of(BY_VERSION, pair).filter(({ labels }) => isKnown(labels.get('destination_version')))
      const total = sum(versions)
      return [
        pairKey(pair),
        {
          ...pair,
          quantile,
          callerSide: side('source'),
          calleeSide: side('destination'),
          requestsPerSecond: { before: one(BEFORE_RPS, pair), now: flags.length === 0 ? null : sum(flags) },
          versions: versions
            .map(({ labels, value = 0 }) => {
              const version = labels.get('destination_version') ?? ''
              return {
                version,
                share: value / total,
                latencyMs: one(VERSION_MS, pair, { destination_version: version }),
              }
            })
            .sort((a, b) => (a.version < b.version ? -1 : 1)),
        },
      ]
    }),
  )
  const injected = all.flatMap((pair) => {
    const samples = of(BY_FLAGS, pair)
    if (samples.length === 0) return []
    const share = (pattern: RegExp): number =>
      sum(samples.filter(({ labels }) => pattern.test(labels.get('response_flags') ?? ''))) / sum(samples)
    return [
      { ...pair, fault: 'delay' as const, share: share(DELAYED) },
      { ...pair, fault: 'abort' as const, share: share(ABORTED) },
    ].filter(({ share: found }) => found > 0)
  })
  return { edges, injected }
}

function labelsKey({ labels }: InstantSample): string {
  return JSON.stringify([...labels].sort())
}

/** Envoy names no version for an answer that no pod gave, and Istio `unknown` for a pod without the label. */
function isKnown(version: string | undefined): boolean {
  return version !== undefined && version !== '' && version !== 'unknown'
}

/** What has become of one side's latency. `unclear`: it rose, but inside one bucket, where a quantile is a guess. */
export type SideChange = 'slow' | 'as before' | 'unclear' | 'unknown'

/** A side is slow from this many times its latency before on: less is within what load and time of day do. */
export const SLOW_RATIO = 1.3

export function changeOf({ beforeMs, nowMs }: SideLatency): SideChange {
  if (beforeMs === null || nowMs === null || beforeMs <= 0) return 'unknown'
  if (nowMs / beforeMs < SLOW_RATIO) return 'as before'
  return bucketOf(beforeMs).upperMs === bucketOf(nowMs).upperMs ? 'unclear' : 'slow'
}

/** By how much a side's latency rose, milliseconds; NaN when it is not known. */
export function roseMs({ beforeMs, nowMs }: SideLatency): number {
  return (nowMs ?? NaN) - (beforeMs ?? NaN)
}

/** How wide the bucket is that a latency lies in, milliseconds. */
export function resolutionMs(latencyMs: number): number {
  const { lowerMs, upperMs }: Bucket = bucketOf(latencyMs)
  return upperMs - lowerMs
}
