import { DEFAULT_MODEL, MODELS, trainingOf } from '../core/baseline/model.js'
import { UsageError } from '../core/errors.js'
import { checkPromql, latencyTrafficAndAge } from '../core/promql.js'
import type { Recording } from '../core/recording.js'
import type { Baselines } from '../core/score.js'
import { createMonitor } from '../io/monitor.js'
import { serveDaemon } from '../io/serve-daemon.js'
import { readRecordingFile, warnOfRepairs } from '../io/training-file.js'
import { command } from './command.js'
import { daemonFlags, servePort } from './daemon-flags.js'
import {
  anyText,
  labelName,
  numberFrom,
  oneOf,
  optional,
  quantile,
  required,
  serviceName,
  duration,
  withDefault,
} from './flags.js'

/** What scoring needs, for the daemon and for replay alike. */
export const scoringFlags = {
  model: withDefault(oneOf(...MODELS.map(({ name }) => name)), DEFAULT_MODEL.name, 'how the baseline is made'),
  quantile: withDefault(
    quantile,
    '0.5',
    'the quantile a training file without quantile labels holds; one with labels is scored at those it holds',
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
} as const

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
  'training-data-file': required(anyText, 'recording of normal traffic: a saved query_range answer'),
  ...scoringFlags,
  query: optional(anyText, 'PromQL in place of the built-in query: one series, the latency in milliseconds'),
  ...daemonFlags,
  'prometheus-port': servePort('8080'),
} as const

/** One fitted baseline for each quantile that the recording holds. */
export function fitBaselines(
  recording: Recording,
  options: { readonly model: (typeof MODELS)[number]['name']; readonly quantile: number; readonly what: string },
): Baselines {
  const model = MODELS.find(({ name }) => name === options.model) ?? DEFAULT_MODEL
  return new Map(
    recording.series.map((series) => [
      series.quantile ?? options.quantile,
      model.fit(trainingOf(series, options.what)),
    ]),
  )
}

export const monitorCommand = command({
  name: 'monitor',
  describe: 'Scores the latency of one pair of services against its training data and exports lab7_* gauges',
  flags,
  prepare: (values) => {
    const file = values['training-data-file']
    const recording = readRecordingFile(file, '--training-data-file')
    const baselines = fitBaselines(recording, {
      model: values.model,
      quantile: values.quantile,
      what: `--training-data-file: ${file}`,
    })
    const quantiles = [...baselines.keys()]
    const pair = { source: values.service1, destination: values.service2 }
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
    return {
      logFormat: values['log-format'],
      run: async (runtime) => {
        const { logger } = runtime
        const trainingSamples = recording.series.map(({ latenciesMs }) => latenciesMs.filter(Number.isFinite).length)
        logger.info(
          {
            ...pair,
            model: values.model,
            quantiles,
            trainingDataFile: file,
            trainingSamples,
            query,
          },
          'baseline fitted',
        )
        warnOfRepairs(logger, recording, file)
        if (values.check) return 0
        const pollIntervalMs = values['poll-interval-seconds'] * 1000
        return serveDaemon(
          runtime,
          {
            command: 'monitor',
            listenAddress: values['listen-address'],
            port: values['prometheus-port'],
            pollIntervalMs,
          },
          (registry) =>
            createMonitor(
              {
                pair,
                prometheusUrl: values['prometheus-url'],
                query,
                quantiles,
                baselines,
                rules: {
                  direction: values.direction,
                  minRequestsPerSecond: values['min-requests-per-second'],
                },
                pollIntervalMs,
                // Prometheus drops a sidecar that died from the window bit by bit; before that the value is not fresh.
                maxAgeSeconds: values.query === undefined ? 0.75 * window.seconds : null,
              },
              runtime,
              registry,
            ),
        )
      },
    }
  },
})
