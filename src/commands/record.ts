import { UsageError } from '../core/errors.js'
import { pairName } from '../core/pair.js'
import { checkPromql, latencyAndTraffic } from '../core/promql.js'
import { MAX_POINTS, saveRecording } from '../io/recorder.js'
import { command } from './command.js'
import {
  anyText,
  duration,
  httpUrl,
  intervalSeconds,
  quantile,
  repeatable,
  required,
  toggle,
  withDefault,
} from './flags.js'
import { pairFlags } from './monitor.js'

const flags = {
  ...pairFlags,
  'prometheus-url': required(httpUrl, 'base URL of Prometheus'),
  quantile: repeatable(quantile, 'quantile to record; 0.5 unless given'),
  range: withDefault(duration, '1h', 'how much history to save, ending now'),
  'step-seconds': withDefault(intervalSeconds, '15', 'seconds between samples'),
  output: required(anyText, 'file to write'),
  'despite-incident': toggle('record although an incident is open or lies in the range'),
} as const

export const recordCommand = command({
  name: 'record',
  describe: 'Saves the latency and request rate of one pair from Prometheus as training data',
  flags,
  prepare: (values) => {
    const pair = { source: values.service1, destination: values.service2 }
    const stepSeconds = values['step-seconds']
    const points = Math.floor(values.range.seconds / stepSeconds) + 1
    if (points > MAX_POINTS) {
      throw new UsageError(
        `--range over --step-seconds must be at most ${MAX_POINTS} samples (Prometheus's limit), got ${points}`,
      )
    }
    const query = latencyAndTraffic({
      pair,
      sourceLabel: values['source-label'],
      destinationLabel: values['destination-label'],
      reporter: 'source',
      window: values['query-window'].text,
      quantiles: values.quantile.length === 0 ? [0.5] : values.quantile,
    })
    checkPromql(query, 'the query')
    return {
      run: async (runtime) => {
        const endSeconds = Math.floor(runtime.clock.nowMs() / 1000 / stepSeconds) * stepSeconds
        const { series } = await saveRecording(
          runtime,
          {
            pair,
            prometheusUrl: values['prometheus-url'],
            query,
            startSeconds: endSeconds - values.range.seconds,
            endSeconds,
            stepSeconds,
            despiteIncident: values['despite-incident'],
          },
          values.output,
        )
        runtime.logger.info(
          {
            pair: pairName(pair),
            output: values.output,
            series: series.map(({ quantile: recorded, latenciesMs, requestsPerSecond }) => ({
              quantile: recorded,
              samples: latenciesMs.length,
              missing: latenciesMs.filter(Number.isNaN).length,
              withRequestRate: requestsPerSecond !== null,
            })),
          },
          'recorded',
        )
        return 0
      },
    }
  },
})
