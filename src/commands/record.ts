import { UsageError } from '../core/errors.js'
import { type Pair, pairKey } from '../core/pair.js'
import { checkPromql, latencyAndTraffic } from '../core/promql.js'
import { withAccess } from '../io/http-client.js'
import { record } from '../io/recorder.js'
import { command } from './command.js'
import {
  anyText,
  duration,
  intervalSeconds,
  optional,
  pairOfServices,
  quantiles,
  repeatable,
  repeatableLists,
  required,
  serviceName,
  type Time,
  timeFlag,
  toggle,
  type Values,
  withDefault,
} from './flags.js'
import { pairFlags } from './monitor.js'
import { prometheusAccess, prometheusFlags } from './prometheus-flags.js'

const flags = {
  ...pairFlags,
  service1: optional(serviceName, 'source service, the caller; with --service2, for one pair'),
  service2: optional(serviceName, 'destination service, the callee'),
  pair: repeatable(pairOfServices, 'SOURCE:DESTINATION to record'),
  'all-pairs': toggle("record every pair that Istio's labels show over the range"),
  ...prometheusFlags,
  quantile: repeatableLists(quantiles, 'quantile to record, or several such as 0.5,0.95; 0.5 unless given'),
  range: optional(duration, 'how much history to save, up to --to; 1h unless given'),
  from: optional(
    timeFlag,
    'where the range begins, in place of --range: unix seconds, RFC 3339, or before now such as -7d',
  ),
  to: optional(timeFlag, 'where the range ends; now unless given'),
  'step-seconds': withDefault(intervalSeconds, '15', 'seconds between samples'),
  output: required(anyText, 'file to write for one pair; for several, and for --all-pairs, a folder'),
  'despite-incident': toggle('record although an incident is open, and what incidents in the range were like'),
} as const

export const recordCommand = command({
  name: 'record',
  describe:
    'Saves latency and request rate of pairs from Prometheus as training data; the same command goes on after a stop',
  flags,
  prepare: (values) => {
    const pairs = pairsOf(values)
    const rangeOf = rangeFlags(values)
    const recorded = values.quantile.length === 0 ? [0.5] : values.quantile
    if (new Set(recorded).size < recorded.length) {
      throw new UsageError(`--quantile names a quantile twice, got ${recorded.join(', ')}`)
    }
    const sourceLabel = values['source-label']
    const destinationLabel = values['destination-label']
    const queryOf = (pair: Pair): string =>
      latencyAndTraffic({
        pair,
        sourceLabel,
        destinationLabel,
        reporter: 'source',
        window: values['query-window'].text,
        quantiles: recorded,
      })
    for (const pair of pairs === 'all' ? [{ source: 'a', destination: 'b' }] : pairs) {
      checkPromql(queryOf(pair), 'the query')
    }
    const access = prometheusAccess(values)
    return {
      run: async (runtime) => {
        const without = await record(withAccess(runtime, access), {
          ...rangeOf(runtime.clock.nowMs() / 1000),
          pairs,
          sourceLabel,
          destinationLabel,
          queryOf,
          seriesPerPair: recorded.length + 1,
          prometheusUrl: values['prometheus-url'],
          stepSeconds: values['step-seconds'],
          windowSeconds: values['query-window'].seconds,
          despiteIncident: values['despite-incident'],
          output: values.output,
        })
        return without === 0 ? 0 : 1
      },
    }
  },
})

/** @throws {UsageError} unless pairs are named in exactly one way */
function pairsOf(values: Values<typeof flags>): readonly Pair[] | 'all' {
  const { service1, service2, pair: pairs } = values
  const named = service1 !== undefined || service2 !== undefined
  if ([named, pairs.length > 0, values['all-pairs']].filter(Boolean).length !== 1) {
    throw new UsageError(
      `what to record must be said in one way, --service1 and --service2, or --pair, or --all-pairs, got ${
        [
          ...(named ? ['--service1 or --service2'] : []),
          ...(pairs.length > 0 ? ['--pair'] : []),
          ...(values['all-pairs'] ? ['--all-pairs'] : []),
        ].join(' and ') || 'none of them'
      }`,
    )
  }
  if (values['all-pairs']) return 'all'
  if (named) {
    if (service1 === undefined)
      throw new UsageError('--service1 is required with --service2: source service, the caller')
    if (service2 === undefined) {
      throw new UsageError('--service2 is required with --service1: destination service, the callee')
    }
    return [{ source: service1, destination: service2 }]
  }
  if (new Set(pairs.map(pairKey)).size < pairs.length) {
    throw new UsageError(
      `--pair must name each pair once, got ${pairs.map(({ source, destination }) => `${source}:${destination}`).join(', ')}`,
    )
  }
  return pairs
}

/**
 * The range at a time, and how it was asked for. Times that move with the current one are taken at multiples of the step, so
 * that recordings of different days have their samples at the same times; others as they are.
 */
function rangeFlags(
  values: Values<typeof flags>,
): (nowSeconds: number) => { readonly startSeconds: number; readonly endSeconds: number; readonly rangeAsked: string } {
  const { range, from, to = (nowSeconds: number) => nowSeconds } = values
  if (range !== undefined && from !== undefined) {
    throw new UsageError('--range and --from must not be given together: each says where the range begins')
  }
  const stepMs = Math.round(values['step-seconds'] * 1000)
  if (Math.abs(stepMs / 1000 - values['step-seconds']) > 1e-9) {
    throw new UsageError(`--step-seconds must be whole milliseconds, got ${values['step-seconds']}`)
  }
  const at = (time: Time, nowSeconds: number): number => {
    const seconds = time(nowSeconds)
    return isRelative(time) ? (Math.floor((seconds * 1000) / stepMs) * stepMs) / 1000 : seconds
  }
  const rangeSeconds = range?.seconds ?? 3_600
  const asked = (time: Time): string => (isRelative(time) ? `now${time(0)}s` : String(time(0)))
  const rangeAsked = `${from === undefined ? `${rangeSeconds}s` : `from ${asked(from)}`} to ${asked(to)}`
  return (nowSeconds) => {
    const endSeconds = at(to, nowSeconds)
    return {
      startSeconds: from === undefined ? endSeconds - rangeSeconds : at(from, nowSeconds),
      endSeconds,
      rangeAsked,
    }
  }
}

function isRelative(time: Time): boolean {
  return time(1) !== time(0)
}
