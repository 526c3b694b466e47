import { pickWeighted, type Random } from './random.js'
import {
  checkKeys,
  entriesOf,
  integerOf,
  itemsOf,
  numberOf,
  optionalItemsOf,
  readYaml,
  textOf,
  type YamlField,
} from '../io/yaml-field.js'

/** What of Istio's VirtualService a sidecar of the testbed acts on: routes by caller and path, delays and aborts. */
export interface VirtualService {
  readonly name: string
  readonly namespace: string
  /** Fully qualified, for example cartservice.default.svc.cluster.local. */
  readonly hosts: readonly string[]
  /** The first that matches wins. */
  readonly routes: readonly HttpRoute[]
}

export interface HttpRoute {
  /** One of them must hold; none at all matches every request. */
  readonly matches: readonly Match[]
  readonly delay: { readonly delayMs: number; readonly percent: number } | null
  readonly abort: { readonly status: number; readonly percent: number } | null
  /** Fully qualified hosts. */
  readonly destinations: readonly { readonly host: string; readonly weight: number }[]
}

export interface Match {
  readonly sourceLabels: ReadonlyMap<string, string>
  readonly path: ((path: string) => boolean) | null
}

export interface Parsed {
  readonly virtualServices: readonly VirtualService[]
  /** Fields that Istio knows and the testbed does not act on. */
  readonly ignored: readonly string[]
}

export interface MeshRequest {
  readonly sourceLabels: Readonly<Record<string, string>>
  /** Fully qualified. */
  readonly host: string
  readonly path: string
}

export interface Decision {
  readonly delayMs: number
  /** The status that the caller's sidecar answers in the destination's place. */
  readonly abortStatus: number | null
  /** False when a VirtualService has routes for the host and none of them matches: Envoy answers 404. */
  readonly routed: boolean
  /** Fully qualified. */
  readonly destinationHost: string
}

const API_VERSIONS = ['v1', 'v1beta1', 'v1alpha3'].map((version) => `networking.istio.io/${version}`)

/** Fields of an HTTPRoute, by Istio's reference for networking.istio.io/v1, that do nothing here. */
const ROUTE_IGNORED = ['timeout', 'retries', 'mirror', 'mirrorPercentage', 'mirrors', 'corsPolicy', 'headers']

/** `host` as the cluster's DNS would complete it. */
export function qualifiedHost(host: string, namespace: string): string {
  return host.includes('.') || host === '*' ? host : `${host}.${namespace}.svc.cluster.local`
}

/**
 * Reads a manifest as the API server would: all of it is good, or none of it is taken.
 *
 * @param namespace - of objects that name none, as `kubectl -n` gives it
 * @throws {UsageError} naming the file, the line and the field
 */
export function parseVirtualServices(
  text: string,
  { file, namespace }: { readonly file: string; readonly namespace: string },
): Parsed {
  const ignored: string[] = []
  const virtualServices = readYaml(text, file).map((document) => {
    checkKeys(document, ['apiVersion', 'kind', 'metadata', 'spec', 'status'])
    if (document.at('kind').value !== 'VirtualService') document.at('kind').fail('VirtualService')
    if (!API_VERSIONS.some((version) => version === document.at('apiVersion').value)) {
      document.at('apiVersion').fail(`one of ${API_VERSIONS.join(', ')}`)
    }
    const metadata = document.at('metadata')
    const own = metadata.at('namespace')
    const context = { namespace: own.value === undefined ? namespace : textOf(own), ignored }
    return virtualServiceOf(document.at('spec'), textOf(metadata.at('name')), context)
  })
  return { virtualServices, ignored }
}

interface Context {
  readonly namespace: string
  readonly ignored: string[]
}

function virtualServiceOf(spec: YamlField, name: string, context: Context): VirtualService {
  checkKeys(spec, ['hosts', 'gateways', 'http', 'tls', 'tcp', 'exportTo'])
  for (const key of ['tls', 'tcp', 'exportTo']) ignore(spec, key, context)
  const gateways = optionalItemsOf(spec.at('gateways')).map(textOf)
  const hosts = itemsOf(spec.at('hosts')).map((host) => qualifiedHost(textOf(host), context.namespace))
  if (hosts.length === 0) spec.at('hosts').fail('at least one host')
  const routes = optionalItemsOf(spec.at('http')).map((route) => httpRouteOf(route, context))
  // Routes of a gateway alone are none of the sidecars'.
  const inMesh = gateways.length === 0 || gateways.includes('mesh')
  return { name, namespace: context.namespace, hosts, routes: inMesh ? routes : [] }
}

function httpRouteOf(field: YamlField, context: Context): HttpRoute {
  checkKeys(field, ['name', 'match', 'fault', 'route', ...ROUTE_IGNORED])
  for (const key of ROUTE_IGNORED) ignore(field, key, context)
  const fault = field.at('fault')
  if (fault.value !== undefined) checkKeys(fault, ['delay', 'abort'])
  const destinations = itemsOf(field.at('route'))
  if (destinations.length === 0) field.at('route').fail('at least one destination')
  return {
    matches: optionalItemsOf(field.at('match')).map(matchOf),
    delay: delayOf(fault.at('delay')),
    abort: abortOf(fault.at('abort')),
    destinations: destinations.map((destination) => destinationOf(destination, destinations.length, context)),
  }
}

function destinationOf(
  field: YamlField,
  destinations: number,
  context: Context,
): { readonly host: string; readonly weight: number } {
  checkKeys(field, ['destination', 'weight', 'headers'])
  ignore(field, 'headers', context)
  const destination = field.at('destination')
  checkKeys(destination, ['host', 'subset', 'port'])
  for (const key of ['subset', 'port']) ignore(destination, key, context)
  const weight = field.at('weight')
  const alone = destinations === 1 && weight.value === undefined
  return {
    host: qualifiedHost(textOf(destination.at('host')), context.namespace),
    weight: alone ? 100 : integerOf(weight, { min: 0, max: 2 ** 31 - 1 }),
  }
}

/** A condition that cannot be judged here is refused: dropping it would make the fault hit more than it says. */
function matchOf(field: YamlField): Match {
  checkKeys(field, ['name', 'sourceLabels', 'uri'])
  const labels = field.at('sourceLabels')
  const entries = labels.value === undefined ? [] : entriesOf(labels)
  return {
    sourceLabels: new Map(entries.map(([key, value]) => [key, textOf(value)])),
    path: field.at('uri').value === undefined ? null : pathMatchOf(field.at('uri')),
  }
}

function pathMatchOf(field: YamlField): (path: string) => boolean {
  checkKeys(field, ['exact', 'prefix', 'regex'])
  const [kind, ...others] = entriesOf(field)
  if (kind === undefined || others.length > 0) return field.fail('one of exact, prefix, regex')
  const [how, value] = kind
  const wanted = textOf(value)
  if (how === 'exact') return (path) => path === wanted
  if (how === 'prefix') return (path) => path.startsWith(wanted)
  let pattern: RegExp
  try {
    pattern = new RegExp(`^(?:${wanted})$`, 'u')
  } catch {
    return value.fail('a regular expression')
  }
  return (path) => pattern.test(path)
}

function delayOf(field: YamlField): HttpRoute['delay'] {
  if (field.value === undefined) return null
  checkKeys(field, ['fixedDelay', 'percentage', 'percent'])
  const delayMs = parseGoDurationMs(textOf(field.at('fixedDelay')))
  if (delayMs === null || delayMs < 1) return field.at('fixedDelay').fail('a duration of at least 1ms, such as 0.2s')
  return { delayMs, percent: percentOf(field) }
}

function abortOf(field: YamlField): HttpRoute['abort'] {
  if (field.value === undefined) return null
  checkKeys(field, ['httpStatus', 'percentage', 'percent'])
  return { status: integerOf(field.at('httpStatus'), { min: 200, max: 599 }), percent: percentOf(field) }
}

/** Every request when nothing is said; none when `percentage` has no `value`, since that is a protobuf double. */
function percentOf(fault: YamlField): number {
  const percentage = fault.at('percentage')
  if (percentage.value !== undefined) {
    checkKeys(percentage, ['value'])
    const value = percentage.at('value')
    return value.value === undefined ? 0 : numberOf(value, { min: 0, max: 100 })
  }
  const percent = fault.at('percent')
  return percent.value === undefined ? 100 : integerOf(percent, { min: 0, max: 100 })
}

function ignore(field: YamlField, key: string, { ignored }: Context): void {
  if (field.at(key).value !== undefined && !ignored.includes(key)) ignored.push(key)
}

const GO_UNIT_MS: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
}

/** A Go duration such as 0.2s, .2s, 200ms or 1m30s in milliseconds; null when it is none or negative. */
export function parseGoDurationMs(text: string): number | null {
  if (!/^(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|ms|s|m|h))+$/.test(text)) return null
  let totalMs = 0
  for (const [, amount, unit] of text.matchAll(/(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)/g)) {
    totalMs += Number(amount) * (GO_UNIT_MS[unit ?? ''] ?? NaN)
  }
  return totalMs
}

/** What the caller's sidecar does with a request. Delay and abort are drawn apart, as Envoy's fault filter does. */
export function decide(virtualServices: readonly VirtualService[], request: MeshRequest, random: Random): Decision {
  const untouched = { delayMs: 0, abortStatus: null, routed: true, destinationHost: request.host }
  const found = virtualServices.find(
    ({ hosts, routes }) => routes.length > 0 && hosts.some((host) => hostMatches(host, request.host)),
  )
  if (found === undefined) return untouched
  const route = found.routes.find(
    ({ matches }) => matches.length === 0 || matches.some((match) => holds(match, request)),
  )
  if (route === undefined) return { ...untouched, routed: false }
  const { delay, abort, destinations } = route
  const delayMs = delay !== null && random() * 100 < delay.percent ? delay.delayMs : 0
  const abortStatus = abort !== null && random() * 100 < abort.percent ? abort.status : null
  const weighted = destinations.filter(({ weight }) => weight > 0)
  const [only] = weighted
  const destination = weighted.length > 1 ? pickWeighted(random, weighted) : only
  return { delayMs, abortStatus, routed: destination !== undefined, destinationHost: destination?.host ?? request.host }
}

function hostMatches(pattern: string, host: string): boolean {
  return pattern === host || (pattern.startsWith('*') && host.endsWith(pattern.slice(1)))
}

function holds({ sourceLabels, path }: Match, request: MeshRequest): boolean {
  for (const [key, value] of sourceLabels) if (request.sourceLabels[key] !== value) return false
  return path === null || path(request.path)
}

/** What a VirtualService does, for people: `app=frontend -> cartservice: delay of 200 ms for 100 % of requests`. */
export function inWords({ hosts, routes }: VirtualService): string {
  const faults = routes.flatMap(({ matches, delay, abort }) => {
    const what = [
      ...(delay === null ? [] : [`delay of ${delay.delayMs} ms for ${delay.percent} % of requests`]),
      ...(abort === null ? [] : [`abort with ${abort.status} for ${abort.percent} % of requests`]),
    ]
    if (what.length === 0) return []
    const callers = matches.map(({ sourceLabels, path }) => {
      const labels = [...sourceLabels].map(([key, value]) => `${key}=${value}`).join(',')
      return `${labels === '' ? 'all' : labels}${path === null ? '' : ' on some paths'}`
    })
    return [
      `${callers.length === 0 ? 'all' : callers.join(' or ')} -> ${hosts.map(shortHost).join(', ')}: ${what.join(' and ')}`,
    ]
  })
  return faults.length === 0 ? `routes of ${hosts.map(shortHost).join(', ')} without a fault` : faults.join('; ')
}

export function shortHost(host: string): string {
  return host.startsWith('*') ? host : (host.split('.', 1)[0] ?? host)
}
