import type { Pair } from './pair.js'
import { promqlString } from './promql.js'

const LATENCY = 'istio_request_duration_milliseconds'

/** Metrics that tell what of a pair is measured at all. The bare name is a native histogram. */
export const LATENCY_BUCKETS = `${LATENCY}_bucket`
export const LATENCY_COUNT = `${LATENCY}_count`
export const LATENCY_NATIVE = LATENCY
export const REQUESTS = 'istio_requests_total'
export const TCP_CONNECTIONS = 'istio_tcp_connections_opened_total'

/** How an edge is found: the names, and the labels that carry them. */
export interface EdgeNames {
  readonly pair: Pair
  readonly sourceLabel: string
  readonly destinationLabel: string
}

function selector({ pair, sourceLabel, destinationLabel }: EdgeNames, ...more: readonly string[]): string {
  const matchers = [
    `${sourceLabel}=${promqlString(pair.source)}`,
    `${destinationLabel}=${promqlString(pair.destination)}`,
    ...more,
  ]
  return `{${matchers.join(',')}}`
}

const BY_SOURCE = 'reporter="source"'

/** Prometheus's own now. */
export const NOW = 'vector(time())'

/** Which metrics the pair has, and who reports them: labels `__name__` and `reporter`. */
export function presenceQuery(edge: EdgeNames): string {
  const names = [LATENCY_BUCKETS, LATENCY_COUNT, LATENCY_NATIVE, REQUESTS, TCP_CONNECTIONS].join('|')
  return `count by (__name__, reporter) (${selector(edge, `__name__=~"${names}"`)})`
}

/** Requests that each reporter counted. */
export function requestsQuery(edge: EdgeNames, seconds: number): string {
  return `sum by (reporter) (increase(${LATENCY_COUNT}${selector(edge)}[${seconds}s]))`
}

/** Requests in each bucket (cumulated, as histograms are), by protocol and response code. */
export function distributionQuery(edge: EdgeNames, seconds: number): string {
  return `sum by (le, request_protocol, response_code) (increase(${LATENCY_BUCKETS}${selector(edge, BY_SOURCE)}[${seconds}s]))`
}

/** The samples as they were scraped: a range, not a rate. */
export function scrapesQuery(edge: EdgeNames, seconds: number): string {
  return `${LATENCY_COUNT}${selector(edge, BY_SOURCE)}[${seconds}s]`
}

/** Fully qualified hosts of the destination, as Istio names them. */
export function hostsQuery(edge: EdgeNames): string {
  return `count by (destination_service) (${LATENCY_COUNT}${selector(edge, BY_SOURCE)})`
}

/** Which of Istio's metrics there are, whatever the pair. */
export const METRICS_QUERY = `count by (__name__) ({__name__=~"${LATENCY_COUNT}|${LATENCY_NATIVE}|${REQUESTS}|${TCP_CONNECTIONS}"})`

/** Every edge, under the labels that were asked for. */
export function edgesQuery({ sourceLabel, destinationLabel }: EdgeNames): string {
  return `count by (${sourceLabel}, ${destinationLabel}) (${LATENCY_COUNT})`
}

/** When the pair was last scraped, unix seconds. */
export function lastSeenQuery(edge: EdgeNames): string {
  return `max(max_over_time(timestamp(${LATENCY_COUNT}${selector(edge)})[6h:1m]))`
}

const SOURCE_LABELS = ['source_app', 'source_workload', 'source_canonical_service']
const DESTINATION_LABELS = [
  'destination_app',
  'destination_workload',
  'destination_canonical_service',
  'destination_service_name',
]

/** The labels of `otherLabelsQuery`'s answer that say under which labels the pair was found. */
export const FOUND_SOURCE_LABEL = 'found_source_label'
export const FOUND_DESTINATION_LABEL = 'found_destination_label'

/** Under which of Istio's other labels the two names make an edge. */
export function otherLabelsQuery({ pair, sourceLabel, destinationLabel }: EdgeNames): string {
  return SOURCE_LABELS.flatMap((source) =>
    DESTINATION_LABELS.filter((destination) => source !== sourceLabel || destination !== destinationLabel).map(
      (destination) => {
        const count = `count(${LATENCY_COUNT}${selector({ pair, sourceLabel: source, destinationLabel: destination })})`
        return `label_replace(label_replace(${count}, "${FOUND_SOURCE_LABEL}", "${source}", "", ""), "${FOUND_DESTINATION_LABEL}", "${destination}", "", "")`
      },
    ),
  ).join('\nor ')
}

/** The built-in latency query over fewer, or other, requests: for the monitor's --query. */
export function latencyQueryWith(
  edge: EdgeNames,
  options: { readonly quantile: number; readonly window: string; readonly matchers: readonly string[] },
): string {
  const { quantile, window, matchers } = options
  return `histogram_quantile(${quantile}, sum by (le) (rate(${LATENCY_BUCKETS}${selector(edge, ...matchers)}[${window}])))`
}
