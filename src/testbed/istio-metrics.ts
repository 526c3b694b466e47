import { ISTIO_BUCKETS_MS } from '../core/istio-buckets.js'

export const EXPOSITION_CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

/** One end of a request, as the labels name it. A name of `unknown` is a caller without a sidecar. */
export interface Workload {
  readonly name: string
  readonly namespace: string
}

export interface Edge {
  readonly reporter: 'source' | 'destination'
  readonly source: Workload
  readonly destination: Workload
}

export interface RequestMetrics {
  /**
   * @param flags - Envoy's response flags, `-` when there is nothing to say
   * @param code - HTTP status; 0 when no answer came
   */
  readonly record: (edge: Edge, answer: { readonly code: number; readonly flags: string }, durationMs: number) => void
  /** The Prometheus text format. */
  readonly render: () => string
}

/** A caller that has no sidecar, such as a load generator outside of the mesh. */
export const UNKNOWN: Workload = { name: 'unknown', namespace: 'unknown' }

const COUNTER = 'istio_requests_total'
const HISTOGRAM = 'istio_request_duration_milliseconds'

interface Series {
  readonly counterLine: string
  readonly bucketLines: readonly string[]
  readonly sumLine: string
  readonly countLine: string
  /** Requests in each bucket, not cumulated; the last one is beyond every bound. */
  readonly inBucket: number[]
  sumMs: number
  count: number
}

/**
 * Istio's two request metrics, kept and rendered here rather than by prom-client: with 25 labels on each of 22 lines a
 * series, its hashing and escaping cost more at every observation and scrape than the request they measure, and it renders
 * asynchronously, so a scrape would see a snapshot. Here the text before each number is made once a series.
 */
export function createRequestMetrics(): RequestMetrics {
  const all = new Map<string, Series>()
  return {
    record: (edge, { code, flags }, durationMs) => {
      const key = `${edge.reporter} ${edge.source.name} ${edge.destination.name} ${code} ${flags}`
      let series = all.get(key)
      if (series === undefined) {
        series = seriesFor(labelsOf(edge, code, flags))
        all.set(key, series)
      }
      let bucket = 0
      while (bucket < ISTIO_BUCKETS_MS.length && durationMs > (ISTIO_BUCKETS_MS[bucket] ?? Infinity)) bucket++
      series.inBucket[bucket] = (series.inBucket[bucket] ?? 0) + 1
      series.sumMs += durationMs
      series.count++
    },
    render: () => {
      const series = [...all.values()]
      const lines = [
        `# HELP ${COUNTER} Requests, by both ends, response code and flags.`,
        `# TYPE ${COUNTER} counter`,
        ...series.map(({ counterLine, count }) => `${counterLine} ${count}`),
        `# HELP ${HISTOGRAM} Duration of requests, in milliseconds.`,
        `# TYPE ${HISTOGRAM} histogram`,
      ]
      for (const { bucketLines, sumLine, countLine, inBucket, sumMs, count } of series) {
        let cumulated = 0
        bucketLines.forEach((line, i) => {
          cumulated += inBucket[i] ?? 0
          lines.push(`${line} ${cumulated}`)
        })
        lines.push(`${sumLine} ${sumMs}`, `${countLine} ${count}`)
      }
      return `${lines.join('\n')}\n`
    },
  }
}

function seriesFor(labels: string): Series {
  return {
    counterLine: `${COUNTER}{${labels}}`,
    bucketLines: [...ISTIO_BUCKETS_MS, '+Inf'].map((bound) => `${HISTOGRAM}_bucket{${labels},le="${bound}"}`),
    sumLine: `${HISTOGRAM}_sum{${labels}}`,
    countLine: `${HISTOGRAM}_count{${labels}}`,
    inBucket: new Array<number>(ISTIO_BUCKETS_MS.length + 1).fill(0),
    sumMs: 0,
    count: 0,
  }
}

/**
 * Istio's standard labels (istio.io, "Istio Standard Metrics"), of workloads without a version and a mesh without mutual TLS.
 * No value needs escaping: names are letters, digits and dashes.
 */
function labelsOf({ reporter, source, destination }: Edge, code: number, flags: string): string {
  const cluster = (workload: Workload): string => (workload.name === UNKNOWN.name ? 'unknown' : 'Kubernetes')
  const revision = (workload: Workload): string => (workload.name === UNKNOWN.name ? 'unknown' : 'latest')
  const labels: Readonly<Record<string, string>> = {
    reporter,
    source_workload: source.name,
    source_canonical_service: source.name,
    source_canonical_revision: revision(source),
    source_workload_namespace: source.namespace,
    source_principal: 'unknown',
    source_app: source.name,
    source_version: 'unknown',
    source_cluster: cluster(source),
    destination_workload: destination.name,
    destination_workload_namespace: destination.namespace,
    destination_principal: 'unknown',
    destination_app: destination.name,
    destination_version: 'unknown',
    destination_service: `${destination.name}.${destination.namespace}.svc.cluster.local`,
    destination_canonical_service: destination.name,
    destination_canonical_revision: revision(destination),
    destination_service_name: destination.name,
    destination_service_namespace: destination.namespace,
    destination_cluster: cluster(destination),
    request_protocol: 'http',
    response_code: String(code),
    grpc_response_status: '',
    response_flags: flags,
    // A caller's sidecar cannot know what the other side's policy is.
    connection_security_policy: reporter === 'source' ? 'unknown' : 'none',
  }
  return Object.entries(labels)
    .map(([name, value]) => `${name}="${value}"`)
    .join(',')
}
