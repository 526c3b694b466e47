import { isObject } from './series.js'

/** A VirtualService as a manifest or a dump of the cluster has it. Read leniently: it is looked at, not acted on. */
export interface DeclaredVirtualService {
  readonly name: string
  /** Null when the object names none: that of whoever applies it. */
  readonly namespace: string | null
  /** File and document, for people. */
  readonly where: string
  /** As written: short names and fully qualified ones. */
  readonly hosts: readonly string[]
  /** Whether sidecars act on it; not so for routes of a gateway alone. */
  readonly inMesh: boolean
  readonly routes: readonly DeclaredRoute[]
  /** The whole spec in one canonical text, to tell two versions apart. */
  readonly fingerprint: string
}

export interface DeclaredRoute {
  /** One of them must hold; none at all matches every request. */
  readonly matches: readonly {
    readonly sourceLabels: ReadonlyMap<string, string>
    /** It has conditions besides sourceLabels. */
    readonly more: boolean
  }[]
  /** For people, for example `fixedDelay 0.2s for 100 % of requests`; those that hit no request are left out. */
  readonly faults: readonly string[]
}

export interface ManifestDocument {
  readonly value: unknown
  readonly where: string
}

/** The VirtualServices among documents of any kind; lists are taken apart. */
export function virtualServicesIn(documents: readonly ManifestDocument[]): readonly DeclaredVirtualService[] {
  return documents.flatMap(({ value, where }) => {
    if (!isObject(value)) return []
    const { kind, apiVersion, items } = value
    if (Array.isArray(items) && typeof kind === 'string' && kind.endsWith('List')) {
      return virtualServicesIn(items.map((item, i) => ({ value: item as unknown, where: `${where}, item ${i + 1}` })))
    }
    const istio = typeof apiVersion === 'string' && apiVersion.startsWith('networking.istio.io/')
    return kind === 'VirtualService' && istio ? [virtualServiceOf(value, where)] : []
  })
}

function virtualServiceOf(document: Readonly<Record<string, unknown>>, where: string): DeclaredVirtualService {
  const metadata = objectAt(document, 'metadata')
  const spec = objectAt(document, 'spec')
  const gateways = textsOf(spec['gateways'])
  return {
    name: textOf(metadata['name']) ?? '(no name)',
    namespace: textOf(metadata['namespace']),
    where,
    hosts: textsOf(spec['hosts']),
    inMesh: gateways.length === 0 || gateways.includes('mesh'),
    routes: itemsOf(spec['http']).map(routeOf),
    fingerprint: canonical(spec),
  }
}

function routeOf(route: Readonly<Record<string, unknown>>): DeclaredRoute {
  const fault = objectAt(route, 'fault')
  return {
    matches: itemsOf(route['match']).map((match) => ({
      sourceLabels: new Map(
        Object.entries(objectAt(match, 'sourceLabels')).map(([label, value]) => [label, String(value)]),
      ),
      more: Object.keys(match).some((key) => key !== 'sourceLabels' && key !== 'name'),
    })),
    faults: (['delay', 'abort'] as const).flatMap((kind) => faultOf(kind, fault[kind])),
  }
}

function faultOf(kind: 'delay' | 'abort', fault: unknown): readonly string[] {
  if (!isObject(fault)) return []
  const percent = percentOf(fault)
  if (percent === 0) return []
  const found = ['fixedDelay', 'exponentialDelay', 'httpStatus', 'grpcStatus'].find((key) => fault[key] !== undefined)
  const value = found === undefined ? undefined : fault[found]
  const amount = typeof value === 'string' || typeof value === 'number' ? ` ${value}` : ''
  const name = found === 'fixedDelay' ? 'fixedDelay' : kind === 'abort' ? 'abort with' : kind
  return [`${name}${amount} for ${percent} % of requests`]
}

/** Every request when nothing is said; none when `percentage` has no `value`, since that is a protobuf double. */
function percentOf(fault: Readonly<Record<string, unknown>>): number {
  const { percentage, percent } = fault
  const value = percentage === undefined ? (percent ?? 100) : isObject(percentage) ? (percentage['value'] ?? 0) : 0
  return typeof value === 'number' ? value : 100
}

function objectAt(parent: Readonly<Record<string, unknown>>, key: string): Readonly<Record<string, unknown>> {
  const value = parent[key]
  return isObject(value) ? value : {}
}

function itemsOf(value: unknown): readonly Readonly<Record<string, unknown>>[] {
  return Array.isArray(value) ? value.filter(isObject) : []
}

function textOf(value: unknown): string | null {
  return typeof value === 'string' && value !== '' ? value : null
}

function textsOf(value: unknown): readonly string[] {
  return Array.isArray(value) ? value.flatMap((item) => textOf(item) ?? []) : []
}

/** JSON with sorted keys: the order in which YAML has them means nothing. */
function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`
  if (!isObject(value)) return JSON.stringify(value) ?? 'null' // eslint-disable-line @typescript-eslint/no-unnecessary-condition
  const entries = Object.keys(value)
    .sort()
    .map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`)
  return `{${entries.join(',')}}`
}

export function virtualServiceName({ namespace, name }: DeclaredVirtualService): string {
  return namespace === null ? name : `${namespace}/${name}`
}

/** Objects of one name that differ: the one applied later replaces the other. An object given twice is no such thing. */
export function sameNames(all: readonly DeclaredVirtualService[]): readonly (readonly DeclaredVirtualService[])[] {
  return groups(
    all,
    (a, b) =>
      a.name === b.name &&
      (a.namespace === null || b.namespace === null || a.namespace === b.namespace) &&
      a.fingerprint !== b.fingerprint,
  )
}

/** Objects of different names whose routes are for one host: a sidecar follows one of them. */
export function sameHosts(all: readonly DeclaredVirtualService[]): readonly (readonly DeclaredVirtualService[])[] {
  const acting = all.filter(({ inMesh, routes }) => inMesh && routes.length > 0)
  return groups(
    acting,
    (a, b) =>
      (a.name !== b.name || (a.namespace !== null && b.namespace !== null && a.namespace !== b.namespace)) &&
      a.hosts.some((host) => b.hosts.some((other) => sameHost(hostOf(host, a), hostOf(other, b)))),
  )
}

/** Each object with those after it that clash with it, none twice. */
function groups(
  all: readonly DeclaredVirtualService[],
  clash: (a: DeclaredVirtualService, b: DeclaredVirtualService) => boolean,
): readonly (readonly DeclaredVirtualService[])[] {
  const taken = new Set<DeclaredVirtualService>()
  return all.flatMap((first, i) => {
    if (taken.has(first)) return []
    const group = [first, ...all.slice(i + 1).filter((other) => !taken.has(other) && clash(first, other))]
    if (group.length === 1) return []
    for (const member of group) taken.add(member)
    return [group]
  })
}

/** As the cluster's DNS would complete it, as far as the namespace is known. */
function hostOf(host: string, { namespace }: DeclaredVirtualService): string {
  return host.includes('.') || host.includes('*') || namespace === null
    ? host
    : `${host}.${namespace}.svc.cluster.local`
}

/** A short name stands for itself in any namespace. */
function sameHost(a: string, b: string): boolean {
  if (a === b) return true
  const short = a.includes('.') ? (b.includes('.') ? null : b) : a
  return short !== null && !short.includes('*') && shortName(a) === shortName(b)
}

function shortName(host: string): string {
  return host.split('.', 1)[0] ?? host
}

function hostMatches(pattern: string, host: string): boolean {
  if (pattern === '*') return true
  if (pattern.startsWith('*')) return host.endsWith(pattern.slice(1))
  return sameHost(pattern, host)
}

export interface FaultOnPair {
  readonly virtualService: DeclaredVirtualService
  readonly faults: readonly string[]
  /** False when a condition decides that cannot be judged from here (paths, headers, other labels). */
  readonly everyRequest: boolean
}

/**
 * The faults that hit requests of a pair, as far as can be told from outside.
 *
 * @param hosts - of the destination, fully qualified where that is known
 * @param app - the caller's `app` label; null when it is not known
 */
export function faultsOn(
  all: readonly DeclaredVirtualService[],
  { hosts, app }: { readonly hosts: readonly string[]; readonly app: string | null },
): readonly FaultOnPair[] {
  return all.flatMap((virtualService) => {
    const patterns = virtualService.hosts.map((host) => hostOf(host, virtualService))
    if (!virtualService.inMesh || !patterns.some((pattern) => hosts.some((host) => hostMatches(pattern, host)))) {
      return []
    }
    const found: FaultOnPair[] = []
    for (const { matches, faults } of virtualService.routes) {
      const holds = matches.map((match) => matchHolds(match, app))
      const every = matches.length === 0 || holds.includes('always')
      if (!every && holds.every((held) => held === 'never')) continue
      if (faults.length > 0) found.push({ virtualService, faults, everyRequest: every })
      if (every) break // the first route that matches wins
    }
    return found
  })
}

function matchHolds(
  { sourceLabels, more }: DeclaredRoute['matches'][number],
  app: string | null,
): 'always' | 'never' | 'perhaps' {
  const wanted = sourceLabels.get('app')
  if (wanted !== undefined && app !== null && wanted !== app) return 'never'
  const known = [...sourceLabels.keys()].every((label) => label === 'app' && app !== null)
  return known && !more ? 'always' : 'perhaps'
}
