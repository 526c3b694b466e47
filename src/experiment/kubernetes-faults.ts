import { parseAllDocuments } from 'yaml'

import { StartError, UsageError } from '../core/errors.js'
import { edgesQuery, METRICS_QUERY } from '../core/examination-queries.js'
import { type Pair, pairKey, pairName } from '../core/pair.js'
import { promqlString } from '../core/promql.js'
import {
  type DeclaredVirtualService,
  sameHosts,
  virtualServiceName,
  virtualServicesIn,
} from '../core/virtual-service-objects.js'
import { queryInstant } from '../io/prometheus.js'
import type { Runtime } from '../io/runtime.js'
import type { Fault } from './experiment-file.js'
import { type Cluster, get } from './kubernetes-cluster.js'
import { KubectlError } from './kubernetes-kubectl.js'
import {
  appOf,
  checkNamespace,
  hasSidecar,
  injectionTrouble,
  type KubernetesObject,
  objectsIn,
} from './kubernetes-objects.js'

const VIRTUAL_SERVICES = 'virtualservices.networking.istio.io'

/**
 * The objects of a fault's manifest.
 *
 * @throws {UsageError} when one is no VirtualService, or is for another namespace
 */
export function virtualServicesOf(
  fault: Pick<Fault, 'name' | 'manifest'>,
  namespace: string,
): readonly KubernetesObject[] {
  const fail = (reason: string): never => {
    throw new UsageError(`fault ${JSON.stringify(fault.name)}: ${reason}`)
  }
  const objects = parseAllDocuments(fault.manifest).flatMap((document) => {
    const [error] = document.errors
    if (error !== undefined) return fail(`its manifest must be YAML: ${error.message.split('\n', 1)[0] ?? ''}`)
    const value: unknown = document.toJS()
    return value === null ? [] : objectsIn(JSON.stringify(value))
  })
  if (objects.length === 0) fail('its manifest has no object')
  for (const object of objects) {
    if (object.kind !== 'VirtualService' || !object.apiVersion.startsWith('networking.istio.io/')) {
      fail(
        `its manifest must have VirtualServices of networking.istio.io only, got ${object.kind} of ${object.apiVersion}`,
      )
    }
    checkNamespace(object, namespace)
  }
  return objects
}

function declared(objects: readonly KubernetesObject[], namespace: string): readonly DeclaredVirtualService[] {
  return virtualServicesIn(
    objects.map((object) => ({
      value: { ...object, metadata: { ...object.metadata, namespace: object.metadata.namespace ?? namespace } },
      where: '',
    })),
  )
}

/** VirtualServices of every namespace as far as the user may see them, else of the experiment's. */
async function virtualServicesThere(cluster: Cluster): Promise<readonly KubernetesObject[]> {
  try {
    return await get(cluster, [VIRTUAL_SERVICES, '--all-namespaces'])
  } catch (error) {
    if (!(error instanceof KubectlError) || !error.stderr.includes('(Forbidden)')) throw error
    return get(cluster, [VIRTUAL_SERVICES, '--namespace', cluster.settings.namespace])
  }
}

/**
 * A sidecar follows one VirtualService for a host, and an object of our name would be overwritten.
 *
 * @throws {StartError} when somebody else's VirtualService is in the way
 */
export async function checkNoConflict(cluster: Cluster, objects: readonly KubernetesObject[]): Promise<void> {
  const { namespace } = cluster.settings
  const there = await virtualServicesThere(cluster)
  for (const object of objects) {
    const taken = there.find(
      ({ metadata }) => metadata.name === object.metadata.name && metadata.namespace === namespace,
    )
    if (taken !== undefined) {
      throw new StartError(
        `there is a VirtualService ${object.metadata.name} in the namespace ${namespace} already: ` +
          `give the fault's another name, or remove that one`,
      )
    }
  }
  const [clash] = clashing(there, objects, namespace)
  if (clash === undefined) return
  throw new StartError(
    `the VirtualService ${virtualServiceName(clash.theirs)} is for the host ${clash.theirs.hosts.join(', ')}, as is the fault's ` +
      `${clash.ours.name}: Istio merges none inside the mesh, so one of them would do nothing. Remove that one for the experiment`,
  )
}

function clashing(
  there: readonly KubernetesObject[],
  objects: readonly KubernetesObject[],
  namespace: string,
): readonly { readonly theirs: DeclaredVirtualService; readonly ours: DeclaredVirtualService }[] {
  const names = new Set(objects.map(({ metadata }) => metadata.name))
  const others = there.filter(({ metadata }) => !(metadata.namespace === namespace && names.has(metadata.name)))
  return declared(objects, namespace).flatMap((ours) =>
    declared(others, namespace).flatMap((theirs) => (sameHosts([ours, theirs]).length > 0 ? [{ theirs, ours }] : [])),
  )
}

/** Whose requests a fault's objects delay; all that it can be seen on when none is a destination of its own. */
export function pairsToSeeItOn({ pairs }: Pick<Fault, 'pairs'>, objects: readonly KubernetesObject[]): readonly Pair[] {
  const hosts = declared(objects, '').flatMap((virtualService) =>
    virtualService.hosts.map((host) => host.split('.', 1)[0]),
  )
  const direct = pairs.filter(({ destination }) => hosts.includes(destination))
  return direct.length > 0 ? direct : pairs
}

const DEADLINE_MS = 15_000

/** Mean latencies, by pairKey; a pair without requests has none. What Prometheus does not answer is empty. */
export async function meanLatencies(
  runtime: Runtime,
  options: { readonly prometheusUrl: string; readonly pairs: readonly Pair[]; readonly windowSeconds: number },
): Promise<ReadonlyMap<string, number>> {
  const { prometheusUrl, pairs, windowSeconds } = options
  const found = await Promise.all(
    pairs.map(async (pair) => {
      const of = `{reporter="source",source_app=${promqlString(pair.source)},destination_app=${promqlString(pair.destination)}}[${Math.round(windowSeconds * 1_000)}ms]`
      const rate = (part: string): string => `sum(rate(istio_request_duration_milliseconds_${part}${of}))`
      const query = `${rate('sum')} / ${rate('count')}`
      const answer = await queryInstant(runtime, { prometheusUrl, query, deadlineMs: DEADLINE_MS })
      const value = answer.kind === 'answer' ? answer.data.result[0]?.value : undefined
      return value !== undefined && Number.isFinite(value) ? [[pairKey(pair), value] as const] : []
    }),
  )
  return new Map(found.flat())
}

/** How much of the delay must be seen in the mean. */
const SEEN_SHARE = 0.5

/** The pairs whose mean latency has not risen as the fault's delay makes it. */
export function pairsNotDelayed(
  { delayMs, percent }: Pick<Fault, 'delayMs' | 'percent'>,
  options: {
    readonly pairs: readonly Pair[]
    readonly before: ReadonlyMap<string, number>
    readonly now: ReadonlyMap<string, number>
  },
): readonly Pair[] {
  const { pairs, before, now } = options
  const least = SEEN_SHARE * delayMs * (percent / 100)
  return pairs.filter((pair) => {
    const latencyMs = now.get(pairKey(pair))
    return latencyMs === undefined || latencyMs - (before.get(pairKey(pair)) ?? 0) < least
  })
}

/** Says that a fault has no effect, and what of the usual reasons is found. */
export async function noEffect(
  cluster: Cluster,
  fault: Fault,
  options: {
    readonly objects: readonly KubernetesObject[]
    readonly pairs: readonly Pair[]
    readonly before: ReadonlyMap<string, number>
    readonly now: ReadonlyMap<string, number>
    readonly waitedMs: number
  },
): Promise<StartError> {
  const { objects, pairs, before, now, waitedMs } = options
  const ms = (value: number | undefined): string => (value === undefined ? 'no requests' : `${value.toFixed(1)} ms`)
  const seen = pairs.map((pair) => {
    const key = pairKey(pair)
    return `${pairName(pair)}: ${ms(before.get(key))} on average before, ${ms(now.get(key))} now`
  })
  const reasons = await reasonsForNoEffect(cluster, { objects, pairs, now }).catch(() => [])
  const advice =
    reasons.length > 0
      ? reasons.join('; ')
      : 'look for another VirtualService or an EnvoyFilter for the same host, for ambient mode without a waypoint, ' +
        'and whether the callers have sidecars and the label that sourceLabels names'
  return new StartError(
    `fault ${JSON.stringify(fault.name)} took no effect within ${Math.round(waitedMs / 1000)} s ` +
      `(${fault.delayMs} ms for ${fault.percent} % of requests; ${seen.join('; ')}): ${advice}`,
  )
}

async function reasonsForNoEffect(
  cluster: Cluster,
  options: {
    readonly objects: readonly KubernetesObject[]
    readonly pairs: readonly Pair[]
    readonly now: ReadonlyMap<string, number>
  },
): Promise<readonly string[]> {
  const { objects, pairs, now } = options
  const { namespace } = cluster.settings
  const clashes = clashing(await virtualServicesThere(cluster), objects, namespace)
  const [found] = await get(cluster, ['namespace', namespace])
  const pods = await get(cluster, ['pods', '--namespace', namespace])
  const sources = [...new Set(pairs.map(({ source }) => source))]
  const bare = sources.filter((source) => pods.some((pod) => appOf(pod) === source && !hasSidecar(pod)))
  const ambient = found === undefined ? null : injectionTrouble(found)
  return [
    ...clashes.map(({ theirs }) => `the VirtualService ${virtualServiceName(theirs)} is for the same host`),
    ...(ambient === null ? [] : [ambient]),
    ...bare.map((source) => `pods of the caller ${source} have no sidecar`),
    ...pairs
      .filter((pair) => !now.has(pairKey(pair)))
      .map((pair) => `there are no requests from ${pair.source} to ${pair.destination}`),
  ]
}

/** The pairs of which Prometheus has no latency by the caller's sidecar, with what it has instead. Null: it has all. */
export async function missingMetrics(
  runtime: Runtime,
  options: { readonly prometheusUrl: string; readonly pairs: readonly Pair[] },
): Promise<string | null> {
  const { prometheusUrl, pairs } = options
  const ask = async (query: string): Promise<readonly ReadonlyMap<string, string>[] | string> => {
    const answer = await queryInstant(runtime, { prometheusUrl, query, deadlineMs: DEADLINE_MS })
    return answer.kind === 'answer'
      ? answer.data.result.map(({ labels }) => labels)
      : `${answer.outcome}: ${answer.detail}`
  }
  const missing: Pair[] = []
  for (const pair of pairs) {
    const of = `{reporter="source",source_app=${promqlString(pair.source)},destination_app=${promqlString(pair.destination)}}`
    const found = await ask(`count(istio_request_duration_milliseconds_bucket${of})`)
    if (typeof found === 'string') return `Prometheus does not answer: ${found}`
    if (found.length === 0) missing.push(pair)
  }
  const [first] = missing
  if (first === undefined) return null
  const what = `Prometheus has no istio_request_duration_milliseconds_bucket of ${missing.map(pairName).join(', ')} with reporter="source"`
  const metrics = await ask(METRICS_QUERY)
  if (typeof metrics === 'string' || metrics.length === 0) {
    return `${what}; it has none of Istio's metrics: does it scrape the sidecars (their pods' annotations prometheus.io/scrape, port 15020)?`
  }
  const edges = await ask(edgesQuery({ pair: first, sourceLabel: 'source_app', destinationLabel: 'destination_app' }))
  const known =
    typeof edges === 'string'
      ? []
      : edges.map((labels) => `${labels.get('source_app') ?? ''} -> ${labels.get('destination_app') ?? ''}`)
  if (known.length === 0 || known.every((edge) => edge.includes('unknown'))) {
    return `${what}; what it has carries no source_app and destination_app: the pods need the label app`
  }
  return `${what}; it has ${known.toSorted().slice(0, 12).join(', ')}`
}
