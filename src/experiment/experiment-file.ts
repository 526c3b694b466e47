import { readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'

import { stringify } from 'yaml'

import { UsageError } from '../core/errors.js'
import type { IncidentRules, WatchedPair } from '../core/incident.js'
import { type Pair, pairKey, parseServiceName } from '../core/pair.js'
import { virtualServicesIn } from '../core/virtual-service-objects.js'
import type { LoadShape, LoadStep, Transient } from '../testbed/load.js'
import { loadTopology, type Range, type Topology } from '../testbed/topology.js'
import { parseVirtualServices, qualifiedHost, shortHost } from '../testbed/virtual-service.js'
import {
  checkKeys,
  integerOf,
  itemsOf,
  numberOf,
  optionalItemsOf,
  readYaml,
  textOf,
  type YamlField,
} from '../io/yaml-field.js'
import { APPLICATIONS, ISTIO_PROMETHEUS, LOAD_IMAGES } from './applications.js'

/** A fault with its time, seconds since the start of the observation. */
export interface Fault {
  readonly name: string
  readonly fromSeconds: number
  readonly toSeconds: number
  /** Edges on which it can be seen, at least one. */
  readonly pairs: readonly Pair[]
  /** VirtualServices as YAML. */
  readonly manifest: string
  /** The delay in milliseconds, and the percentage of requests in (0, 100] that have it: to check that it took effect. */
  readonly delayMs: number
  readonly percent: number
}

/** What must come out for the experiment to be as expected. */
export interface Expected {
  /** The highest severity that is reached; null for no incident. */
  readonly severity: 1 | 2 | null
  /** From the start of the first fault. Undefined: any time. */
  readonly sev2WithinSeconds?: number
  readonly sev1WithinSeconds?: number
  /** From the end of the last fault. */
  readonly resolvedWithinSeconds?: number
  /** Whether any poll is anomalous; undefined: either. */
  readonly anomalies?: boolean
}

/** Where a cluster's application comes from, and how it is reached. */
export interface KubernetesSettings {
  /** A context of the user's kubeconfig. */
  readonly context: string
  /** Where the application is, or is installed. */
  readonly namespace: string
  /** Files or URLs for `kubectl apply -f`; empty: the application is there already. */
  readonly manifests: readonly string[]
  /** A Helm chart instead, with its repository or an oci:// reference; null for none. */
  readonly chart: { readonly name: string; readonly repository: string | null; readonly version: string | null } | null
  /** Namespace and name of Prometheus's Service, and its port. */
  readonly prometheus: { readonly namespace: string; readonly service: string; readonly port: number }
  /** What loads the application, and with which image. */
  readonly loadGenerator: { readonly tool: 'locust' | 'k6'; readonly image: string }
  /** Where users go, as seen inside the cluster. */
  readonly frontendUrl: string
}

/** An experiment whose file is known to be good. All times in seconds. */
export interface Experiment {
  readonly name: string
  readonly description: string
  readonly target: { readonly kind: 'testbed' } | { readonly kind: 'kubernetes'; readonly settings: KubernetesSettings }
  /** A built-in name, or for the testbed a topology file. */
  readonly application: string
  readonly seed: number
  readonly pairs: readonly WatchedPair[]
  readonly trainingSeconds: number
  readonly observedSeconds: number
  /** Of the observation. In training the same steps without transients. */
  readonly load: LoadShape
  /** Users that may come or go in a second. */
  readonly spawnRate: number
  /** How long a user waits between tasks. */
  readonly waitSeconds: Range
  readonly faults: readonly Fault[]
  readonly scrapeIntervalSeconds: number
  readonly queryWindowSeconds: number
  readonly pollIntervalSeconds: number
  readonly recordStepSeconds: number
  /** A name that --model takes. */
  readonly model: string
  readonly incident: Omit<IncidentRules, 'pairs'>
  readonly expected: Expected
}

const MAX_SECONDS = 10 * 86_400
const MAX_USERS = 10_000
/** Fewer samples are no training for any model. */
const MIN_TRAINING_SAMPLES = 30

const SECONDS = { min: 0, max: MAX_SECONDS }
const LENGTH = { min: 1, max: MAX_SECONDS }

/** @throws {UsageError} naming the file, the line and the field */
export function readExperimentFile(
  path: string,
  models: readonly string[],
): { readonly experiment: Experiment; readonly text: string } {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    throw new UsageError(`the experiment must be a file that can be read: ${(error as Error).message}`, {
      cause: error,
    })
  }
  return { experiment: parseExperiment(text, path, models), text }
}

/**
 * @param file - for messages; files that the experiment names are looked for beside it
 * @param models - names that --model takes, the default first
 * @throws {UsageError} naming the file, the line and the field
 */
export function parseExperiment(text: string, file: string, models: readonly string[]): Experiment {
  const [root, second] = readYaml(text, file)
  if (root === undefined) throw new UsageError(`${file} must be an experiment, got an empty file`)
  second?.fail('absent: an experiment is one document')
  checkKeys(root, [
    ...['name', 'description', 'target', 'application', 'seed', 'pairs', 'training', 'observe', 'load', 'faults'],
    ...['timing', 'model', 'incident', 'expect'],
  ])
  const kubernetes = isKubernetes(root.at('target'))
  const application = applicationOf(root.at('application'), { kubernetes, file })
  const target = kubernetes
    ? { kind: 'kubernetes' as const, settings: kubernetesOf(root.at('target'), { application, file }) }
    : { kind: 'testbed' as const }
  const context: Context = { file, topology: loadTopology(application, 'application'), kubernetes }

  const incident = root.at('incident')
  if (incident.value !== undefined) {
    checkKeys(incident, [
      ...['incidentThreshold', 'clearThreshold', 'accumulatorThreshold', 'coolBy', 'accumulatorMax'],
      'noDataTimeoutSeconds',
    ])
  }
  const level = (key: string, fallback: number): number => numberFor(incident.at(key), { min: 0, max: 1e6 }, fallback)
  const accumulatorThreshold = level('accumulatorThreshold', 5)
  const pairs = pairsOf(root.at('pairs'), context, accumulatorThreshold)
  const rules = {
    incidentThreshold: level('incidentThreshold', 10),
    clearThreshold: level('clearThreshold', 5),
    coolBy: numberFor(incident.at('coolBy'), { min: 0.001, max: 1e6 }, 2),
    accumulatorMax: numberFor(incident.at('accumulatorMax'), { min: 0.001, max: 1e6 }, 20),
    noDataTimeoutSeconds: numberFor(incident.at('noDataTimeoutSeconds'), LENGTH, 600),
  }
  if (rules.clearThreshold > rules.incidentThreshold) {
    incident.at('clearThreshold').fail(`at most incidentThreshold (${rules.incidentThreshold})`)
  }
  if (rules.accumulatorMax * pairs.length <= rules.incidentThreshold) {
    incident
      .at('accumulatorMax')
      .fail(`more than incidentThreshold over the number of pairs, or no incident can ever open`)
  }

  const timing = root.at('timing')
  if (timing.value !== undefined) checkKeys(timing, ['scrapeSeconds', 'windowSeconds', 'pollSeconds', 'recordSeconds'])
  const interval = (key: string, fallback: number): number =>
    numberFor(timing.at(key), { min: 0.1, max: 86_400 }, fallback)
  const scrapeIntervalSeconds = interval('scrapeSeconds', 15)
  const queryWindowSeconds = interval('windowSeconds', 60)
  if (scrapeIntervalSeconds < MIN_SCRAPE_SECONDS) {
    timing.at('scrapeSeconds').fail(`a number of at least ${MIN_SCRAPE_SECONDS}`)
  }
  if (queryWindowSeconds < 2 * scrapeIntervalSeconds) {
    timing.at('windowSeconds').fail(`at least two scrapes (${2 * scrapeIntervalSeconds})`)
  }
  const recordStepSeconds = interval('recordSeconds', 15)

  const trainingSeconds = secondsOf(root.at('training'))
  if (trainingSeconds < MIN_TRAINING_SAMPLES * recordStepSeconds) {
    root
      .at('training')
      .at('seconds')
      .fail(`at least ${MIN_TRAINING_SAMPLES} samples of recordSeconds (${MIN_TRAINING_SAMPLES * recordStepSeconds})`)
  }
  const observedSeconds = secondsOf(root.at('observe'))
  const { load, spawnRate, waitSeconds } = loadOf(root.at('load'), context.topology, observedSeconds)
  const faults = faultsOf(root.at('faults'), context, observedSeconds)
  const modelField = root.at('model')
  const model = modelField.value === undefined ? (models[0] ?? '') : textOf(modelField)
  if (!models.includes(model)) modelField.fail(`one of ${models.join(', ')}`)
  const description = root.at('description')
  const seed = root.at('seed')
  return {
    name: nameOf(root.at('name')),
    description: description.value === undefined ? '' : textOf(description),
    target,
    application,
    seed: seed.value === undefined ? 1 : integerOf(seed, { min: 0, max: 2 ** 31 - 1 }),
    pairs,
    trainingSeconds,
    observedSeconds,
    load,
    spawnRate,
    waitSeconds,
    faults,
    scrapeIntervalSeconds,
    queryWindowSeconds,
    pollIntervalSeconds: interval('pollSeconds', 15),
    recordStepSeconds,
    model,
    incident: rules,
    expected: expectedOf(root.at('expect'), { faults, observedSeconds }),
  }
}

/** Scraped more often, the numbers are about Prometheus and no more about the mesh. */
export const MIN_SCRAPE_SECONDS = 0.2

interface Context {
  readonly file: string
  /** What services there are, and who calls whom. */
  readonly topology: Topology
  readonly kubernetes: boolean
}

function numberFor(field: YamlField, range: { readonly min: number; readonly max: number }, fallback: number): number {
  return field.value === undefined ? fallback : numberOf(field, range)
}

function secondsOf(field: YamlField): number {
  checkKeys(field, ['seconds'])
  return numberOf(field.at('seconds'), LENGTH)
}

/** Part of a folder's name and of names in a cluster. */
function nameOf(field: YamlField): string {
  const name = textOf(field)
  return /^[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])?$/.test(name)
    ? name
    : field.fail('lower-case letters, digits and dashes, at most 52')
}

function isKubernetes(field: YamlField): boolean {
  if (field.value === undefined || field.value === 'testbed') return false
  if (typeof field.value === 'string') return field.fail('testbed, or a mapping with kubernetes')
  checkKeys(field, ['kubernetes'])
  return true
}

/** The name of a built-in application, or the path of a topology beside the experiment. */
function applicationOf(
  field: YamlField,
  { kubernetes, file }: { readonly kubernetes: boolean; readonly file: string },
): string {
  const name = textOf(field)
  if (APPLICATIONS.has(name)) return name
  const names = [...APPLICATIONS.keys()].join(', ')
  if (kubernetes) return field.fail(`one of ${names}`)
  return /\.ya?ml$/.test(name) ? besides(file, name) : field.fail(`one of ${names} or a topology's .yaml file`)
}

function besides(file: string, path: string): string {
  return resolve(dirname(file), path)
}

function kubernetesOf(
  target: YamlField,
  { application, file }: { readonly application: string; readonly file: string },
): KubernetesSettings {
  const field = target.at('kubernetes')
  checkKeys(field, ['context', 'namespace', 'application', 'prometheus', 'load', 'frontendUrl'])
  const known = APPLICATIONS.get(application)
  const orElse = (own: YamlField, fallback: string): string => (own.value === undefined ? fallback : textOf(own))
  const prometheus = field.at('prometheus')
  if (prometheus.value !== undefined) checkKeys(prometheus, ['namespace', 'service', 'port'])
  const port = prometheus.at('port')
  const load = field.at('load')
  if (load.value !== undefined) checkKeys(load, ['tool', 'image'])
  const tool = orElse(load.at('tool'), 'locust')
  if (tool !== 'locust' && tool !== 'k6') return load.at('tool').fail('locust or k6')
  return {
    context: textOf(field.at('context')),
    namespace: orElse(field.at('namespace'), known?.namespace ?? 'default'),
    ...installationOf(field.at('application'), { known: known?.publicManifests ?? [], file }),
    prometheus: {
      namespace: orElse(prometheus.at('namespace'), ISTIO_PROMETHEUS.namespace),
      service: orElse(prometheus.at('service'), ISTIO_PROMETHEUS.service),
      port: port.value === undefined ? ISTIO_PROMETHEUS.port : integerOf(port, { min: 1, max: 65_535 }),
    },
    loadGenerator: { tool, image: orElse(load.at('image'), LOAD_IMAGES[tool]) },
    frontendUrl: urlOf(field.at('frontendUrl'), known?.frontendUrl ?? ''),
  }
}

function urlOf(field: YamlField, fallback: string): string {
  if (field.value === undefined) return fallback
  const text = textOf(field)
  return /^https?:\/\/[^/]/.test(text) && URL.canParse(text) ? text : field.fail('an http or https URL')
}

/** From its public address unless the file says where from, or that it is there already. */
function installationOf(
  field: YamlField,
  { known, file }: { readonly known: readonly string[]; readonly file: string },
): Pick<KubernetesSettings, 'manifests' | 'chart'> {
  if (field.value === undefined) return { manifests: known, chart: null }
  if (field.value === 'installed') return { manifests: [], chart: null }
  if (typeof field.value === 'string') return field.fail('installed, or a mapping with manifests or with chart')
  checkKeys(field, ['manifests', 'chart'])
  const chart = field.at('chart')
  if (chart.value === undefined) {
    const manifests = itemsOf(field.at('manifests')).map((item) => {
      const text = textOf(item)
      return /^https?:\/\//.test(text) ? text : besides(file, text)
    })
    return manifests.length === 0 ? field.at('manifests').fail('at least one manifest') : { manifests, chart: null }
  }
  if (field.at('manifests').value !== undefined) return chart.fail('absent where manifests are given')
  checkKeys(chart, ['name', 'repository', 'version'])
  const optional = (own: YamlField): string | null => (own.value === undefined ? null : textOf(own))
  return {
    manifests: [],
    chart: {
      name: textOf(chart.at('name')),
      repository: optional(chart.at('repository')),
      version: optional(chart.at('version')),
    },
  }
}

/** `SOURCE:DESTINATION`, with `=N` a threshold of its own. */
function pairsOf(field: YamlField, context: Context, accumulatorThreshold: number): readonly WatchedPair[] {
  const seen = new Set<string>()
  const pairs = itemsOf(field).map((item) => {
    const [, edge = '', threshold] = /^([^=]*)(?:=(\d+(?:\.\d+)?))?$/.exec(textOf(item)) ?? []
    if (edge === '') return item.fail('SOURCE:DESTINATION or SOURCE:DESTINATION=THRESHOLD')
    const pair = pairAt(item, edge, context)
    if (seen.has(pairKey(pair))) item.fail('a pair that was not given before')
    seen.add(pairKey(pair))
    return { ...pair, accumulatorThreshold: threshold === undefined ? accumulatorThreshold : Number(threshold) }
  })
  return pairs.length === 0 ? field.fail('at least one pair') : pairs
}

function pairAt(field: YamlField, text: string, { topology, kubernetes }: Context): Pair {
  const [source = '', destination, ...rest] = text.split(':')
  if (destination === undefined || rest.length > 0) return field.fail('SOURCE:DESTINATION')
  for (const name of [source, destination]) {
    try {
      parseServiceName(name, 'a service')
    } catch {
      return field.fail('SOURCE:DESTINATION, two service names')
    }
    if (!topology.services.some((service) => service.name === name)) {
      return field.fail(
        `a pair of services of ${topology.name} (${topology.services.map((service) => service.name).join(', ')}; ${name} is none)`,
      )
    }
  }
  // In a cluster there may be more calls than the topology knows.
  const callees = calleesOf(topology, source)
  if (!kubernetes && !callees.includes(destination)) {
    return field.fail(
      `a pair of which one calls the other (${source} calls ${callees.length === 0 ? 'nobody' : callees.join(', ')})`,
    )
  }
  return { source, destination }
}

function calleesOf({ services }: Topology, caller: string): readonly string[] {
  const endpoints = services.find(({ name }) => name === caller)?.endpoints.values() ?? []
  return [...new Set([...endpoints].flatMap((steps) => steps.flat().map(({ service }) => service)))]
}

function loadOf(
  field: YamlField,
  topology: Topology,
  observedSeconds: number,
): Pick<Experiment, 'load' | 'spawnRate' | 'waitSeconds'> {
  checkKeys(field, ['users', 'stepSeconds', 'spawnRate', 'waitSeconds', 'transients'])
  const users = field.at('users')
  const steps = Array.isArray(users.value) ? itemsOf(users).map(stepOf) : [stepOf(users)]
  if (steps.length === 0) users.fail('at least one number of users')
  const transients = optionalItemsOf(field.at('transients')).map((item): Transient => {
    checkKeys(item, ['from', 'to', 'users'])
    const fromSeconds = numberOf(item.at('from'), SECONDS)
    const toSeconds = numberOf(item.at('to'), SECONDS)
    if (toSeconds <= fromSeconds) item.at('to').fail(`after from (${fromSeconds})`)
    if (toSeconds > observedSeconds) item.at('to').fail(`within the observation, at most ${observedSeconds}`)
    return { fromSeconds, toSeconds, users: integerOf(item.at('users'), { min: 1, max: MAX_USERS }) }
  })
  const wait = field.at('waitSeconds')
  return {
    load: { steps, stepSeconds: numberFor(field.at('stepSeconds'), LENGTH, 120), transients },
    spawnRate: numberFor(field.at('spawnRate'), { min: 0.001, max: 100_000 }, 10),
    waitSeconds: wait.value === undefined ? topology.waitSeconds : rangeOf(wait),
  }
}

/** `50`, or `50-200` for a ramp. */
function stepOf(field: YamlField): LoadStep {
  const expected = `users from 0 to ${MAX_USERS}, or a ramp such as 50-200`
  const numbers = numbersOf(field, expected)
  const [fromUsers = NaN, toUsers = fromUsers] = numbers
  const good = numbers.every((users) => Number.isInteger(users) && users <= MAX_USERS)
  return good ? { fromUsers, toUsers } : field.fail(expected)
}

/** `5`, or `1-10`. */
function rangeOf(field: YamlField): Range {
  const expected = 'seconds, or a range such as 1-10'
  const [min = NaN, max = min] = numbersOf(field, expected)
  return max >= min && max <= 86_400 ? { min, max } : field.fail(expected)
}

/** One or two numbers, none of them negative: `5` or `1-10`. */
function numbersOf(field: YamlField, expected: string): readonly number[] {
  const { value } = field
  if (typeof value === 'number') return value >= 0 ? [value] : field.fail(expected)
  const range = typeof value === 'string' ? /^(\d+(?:\.\d+)?)\s*-\s*(\d+(?:\.\d+)?)$/.exec(value) : null
  return range === null ? field.fail(expected) : range.slice(1).map(Number)
}

/** A fault, and the hosts whose routes it changes, fully qualified. */
interface FaultOnHosts extends Fault {
  readonly hosts: readonly string[]
}

function faultsOf(field: YamlField, context: Context, observedSeconds: number): readonly Fault[] {
  const before: FaultOnHosts[] = []
  return optionalItemsOf(field).map((item) => {
    checkKeys(item, ['name', 'from', 'to', 'delay', 'manifest', 'pairs', 'delayMs', 'percent'])
    const name = textOf(item.at('name'))
    if (before.some((other) => other.name === name)) item.at('name').fail('a name that no other fault has')
    const fromSeconds = numberOf(item.at('from'), SECONDS)
    const to = item.at('to')
    if (to.value === undefined) to.fail('there: a fault ends within the observation')
    const toSeconds = numberOf(to, SECONDS)
    if (toSeconds <= fromSeconds) to.fail(`after from (${fromSeconds})`)
    if (toSeconds > observedSeconds) to.fail(`within the observation, at most ${observedSeconds}`)
    const { hosts, ...what } = item.at('delay').value === undefined ? manifestOf(item, context) : delayOf(item, context)
    const clash = before.find(
      (other) =>
        other.fromSeconds < toSeconds &&
        fromSeconds < other.toSeconds &&
        other.hosts.some((host) => hosts.some((own) => sameHost(host, own))),
    )
    if (clash !== undefined) {
      const shared = hosts.find((host) => clash.hosts.some((other) => sameHost(host, other))) ?? ''
      item
        .at('from')
        .fail(
          `at or after ${clash.toSeconds}, the end of ${JSON.stringify(clash.name)}: both change the routes of ${shortHost(shared)}, and a host takes one VirtualService`,
        )
    }
    const fault = { name, fromSeconds, toSeconds, ...what }
    before.push({ ...fault, hosts })
    return fault
  })
}

function sameHost(a: string, b: string): boolean {
  const matches = (pattern: string, host: string): boolean => pattern.startsWith('*') && host.endsWith(pattern.slice(1))
  return a === b || matches(a, b) || matches(b, a)
}

type FaultWithoutTime = Omit<FaultOnHosts, 'name' | 'fromSeconds' | 'toSeconds'>

const PERCENT = { min: 0.1, max: 100 }

function delayOf(item: YamlField, context: Context): FaultWithoutTime {
  for (const key of ['manifest', 'pairs', 'delayMs', 'percent']) {
    if (item.at(key).value !== undefined) item.at(key).fail('absent where a delay is given')
  }
  const field = item.at('delay')
  checkKeys(field, ['pair', 'milliseconds', 'percent'])
  const pair = pairAt(field.at('pair'), textOf(field.at('pair')), context)
  const delayMs = numberOf(field.at('milliseconds'), { min: 1, max: 3_600_000 })
  const percent = numberFor(field.at('percent'), PERCENT, 100)
  return {
    pairs: [pair],
    manifest: delayManifest(pair, { delayMs, percent }),
    delayMs,
    percent,
    hosts: [qualifiedHost(pair.destination, context.topology.namespace)],
  }
}

function delayManifest(
  { source, destination }: Pair,
  { delayMs, percent }: { readonly delayMs: number; readonly percent: number },
): string {
  const route = [{ destination: { host: destination } }]
  return stringify(
    {
      apiVersion: 'networking.istio.io/v1',
      kind: 'VirtualService',
      metadata: { name: `${source}-${destination}-delay` },
      spec: {
        hosts: [destination],
        http: [
          {
            name: `${source}-delayed`,
            match: [{ sourceLabels: { app: source } }],
            fault: { delay: { fixedDelay: `${delayMs}ms`, percentage: { value: percent } } },
            route,
          },
          { name: 'undelayed', route },
        ],
      },
    },
    { aliasDuplicateObjects: false },
  )
}

function manifestOf(item: YamlField, context: Context): FaultWithoutTime {
  const { topology } = context
  const field = item.at('manifest')
  if (field.value === undefined) return field.fail('there, or delay')
  const path = besides(context.file, textOf(field))
  let manifest: string
  try {
    manifest = readFileSync(path, 'utf8')
  } catch (error) {
    return field.fail(`a file that can be read (${(error as Error).message})`)
  }
  const pairs = itemsOf(item.at('pairs')).map((pair) => pairAt(pair, textOf(pair), context))
  if (pairs.length === 0) item.at('pairs').fail('at least one pair on which the fault can be seen')
  const hosts = hostsIn(field, { manifest, path, context })
  if (hosts.length === 0) field.fail('a manifest of at least one VirtualService')
  const known = topology.services.map(({ name }) => qualifiedHost(name, topology.namespace))
  const unknown = hosts.find((host) => !host.startsWith('*') && !known.includes(host))
  if (!context.kubernetes && unknown !== undefined) {
    field.fail(`a manifest for services of ${topology.name} (${shortHost(unknown)} is none)`)
  }
  return {
    pairs,
    manifest,
    delayMs: numberOf(item.at('delayMs'), { min: 1, max: 3_600_000 }),
    percent: numberFor(item.at('percent'), PERCENT, 100),
    hosts,
  }
}

/** The testbed takes what it can act on, and refuses the rest; a cluster takes more. */
function hostsIn(
  field: YamlField,
  { manifest, path, context }: { readonly manifest: string; readonly path: string; readonly context: Context },
): readonly string[] {
  const { namespace } = context.topology
  try {
    if (!context.kubernetes) {
      return parseVirtualServices(manifest, { file: path, namespace }).virtualServices.flatMap(({ hosts }) => hosts)
    }
    const documents = readYaml(manifest, path).map(({ value }) => ({ value, where: path }))
    return virtualServicesIn(documents).flatMap(({ hosts }) => hosts.map((host) => qualifiedHost(host, namespace)))
  } catch (error) {
    if (!(error instanceof UsageError)) throw error
    return field.fail(`a manifest of VirtualServices (${error.message})`)
  }
}

const LIMITS = ['sev2WithinSeconds', 'sev1WithinSeconds', 'resolvedWithinSeconds'] as const

function expectedOf(
  field: YamlField,
  { faults, observedSeconds }: { readonly faults: readonly Fault[]; readonly observedSeconds: number },
): Expected {
  checkKeys(field, ['severity', ...LIMITS, 'anomalies'])
  const found = field.at('severity').value
  const severity =
    found === 'none' ? null : found === 1 || found === 2 ? found : field.at('severity').fail('none, 2 or 1')
  const limits = LIMITS.filter((key) => field.at(key).value !== undefined)
  const firstSeconds = Math.min(...faults.map(({ fromSeconds }) => fromSeconds))
  const lastSeconds = Math.max(...faults.map(({ toSeconds }) => toSeconds))
  const within = Object.fromEntries(
    limits.map((key) => {
      const limit = field.at(key)
      if (severity === null) limit.fail('absent where no incident is expected')
      if (faults.length === 0) limit.fail('absent where there is no fault to count from')
      if (key === 'sev1WithinSeconds' && severity === 2) limit.fail('absent where Sev 2 is the highest severity')
      const most = observedSeconds - (key === 'resolvedWithinSeconds' ? lastSeconds : firstSeconds)
      return [key, numberOf(limit, { min: 1, max: most })]
    }),
  )
  const anomalies = field.at('anomalies')
  if (anomalies.value === undefined) return { severity, ...within }
  return typeof anomalies.value === 'boolean'
    ? { severity, ...within, anomalies: anomalies.value }
    : anomalies.fail('true or false')
}
