import type { Pair } from '../../src/core/pair.js'

/** One series of an answer to the mesh query. */
export interface MeshElement {
  readonly metric: Readonly<Record<string, string>>
  readonly value?: readonly [number, unknown]
  readonly histogram?: unknown
}

const labels = ({ source, destination }: Pair): Readonly<Record<string, string>> => ({
  source_app: source,
  destination_app: destination,
})

/** What Prometheus says of a healthy edge: a latency for each quantile, the rate, and a sample that is two seconds old. */
export function meshElements(
  pair: Pair,
  timeSeconds: number,
  latencies: Readonly<Record<string, string>>,
  {
    requestsPerSecond = '5',
    ageSeconds = 2,
  }: { readonly requestsPerSecond?: string; readonly ageSeconds?: number } = {},
): readonly MeshElement[] {
  const element = (more: Readonly<Record<string, string>>, value: string): MeshElement => ({
    metric: { ...labels(pair), ...more },
    value: [timeSeconds, value],
  })
  return [
    ...Object.entries(latencies).map(([quantile, value]) => element({ quantile }, value)),
    element({ series: 'requests_per_second' }, requestsPerSecond),
    element({ series: 'sample_timestamp_seconds' }, String(timeSeconds - ageSeconds)),
  ]
}

/** The answer's text, as Prometheus writes it. */
export function meshAnswer(elements: readonly MeshElement[], warnings: readonly string[] = []): string {
  return JSON.stringify({
    status: 'success',
    data: { resultType: 'vector', result: elements },
    ...(warnings.length === 0 ? {} : { warnings }),
  })
}

/** Names that are hard to write, and to take apart again. */
export const HOSTILE_NAMES: readonly string[] = [
  'a,b',
  'a","b',
  '},{"metric":',
  '\\',
  '"',
  '\n',
  'x"}[10s])) or sum(rate(m{destination=~".+',
  '購物車',
  '😀',
  ' ',
  '__proto__',
  'constructor',
  '\u0000',
  '\u2028',
]
