import { stableLabels } from '../core/alert.js'
import { type IncidentRules, type TimingContract, timingContract, type WatchedPair } from '../core/incident.js'
import { UsageError } from '../core/errors.js'
import { litAbove, type MeshRules } from '../core/mesh-incident.js'
import { parseSelector } from '../core/mesh-query.js'
import { pairKey, pairName, parseServiceName } from '../core/pair.js'
import { createMeshNotifier, createNotifier } from '../io/alertmanager.js'
import { withAccess } from '../io/http-client.js'
import { type Access, readHttpConfigFile } from '../io/http-config.js'
import { createIncidentDetector } from '../io/incident-detector.js'
import { createMeshIncidentDetector } from '../io/mesh-incident-detector.js'
import type { FromFiles } from '../io/secret-file.js'
import { serveDaemon } from '../io/serve-daemon.js'
import { command } from './command.js'
import { daemonFlags, servePort, webConfig } from './daemon-flags.js'
import {
  anyText,
  httpUrl,
  numberAbove,
  numberFrom,
  optional,
  repeatable,
  toggle,
  type Values,
  withDefault,
} from './flags.js'
import { MAINTENANCE_FORM, maintenanceFlag } from './maintenance-flag.js'
import { pairFlags } from './monitor.js'
import { prometheusAccess } from './prometheus-flags.js'

export interface PairFlag {
  readonly source: string
  readonly destination: string
  /** Undefined: --accumulator-threshold. */
  readonly accumulatorThreshold: number | undefined
}

/** `frontend:cartservice`, or `frontend:cartservice=7` with a threshold of its own. */
export function pairFlag(text: string, name: string): PairFlag {
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
  const limits = incidentLimits(values)
  const { incidentThreshold, accumulatorMax } = limits
  if (accumulatorMax * watched.length <= incidentThreshold) {
    throw new UsageError(
      `--accumulator-max must be more than --incident-threshold over the number of pairs (${incidentThreshold} / ${watched.length}), or no incident can ever open, got ${accumulatorMax}`,
    )
  }
  return { pairs: watched, ...limits }
}

/** The rule for a mesh. @throws {UsageError} when the thresholds contradict each other */
export function meshIncidentRules(values: Values<typeof ruleFlags>): MeshRules {
  const rules = { ...incidentLimits(values), accumulatorThreshold: values['accumulator-threshold'] }
  const least = litAbove(rules)
  if (rules.accumulatorMax <= least) {
    throw new UsageError(
      `--accumulator-max must be more than the lower of --accumulator-threshold and --incident-threshold (${least}), or no incident can ever open, got ${rules.accumulatorMax}`,
    )
  }
  return rules
}

function incidentLimits(values: Values<typeof ruleFlags>): Omit<IncidentRules, 'pairs'> {
  const incidentThreshold = values['incident-threshold']
  const clearThreshold = values['clear-threshold']
  if (clearThreshold > incidentThreshold) {
    throw new UsageError(
      `--clear-threshold must be at most --incident-threshold (${incidentThreshold}), got ${clearThreshold}`,
    )
  }
  return {
    incidentThreshold,
    clearThreshold,
    coolBy: values['cool-by'],
    accumulatorMax: values['accumulator-max'],
    noDataTimeoutSeconds: values['no-data-timeout-seconds'],
  }
}

const flags = {
  pair: repeatable(pairFlag, 'SOURCE:DESTINATION to watch, with =N a threshold of its own'),
  mesh: toggle('watch every pair that a monitor exports, instead of some: an incident for each part of the mesh'),
  selector: optional(
    parseSelector,
    'with --mesh: which monitors\' series, as label matchers such as job="meshfever"; all unless given',
  ),
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
  'alertmanager-http-config-file': optional(
    anyText,
    "TLS and credentials for the Alertmanagers, in the format of promtool's --http.config.file",
  ),
  maintenance: repeatable(maintenanceFlag, `${MAINTENANCE_FORM}: when incidents are expected, and not sent`),
  ...daemonFlags,
  'prometheus-port': servePort('8083'),
} as const

/** @throws {UsageError} when the file cannot be used, or is of no use */
function alertmanagerAccessOf(values: Values<typeof flags>): FromFiles<Access> | undefined {
  const flag = '--alertmanager-http-config-file'
  const path = values['alertmanager-http-config-file']
  const urls = values['alertmanager-url']
  if (path === undefined) return undefined
  if (urls.length === 0) throw new UsageError(`${flag} is of no use without --alertmanager-url`)
  return readHttpConfigFile(path, { flag, urls })
}

/** The promises that follow from the flags, as one sentence each. */
export function contractSentences(rules: IncidentRules, pollIntervalSeconds: number): readonly string[] {
  const twoPairs = rules.pairs.length > 1 ? 'two pairs' : null
  return sentencesOf(timingContract(rules), { twoPairs, pollIntervalSeconds })
}

/** The same for a mesh, where the pairs of an incident share services. */
export function meshContractSentences(rules: MeshRules, pollIntervalSeconds: number): readonly string[] {
  const { accumulatorThreshold } = rules
  const pair = { source: 'a', destination: 'b', accumulatorThreshold }
  const contract = timingContract({ ...rules, pairs: [pair, pair] })
  // Of very many pairs, what the last of them has left is too much until it is nothing.
  const allPairsToClosed = timingContract({ ...rules, pairs: [pair], clearThreshold: 0 }).onePairToClosed
  return [
    ...sentencesOf(
      { ...contract, allPairsToClosed },
      { twoPairs: 'two pairs that share a service', pollIntervalSeconds },
    ),
    `tolerated as a transient: up to ${spanOf(Math.floor(litAbove(rules)), pollIntervalSeconds)} of anomalies on any number of pairs`,
  ]
}

function spanOf(polls: number, pollIntervalSeconds: number): string {
  return `${polls} polls (${Number((polls * pollIntervalSeconds).toFixed(3))} s)`
}

function sentencesOf(
  { toSev2, toSev1, tolerated, onePairToClosed, allPairsToClosed }: TimingContract,
  { twoPairs, pollIntervalSeconds }: { readonly twoPairs: string | null; readonly pollIntervalSeconds: number },
): readonly string[] {
  const span = (polls: number): string => spanOf(polls, pollIntervalSeconds)
  const never = (sentence: string): string => `${sentence} never`
  const several = twoPairs !== null
  return [
    toSev2 === null ? never('Sev 2 by one pair alone:') : `Sev 2 after ${span(toSev2)} of anomalies on one pair`,
    ...(several ? [toSev1 === null ? never('Sev 1:') : `Sev 1 after ${span(toSev1)} of anomalies on ${twoPairs}`] : []),
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

/** What is watched. @throws {UsageError} when the flags do not say, or contradict each other */
function watchOf(
  values: Values<typeof flags>,
): { readonly kind: 'pairs'; readonly rules: IncidentRules } | { readonly kind: 'mesh'; readonly rules: MeshRules } {
  const [pair] = values.pair
  if (values.mesh) {
    if (pair !== undefined) {
      throw new UsageError(
        `--pair is not for --mesh, which watches every pair that a monitor exports, got ${pair.source}:${pair.destination}`,
      )
    }
    return { kind: 'mesh', rules: meshIncidentRules(values) }
  }
  if (values.selector !== undefined) throw new UsageError('--selector is for --mesh, which is not given')
  if (pair === undefined) {
    throw new UsageError(
      '--pair is required at least once: SOURCE:DESTINATION, as in --pair frontend:cartservice; or --mesh for all pairs',
    )
  }
  return { kind: 'pairs', rules: incidentRules(values, values.pair) }
}

export const incidentCommand = command({
  name: 'incident',
  describe: "Turns the monitors' anomaly counts into an incident temperature, and that into Sev 1 and Sev 2",
  flags,
  prepare: (values) => {
    const watch = watchOf(values)
    const pollIntervalSeconds = values['poll-interval-seconds']
    const access = prometheusAccess(values)
    const alertmanagerAccess = alertmanagerAccessOf(values)
    const web = webConfig(values)
    return {
      logFormat: values['log-format'],
      frugal: watch.kind === 'pairs',
      run: async (runtime) => {
        if (watch.kind === 'pairs') {
          const pairs = watch.rules.pairs.map((pair) => `${pairName(pair)} (threshold ${pair.accumulatorThreshold})`)
          runtime.logger.info({ pairs }, 'watching')
        } else {
          runtime.logger.info({ selector: values.selector?.text ?? '', rules: watch.rules }, 'watching a mesh')
        }
        const contract =
          watch.kind === 'pairs'
            ? contractSentences(watch.rules, pollIntervalSeconds)
            : meshContractSentences(watch.rules, pollIntervalSeconds)
        for (const sentence of contract) runtime.logger.info(`timing contract: ${sentence}`)
        if (values.check) return 0
        const pollIntervalMs = Math.round(pollIntervalSeconds * 1000)
        const asking = {
          prometheusUrl: values['prometheus-url'],
          pollIntervalMs,
          staleAfterSeconds: values['stale-after-seconds'],
          istio: {
            sourceLabel: values['source-label'],
            destinationLabel: values['destination-label'],
            window: values['query-window'],
          },
        }
        const telling = {
          alertmanagerUrls: values['alertmanager-url'],
          maintenance: values.maintenance,
          noDataTimeoutSeconds: watch.rules.noDataTimeoutSeconds,
          pollIntervalMs,
          random: Math.random,
        }
        const toAlertmanager = withAccess(runtime, alertmanagerAccess)
        const toPrometheus = withAccess(runtime, access)
        return serveDaemon(
          runtime,
          {
            command: 'incident',
            listenAddress: values['listen-address'],
            port: values['prometheus-port'],
            pollIntervalMs,
            web,
          },
          (registry) => {
            if (watch.kind === 'pairs') {
              const { rules } = watch
              const labels = stableLabels(rules.pairs)
              const notifier = createNotifier({ ...telling, labels }, toAlertmanager, registry)
              return createIncidentDetector({ ...asking, rules, notifier }, toPrometheus, registry)
            }
            const { rules } = watch
            const notifier = createMeshNotifier(telling, toAlertmanager, registry)
            const selector = values.selector?.text ?? ''
            const { rendered, ...poller } = createMeshIncidentDetector(
              { ...asking, rules, selector, notifier },
              toPrometheus,
              registry,
            )
            return { ...poller, exposition: rendered }
          },
        )
      },
    }
  },
})
