import { UsageError } from '../core/errors.js'
import { checkPromql, latencyTrafficAndAge } from '../core/promql.js'
import type { Recording } from '../core/recording.js'
import type { ScoringRules } from '../core/score.js'
import { withAccess } from '../io/http-client.js'
import { createMonitor } from '../io/monitor.js'
import { serveDaemon } from '../io/serve-daemon.js'
import { readRecordingFile, warnOfRepairs } from '../io/training-file.js'
import type { TrainingFacts } from '../page/page-state.js'
import { command } from './command.js'
import { daemonFlags, servePort, webConfig } from './daemon-flags.js'
import { MESH_ONLY, meshFlags, meshJob } from './mesh-monitor.js'
import { fitBaselines, MODELS, UNLABELLED_QUANTILE, watchesOf } from './models.js'
import {
  anyText,
  labelName,
  numberFrom,
  oneOf,
  optional,
  numberAbove,
  quantiles,
  required,
  serviceName,
  duration,
  type Values,
  withDefault,
} from './flags.js'
import { prometheusAccess } from './prometheus-flags.js'

/** What scoring needs, for the daemon and for replay alike. */
export const scoringFlags = {
  model: withDefault(oneOf(...MODELS.map(({ name }) => name)), MODELS[0].name, 'how the baseline is made'),
  quantile: optional(
    quantiles,
    'quantiles to score, such as 0.5,0.95; those that the training data holds unless given (0.5 when it does not say)',
  ),
  direction: withDefault(
    oneOf('above', 'both'),
    'above',
    'above: slower than the band is an anomaly; both: faster, too',
  ),
  'min-requests-per-second': withDefault(
    numberFrom(0),
    '0.1',
    'with less traffic than this a quantile means nothing and the verdict is low_traffic',
  ),
  'min-deviation-ms': withDefault(numberFrom(0), '0', 'a smaller deviation from the expected latency is no anomaly'),
  'min-deviation-ratio': withDefault(numberFrom(0), '0', 'the same as a share of the expected latency, 0.1 for 10 %'),
  'slo-ms': optional(numberAbove(0), 'latency above this is an anomaly, whatever was normal in training'),
} as const

export function scoringRules(values: Values<typeof scoringFlags>): ScoringRules {
  return {
    direction: values.direction,
    minRequestsPerSecond: values['min-requests-per-second'],
    minDeviationMs: values['min-deviation-ms'],
    minDeviationRatio: values['min-deviation-ratio'],
    sloMs: values['slo-ms'] ?? null,
  }
}

/** What the page says of a recording. */
function trainingFacts(
  { series }: Recording,
  { model, file, quantiles }: { readonly model: string; readonly file: string; readonly quantiles: readonly number[] },
): TrainingFacts {
  return {
    model,
    file,
    series: quantiles.flatMap((quantile) => {
      const found = series.find((one) => one.quantile === quantile) ?? (series.length === 1 ? series[0] : undefined)
      if (found === undefined) return []
      const { latenciesMs, timesSeconds } = found
      return [
        {
          quantile,
          samples: latenciesMs.filter(Number.isFinite).length,
          fromSeconds: timesSeconds[0] ?? 0,
          toSeconds: timesSeconds.at(-1) ?? 0,
        },
      ]
    }),
  }
}

/** How the pair is found among Istio's metrics, for the monitor and for record alike. */
export const pairFlags = {
  service1: required(serviceName, 'source service, the caller'),
  service2: required(serviceName, 'destination service, the callee'),
  'source-label': withDefault(labelName, 'source_app', "Istio's label that holds the source service"),
  'destination-label': withDefault(labelName, 'destination_app', "Istio's label that holds the destination service"),
  'query-window': withDefault(duration, '1m', 'rate window, at least four scrape intervals'),
} as const

const flags = {
  ...pairFlags,
  service1: optional(serviceName, pairFlags.service1.describe),
  service2: optional(serviceName, pairFlags.service2.describe),
  ...meshFlags,
  'training-data-file': optional(
    anyText,
    'recording of normal traffic: a saved query_range answer; with --mesh one whose series carry the labels of their edge',
  ),
  ...scoringFlags,
  query: optional(
    anyText,
    'PromQL in place of the built-in query: one series, the latency in milliseconds; with --mesh one for each edge, with the labels that name it',
  ),
  ...daemonFlags,
  'prometheus-port': servePort('8080'),
} as const

export type MonitorValues = Values<typeof flags>

/** @throws {UsageError} when a flag that a pair cannot do without is not there */
function pairNeeds(values: MonitorValues, name: 'service1' | 'service2' | 'training-data-file'): string {
  const value = values[name]
  if (value === undefined) throw new UsageError(`--${name} is required: ${flags[name].describe}`)
  return value
}

export const monitorCommand = command({
  name: 'monitor',
  describe:
    'Scores the latency of one pair of services, or of every pair of a mesh, against training data and exports lab7_* gauges',
  flags,
  prepare: (values) => {
    if (values.mesh) return meshJob(values, scoringRules(values))
    for (const name of MESH_ONLY) {
      if (values[name] !== undefined) throw new UsageError(`--${name} is for --mesh, which is not given`)
    }
    const pair = { source: pairNeeds(values, 'service1'), destination: pairNeeds(values, 'service2') }
    const file = pairNeeds(values, 'training-data-file')
    const recording = readRecordingFile(file, '--training-data-file')
    const fitting = fitBaselines(recording, {
      model: values.model,
      quantiles: values.quantile ?? [],
      what: `--training-data-file: ${file}`,
    })
    const quantiles = values.quantile ?? recording.series.map(({ quantile }) => quantile ?? UNLABELLED_QUANTILE)
    const window = values['query-window']
    if (values.query !== undefined) {
      checkPromql(values.query, '--query')
      if (quantiles.length > 1) {
        throw new UsageError(
          `--query answers one series, but --training-data-file ${file} holds ${quantiles.length} quantiles (${quantiles.join(', ')})`,
        )
      }
    }
    const query =
      values.query ??
      latencyTrafficAndAge({
        pair,
        sourceLabel: values['source-label'],
        destinationLabel: values['destination-label'],
        reporter: 'source',
        window: window.text,
        quantiles,
      })
    checkPromql(query, 'the query')
    const access = prometheusAccess(values)
    const web = webConfig(values)
    return {
      logFormat: values['log-format'],
      frugal: true,
      run: async (runtime) => {
        const { logger } = runtime
        const trainingSamples = recording.series.map(({ latenciesMs }) => latenciesMs.filter(Number.isFinite).length)
        warnOfRepairs(logger, recording, file)
        const fitted = Promise.resolve(fitting).then((baselines) => {
          const baseline = [...baselines.values()].map(({ summary }) => summary)
          logger.info(
            { ...pair, model: values.model, quantiles, baseline, trainingDataFile: file, trainingSamples, query },
            'baseline fitted',
          )
          return watchesOf(baselines)
        })
        if (values.check) {
          await fitted
          return 0
        }
        // A model that is fitted at once is there for the first poll.
        const watches = fitting instanceof Promise ? fitted : await fitted
        const pollIntervalMs = values['poll-interval-seconds'] * 1000
        return serveDaemon(
          runtime,
          {
            command: 'monitor',
            listenAddress: values['listen-address'],
            port: values['prometheus-port'],
            pollIntervalMs,
            web,
          },
          (registry) =>
            createMonitor(
              {
                pair,
                prometheusUrl: values['prometheus-url'],
                query,
                quantiles,
                watches,
                rules: scoringRules(values),
                pollIntervalMs,
                // Prometheus drops a sidecar that died from the window bit by bit; before that the value is not fresh.
                maxAgeSeconds: 0.75 * window.seconds,
                ageOptional: values.query !== undefined,
                training: trainingFacts(recording, { model: values.model, file, quantiles }),
              },
              withAccess(runtime, access),
              registry,
            ),
        )
      },
    }
  },
})
