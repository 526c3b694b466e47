import { matrixAnswer } from './fake-runtime.js'
import type { Pair } from '../../src/core/pair.js'

/** What a monitor exported of its pair at a time: an anomaly count, a verdict without one, or nothing. */
export type History = (pair: Pair, seconds: number) => number | 'low_traffic' | 'no_data' | null

/**
 * A Prometheus that answers the incident daemon's subquery from a made-up history: steps at the multiples of the step
 * within the range, by Prometheus's own clock, as PromQL defines a subquery.
 */
export function historyAnswer(
  query: string,
  options: { pairs: readonly Pair[]; nowMs: number; history: History },
): string {
  const { pairs, nowMs, history } = options
  const [, range, step, offset] = /\[(\d+)ms:(\d+)ms\] offset (\d+)ms$/.exec(query)?.map(Number) ?? []
  if (range === undefined || step === undefined || offset === undefined) throw new Error(`not a subquery: ${query}`)
  const lastMs = nowMs - offset
  const seconds: number[] = []
  for (let ms = Math.ceil((lastMs - range) / step) * step; ms <= lastMs; ms += step) seconds.push(ms / 1000)
  const exported = pairs.flatMap((pair) => {
    const { source, destination } = pair
    const counts: [number, string][] = []
    const sampled: [number, string][] = []
    const held = new Map<string, [number, string][]>()
    for (const at of seconds) {
      const said = history(pair, at)
      if (said === null) continue
      const verdict = typeof said === 'string' ? said : said > 0 ? 'anomalous' : 'ok'
      const holds = held.get(verdict) ?? []
      held.set(verdict, holds)
      holds.push([at, '1'])
      if (typeof said === 'string') continue
      counts.push([at, String(said)])
      sampled.push([at, String(at - 2)])
    }
    const labels = { source, destination, instance: 'monitor:8080', job: 'monitor' }
    return [
      { metric: { __name__: 'lab7_anomaly_count', ...labels }, values: counts },
      { metric: { __name__: 'lab7_sample_timestamp_seconds', ...labels }, values: sampled },
      ...[...held].map(([verdict, values]) => ({ metric: { __name__: 'lab7_verdict', ...labels, verdict }, values })),
    ].filter(({ values }) => values.length > 0)
  })
  return matrixAnswer([{ metric: { series: 'poll' }, values: seconds.map((at) => [at, '1']) }, ...exported])
}
