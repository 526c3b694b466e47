/**
 * Upper bounds, in milliseconds, of the buckets of istio_request_duration_milliseconds: the default histogram of Istio's
 * Envoy stats (istio/istio, pilot/pkg/bootstrap/config.go and the proxy's envoy_bootstrap.json).
 */
export const ISTIO_BUCKETS_MS: readonly number[] = [
  0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000, 600_000, 1_800_000,
  3_600_000,
]

/** The highest finite bound: what histogram_quantile answers when requests are slower than the histogram can tell. */
export const HIGHEST_BUCKET_MS = 3_600_000

export interface Bucket {
  readonly lowerMs: number
  /** Infinity beyond the last bound. */
  readonly upperMs: number
}

/** The bucket (lowerMs, upperMs] in which a latency lies. @param latencyMs - finite, at least 0 */
export function bucketOf(latencyMs: number): Bucket {
  const index = ISTIO_BUCKETS_MS.findIndex((boundMs) => latencyMs <= boundMs)
  if (index === -1) return { lowerMs: HIGHEST_BUCKET_MS, upperMs: Infinity }
  return { lowerMs: ISTIO_BUCKETS_MS[index - 1] ?? 0, upperMs: ISTIO_BUCKETS_MS[index] ?? Infinity }
}
