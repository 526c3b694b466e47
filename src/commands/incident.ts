import { stableLabels } from '../core/alert.js'
import { type IncidentRules, timingContract, type WatchedPair } from '../core/incident.js'
import { UsageError } from '../core/errors.js'
import { pairKey, pairName, parseServiceName } from '../core/pair.js'
import { createNotifier } from '../io/alertmanager.js'
import { createIncidentDetector } from '../io/incident-detector.js'
import { serveDaemon } from '../io/serve-daemon.js'
import { command } from './command.js'
import { daemonFlags, servePort } from './daemon-flags.js'
import { httpUrl, numberAbove, numberFrom, repeatable, type Values, withDefault } from './flags.js'
import { MAINTENANCE_FORM, maintenanceFlag } from './maintenance-flag.js'
import { pairFlags } from './monitor.js'

interface PairFlag {
  readonly source: string
  readonly destination: string
  /** Undefined: --accumulator-threshold. */
  readonly accumulatorThreshold: number | undefined
}

/** `frontend:cartservice`, or `frontend:cartservice=7` with a threshold of its own. */
function pairFlag(text: string, name: string): PairFlag {
  const [services = '', threshold, ...rest] = text.split('=')
  const [source = '', destination, ...others] = services.split(':')
  if (destination === undefined || others.length > 0 || rest.length > 0) {
    throw new UsageError(
      `${name} must be SOURCE:DESTINATION or SOURCE:DESTINATION=THRESHOLD, got ${JSON.stringify(text)}`,
    )
  }
  return {
    source: parseServiceName(source, `${name} ${JSON.stringify(text)}: the source`),
    destination: parseServiceName(destination, `${name} ${JSON.stringify(text)}: the destination`),
    accumulatorThreshold:
      threshold === undefined ? undefined : numberFrom(0)(threshold, `${name} ${JSON.stringify(text)}: the threshold`),
  }
}

/** The incident rule, for the daemon and for replay alike. */
export const ruleFlags = {
  'incident-threshold': withDefault(numberFrom(0), '10', 'an incident opens when the temperature is above this'),
  'clear-threshold': withDefault(numberFrom(0), '5', 'an incident closes when the temperature is at or below this'),
  'accumulator-threshold': withDefault(numberFrom(0), '5', 'a pair is hot when its accumulator is above this'),
  'accumulator-max': withDefault(numberAbove(0), '20', 'highest value of an accumulator'),
  'cool-by': withDefault(numberAbove(0), '2', 'what an accumulator loses in a poll without anomaly'),
  'no-data-timeout-seconds': withDefault(
    numberAbove(0),
    '600',
    'silence on all pairs that are not cold, after which an incident closes as expired',
  ),
} as const

/** @throws {UsageError} when the thresholds contradict each other */
export function incidentRules(values: Values<typeof ruleFlags>, pairs: readonly PairFlag[]): IncidentRules {
  const incidentThreshold = values['incident-threshold']
  const clearThreshold = values['clear-threshold']
  const accumulatorMax = values['accumulator-max']
  const watched = pairs.map(({ source, destination, accumulatorThreshold }): WatchedPair => ({
    source,
    destination,
    accumulatorThreshold: accumulatorThreshold ?? values['accumulator-threshold'],
  }))
  const seen = new Set<string>()
  for (const pair of watched) {
    if (seen.has(pairKey(pair))) throw new UsageError(`--pair ${pair.source}:${pair.destination} was given twice`)
    seen.add(pairKey(pair))
  }
  if (clearThreshold > incidentThreshold) {
    throw new UsageError(
      `--clear-threshold must be at most --incident-threshold (${incidentThreshold}), got ${clearThreshold}`,
    )
  }
  if (accumulatorMax * watched.length <= incidentThreshold) {
    throw new UsageError(
      `--accumulator-max must be more than --incident-threshold over the number of pairs (${incidentThreshold} / ${watched.length}), or no incident can ever open, got ${accumulatorMax}`,
    )
  }
  return {
    pairs: watched,
    incidentThreshold,
    clearThreshold,
    coolBy: values['cool-by'],
    accumulatorMax,
    noDataTimeoutSeconds: values['no-data-timeout-seconds'],
  }
}

const flags = {
  pair: repeatable(pairFlag, 'SOURCE:DESTINATION to watch, with =N a threshold of its own'),
  ...ruleFlags,
  'stale-after-seconds': withDefault(
    numberAbove(0),
    '60',
    "age of a monitor's sample from which it says nothing; more than the scrape interval plus the monitor's poll interval",
  ),
  'source-label': pairFlags['source-label'],
  'destination-label': pairFlags['destination-label'],
  'query-window': pairFlags['query-window'],
  'alertmanager-url': repeatable(httpUrl, 'base URL of an Alertmanager to tell of incidents; each is told all of them'),
  maintenance: repeatable(maintenanceFlag, `${MAINTENANCE_FORM}: when incidents are expected, and not sent`),
  ...daemonFlags,
  'prometheus-port': servePort('8083'),
} as const

/** The promises that follow from the flags, as one sentence each. */
export function contractSentences(rules: IncidentRules, pollIntervalSeconds: number): readonly string[] {
  const contract = timingContract(rules)
  const span = (polls: number): string => `${polls} polls (${Number((polls * pollIntervalSeconds).toFixed(3))} s)`
  const never = (sentence: string): string => `${sentence} never`
  const { toSev2, toSev1, tolerated, onePairToClosed, allPairsToClosed } = contract
  const several = rules.pairs.length > 1
  return [
    toSev2 === null ? never('Sev 2 by one pair alone:') : `Sev 2 after ${span(toSev2)} of anomalies on one pair`,
    ...(several ? [toSev1 === null ? never('Sev 1:') : `Sev 1 after ${span(toSev1)} of anomalies on two pairs`] : []),
    tolerated === null
      ? 'tolerated as a transient: anomalies on one pair of any length'
      : `tolerated as a transient: up to ${span(tolerated)} of anomalies on one pair`,
    onePairToClosed === null
      ? never('closed after recovery:')
      : `closed within ${span(onePairToClosed)} of ${several ? "one hot pair's recovery" : 'recovery'}`,
    ...(several && allPairsToClosed !== null
      ? [`closed within ${span(allPairsToClosed)} of the recovery of all pairs`]
      : []),
  ]
}

export const incidentCommand = command({
  name: 'incident',
  describe: "Turns the monitors' anomaly counts into an incident temperature, and that into Sev 1 and Sev 2",
  flags,
  prepare: (values) => {
    if (values.pair.length === 0) {
      throw new UsageError('--pair is required at least once: SOURCE:DESTINATION, as in --pair frontend:cartservice')
    }
    const rules = incidentRules(values, values.pair)
    const pollIntervalSeconds = values['poll-interval-seconds']
    return {
      logFormat: values['log-format'],
      run: async (runtime) => {
        const pairs = rules.pairs.map((pair) => `${pairName(pair)} (threshold ${pair.accumulatorThreshold})`)
        const contract = contractSentences(rules, pollIntervalSeconds)
        runtime.logger.info({ pairs }, 'watching')
        for (const sentence of contract) runtime.logger.info(`timing contract: ${sentence}`)
        if (values.check) return 0
        const pollIntervalMs = Math.round(pollIntervalSeconds * 1000)
        return serveDaemon(
          runtime,
          {
            command: 'incident',
            listenAddress: values['listen-address'],
            port: values['prometheus-port'],
            pollIntervalMs,
          },
          (registry) =>
            createIncidentDetector(
              {
                rules,
                prometheusUrl: values['prometheus-url'],
                pollIntervalMs,
                staleAfterSeconds: values['stale-after-seconds'],
                notifier: createNotifier(
                  {
                    alertmanagerUrls: values['alertmanager-url'],
                    maintenance: values.maintenance,
                    labels: stableLabels(rules.pairs),
                    noDataTimeoutSeconds: rules.noDataTimeoutSeconds,
                    pollIntervalMs,
                    random: Math.random,
                  },
                  runtime,
                  registry,
                ),
                istio: {
                  sourceLabel: values['source-label'],
                  destinationLabel: values['destination-label'],
                  window: values['query-window'],
                },
              },
              runtime,
              registry,
            ),
        )
      },
    }
  },
})
