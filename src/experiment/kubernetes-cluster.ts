import { StartError, UsageError } from '../core/errors.js'
import type { Runtime } from '../io/runtime.js'
import type { KubernetesSettings } from './experiment-file.js'
import { type Kubectl, KubectlError, kubectlOn } from './kubernetes-kubectl.js'
import type { KubernetesLimits } from './kubernetes-limits.js'
import {
  ANY_RUN,
  appOf,
  documentsIn,
  fieldAt,
  hasSidecar,
  injectionTrouble,
  isBeingDeleted,
  isPodReady,
  isReady,
  type KubernetesObject,
  lastEvent,
  objectName,
  objectsIn,
  podTrouble,
  runOf,
  textAt,
  workloadTrouble,
} from './kubernetes-objects.js'

/** A cluster that the user has named and confirmed, and how it is talked to. */
export interface Cluster {
  readonly runtime: Runtime
  readonly kubectl: Kubectl
  readonly settings: KubernetesSettings
  readonly limits: KubernetesLimits
}

/** Looks in a row that may fail while something is waited for. */
const TOLERATED_FAILURES = 5

/**
 * Finds the context in the user's kubeconfig and holds it against what the user has confirmed. Sends nothing to any cluster.
 *
 * @param options.confirmedContext - what the user typed after --confirm-context; null when they did not
 * @throws {UsageError} when there is no such context, or it is not confirmed
 */
export async function confirmContext(
  runtime: Pick<Runtime, 'program' | 'signal'>,
  options: {
    readonly path: string
    readonly settings: Pick<KubernetesSettings, 'context' | 'namespace'>
    readonly confirmedContext: string | null
    readonly limitMs: number
  },
): Promise<Kubectl> {
  const { path, settings, confirmedContext, limitMs } = options
  const { context, namespace } = settings
  const { signal } = runtime
  const offline = kubectlOn(runtime, { path, context: null, limitMs })
  const contexts = (await offline.run(['config', 'get-contexts', '--output=name'], { signal }))
    .split('\n')
    .filter(Boolean)
  if (!contexts.includes(context)) {
    throw new UsageError(
      `there is no context ${JSON.stringify(context)} in the kubeconfig; ` +
        (contexts.length === 0 ? 'it has none' : `it has ${contexts.join(', ')}`),
    )
  }
  if (confirmedContext !== context) {
    const view = [
      'config',
      'view',
      '--minify',
      `--context=${context}`,
      '--output=jsonpath={.clusters[0].cluster.server}',
    ]
    const server = await offline.run(view, { signal })
    throw new UsageError(
      confirmedContext === null
        ? `this would install and disturb an application on the cluster of context ${context} (${server}, namespace ${namespace}): ` +
            `add --confirm-context ${context} if that is meant`
        : `--confirm-context is ${JSON.stringify(confirmedContext)}, and the experiment is for the context ${JSON.stringify(context)}`,
    )
  }
  return kubectlOn(runtime, { path, context, limitMs })
}

/** The objects that a `kubectl get` finds. */
export async function get(
  { kubectl, runtime }: Cluster,
  args: readonly string[],
  options: { readonly input?: string } = {},
): Promise<readonly KubernetesObject[]> {
  const found = await kubectl.run(['get', ...args, '--output=json', '--ignore-not-found'], {
    signal: runtime.signal,
    ...options,
  })
  return objectsIn(found)
}

/** What the checks found out on their way, for the record. */
export interface Checked {
  readonly versions: Readonly<Record<string, string>>
  readonly resources: readonly Resource[]
  /** Null when it has to be created. */
  readonly namespace: KubernetesObject | null
}

/**
 * Looks before anything is applied: the cluster answers, Istio is there, the namespace gets sidecars, nobody else's experiment
 * is there.
 *
 * @param options.installs - whether an application is to be installed
 * @throws {StartError} for the first thing that is not as it must be
 */
export async function checkCluster(cluster: Cluster, { installs }: { readonly installs: boolean }): Promise<Checked> {
  const { kubectl, settings } = cluster
  const { namespace } = settings
  const kubernetes = await serverVersion(cluster)
  const resources = await resourcesOf(cluster)
  checkIstio(cluster, resources)
  const istio = await istioVersion(cluster)
  const [found] = await get(cluster, ['namespace', namespace])
  if (found === undefined && !installs) {
    throw new StartError(`there is no namespace ${namespace} on ${settings.context}, and nothing to install in it`)
  }
  if (found !== undefined) {
    if (isBeingDeleted(found)) {
      throw new StartError(`the namespace ${namespace} is being deleted: wait until it is gone`)
    }
    const trouble = installs ? injectionTrouble(found) : null
    if (trouble !== null) {
      const label = kubectl.inWords(['label', 'namespace', namespace, 'istio-injection=enabled'])
      throw new StartError(`${trouble}; ${label} makes it so`)
    }
    await checkNoOtherRun(cluster)
  }
  return { versions: { kubernetes, ...(istio === null ? {} : { istio }) }, resources, namespace: found ?? null }
}

async function serverVersion({ kubectl, settings, runtime }: Cluster): Promise<string> {
  try {
    const text = await kubectl.run(['version', '--output=json'], { signal: runtime.signal })
    return textAt(JSON.parse(text), 'serverVersion', 'gitVersion') ?? 'unknown'
  } catch (error) {
    if (!(error instanceof KubectlError)) throw error
    throw new StartError(`the cluster of context ${settings.context} does not answer: ${error.message}`, {
      cause: error,
    })
  }
}

/** A kind of object, as the cluster's discovery has it. */
interface Resource {
  readonly plural: string
  readonly apiVersion: string
  readonly kind: string
}

async function resourcesOf({ kubectl, runtime }: Cluster): Promise<readonly Resource[]> {
  // Some group that does not answer is no reason to fail: what is asked for is in the answer all the same.
  const table = await kubectl
    .run(['api-resources', '--no-headers'], { signal: runtime.signal })
    .catch((error: unknown) => {
      if (error instanceof KubectlError && error.stdout !== '') return error.stdout
      throw error
    })
  return table.split('\n').flatMap((line) => {
    // Name, perhaps short names, version, namespaced or not, kind.
    const [, plural, apiVersion, kind] = /^(\S+)\s+(?:\S+\s+)?(\S+)\s+(?:true|false)\s+(\S+)\s*$/.exec(line) ?? []
    return plural === undefined || apiVersion === undefined || kind === undefined ? [] : [{ plural, apiVersion, kind }]
  })
}

const isVirtualService = ({ plural, apiVersion }: Resource): boolean =>
  plural === 'virtualservices' && groupOf(apiVersion) === 'networking.istio.io'

function checkIstio({ settings }: Cluster, resources: readonly Resource[]): void {
  if (resources.some(isVirtualService)) return
  throw new StartError(
    `there is no Istio on ${settings.context}: it does not know virtualservices.networking.istio.io. Faults are VirtualServices, and ` +
      `latency is measured by Istio's sidecars: install Istio first (https://istio.io/latest/docs/setup/getting-started/)`,
  )
}

function groupOf(apiVersion: string): string {
  return apiVersion.includes('/') ? (apiVersion.split('/', 1)[0] ?? '') : ''
}

/** By istiod's image; null where it cannot be seen, as with a control plane elsewhere. */
async function istioVersion(cluster: Cluster): Promise<string | null> {
  const { logger, signal } = cluster.runtime
  let deployments: readonly KubernetesObject[]
  try {
    deployments = await get(cluster, ['deployments.apps', '--all-namespaces', '--selector=app=istiod'])
  } catch (error) {
    if (!(error instanceof KubectlError) || signal.aborted) throw error
    logger.warn({ reason: error.message }, 'istiod not looked at')
    return null
  }
  const [istiod] = deployments
  if (istiod === undefined) {
    logger.warn('no istiod found: its control plane is taken to be elsewhere')
    return null
  }
  if (deployments.every((deployment) => !isReady(deployment))) {
    throw new StartError(
      `istiod is not ready (${istiod.metadata.namespace ?? ''}/${istiod.metadata.name}): no sidecar would be injected`,
    )
  }
  const image = textAt(istiod, 'spec', 'template', 'spec', 'containers', 0, 'image')
  return image === null ? null : (/:([^:@/]+)(@|$)/.exec(image)?.[1] ?? image)
}

async function checkNoOtherRun(cluster: Cluster): Promise<void> {
  const { kubectl, settings } = cluster
  const { namespace } = settings
  const kinds = 'deployments.apps,configmaps,virtualservices.networking.istio.io'
  const left = await get(cluster, [kinds, '--namespace', namespace, `--selector=${ANY_RUN}`])
  const [first] = left
  if (first === undefined) return
  const runs = [...new Set(left.map(runOf))].join(', ')
  const remove = kubectl.inWords(['delete', kinds, '--namespace', namespace, `--selector=${ANY_RUN}`])
  throw new StartError(
    `another experiment is in the namespace ${namespace}, or left something behind (run ${runs}, for example ${objectName(first)}). ` +
      `If none runs: ${remove}`,
  )
}

export interface Permission {
  readonly verb: string
  readonly apiVersion: string
  readonly kind: string
  readonly subresource?: string
  /** Null for what is in none. */
  readonly namespace: string | null
}

/**
 * Asks what `kubectl auth can-i` asks, all at once.
 *
 * @throws {StartError} with every permission that is missing, or for a kind that the cluster does not know
 */
export async function checkPermissions(
  { kubectl, settings, runtime }: Cluster,
  permissions: readonly Permission[],
  resources: readonly Resource[],
): Promise<void> {
  const asked = permissions.map(({ verb, apiVersion, kind, subresource, namespace }) => {
    // Discovery tells one version of each kind; others that are served have the same name.
    const known = resources.find(
      (resource) => groupOf(resource.apiVersion) === groupOf(apiVersion) && resource.kind === kind,
    )
    if (known === undefined) throw new StartError(`${settings.context} knows no ${kind} of ${apiVersion}`)
    return {
      verb,
      group: groupOf(apiVersion),
      resource: known.plural,
      ...(subresource === undefined ? {} : { subresource }),
      ...(namespace === null ? {} : { namespace }),
    }
  })
  const reviews = asked.map((resourceAttributes) =>
    JSON.stringify({
      apiVersion: 'authorization.k8s.io/v1',
      kind: 'SelfSubjectAccessReview',
      spec: { resourceAttributes },
    }),
  )
  const answers = documentsIn(
    await kubectl.run(['create', '--filename=-', '--output=json'], {
      input: reviews.join('\n'),
      signal: runtime.signal,
    }),
  )
  const missing = asked.flatMap(({ verb, group, resource, subresource, namespace }, i) => {
    if (fieldAt(answers[i], 'status', 'allowed') === true) return []
    const what = [`${resource}${group === '' ? '' : `.${group}`}`, ...(subresource === undefined ? [] : [subresource])]
    return [`${verb} ${what.join('/')}${namespace === undefined ? '' : ` in ${namespace}`}`]
  })
  if (missing.length === 0) return
  throw new StartError(`the user of context ${settings.context} may not ${missing.join(', ')}`)
}

/**
 * Waits until every pod of the run's workloads is ready.
 *
 * @param selector - of the Deployments and StatefulSets that are waited for
 * @throws {StartError} that names a pod and its last event
 */
export async function waitUntilReady(
  cluster: Cluster,
  selector: string,
  { limitMs, pollMs }: { readonly limitMs: number; readonly pollMs: number },
): Promise<void> {
  const { runtime, limits } = cluster
  const { clock, logger, signal } = runtime
  const startMs = clock.monotonicMs()
  const hopelessSinceMs = new Map<string, number>()
  let reported = ''
  let failures = 0
  for (;;) {
    const found = await lookAtWorkloads(cluster, selector).catch((error: unknown) => {
      // Minutes of waiting are not given up for one answer that did not come.
      if (!(error instanceof KubectlError) || signal.aborted || ++failures > TOLERATED_FAILURES) throw error
      logger.warn({ reason: error.message }, 'pods not looked at')
      return null
    })
    if (found === null) {
      await clock.sleep(pollMs, signal)
      continue
    }
    failures = 0
    const { missing, pods } = found
    if (missing.length === 0) return
    const nowMs = clock.monotonicMs()
    for (const pod of pods) {
      const { name } = pod.metadata
      const trouble = podTrouble(pod)
      if (trouble?.hopeless !== true) hopelessSinceMs.delete(name)
      else if (!hopelessSinceMs.has(name)) hopelessSinceMs.set(name, nowMs)
    }
    const stuck = pods.find((pod) => nowMs - (hopelessSinceMs.get(pod.metadata.name) ?? nowMs) >= limits.hopelessMs)
    const late = nowMs - startMs >= limitMs
    if (stuck !== undefined || late) throw await notReady(cluster, { missing, pods, stuck, waitedMs: nowMs - startMs })
    const names = missing.map(({ metadata }) => metadata.name).join(', ')
    if (names !== reported) logger.info({ notReady: names }, 'waiting for pods')
    reported = names
    await clock.sleep(pollMs, signal)
    stopIfAsked(runtime, 'waiting for pods')
  }
}

/** Workloads that are not ready, and their pods that are not. */
async function lookAtWorkloads(
  cluster: Cluster,
  selector: string,
): Promise<{ readonly missing: readonly KubernetesObject[]; readonly pods: readonly KubernetesObject[] }> {
  const inNamespace = ['--namespace', cluster.settings.namespace]
  const workloads = await get(cluster, ['deployments.apps,statefulsets.apps', ...inNamespace, `--selector=${selector}`])
  if (workloads.length === 0) {
    throw new StartError(`nothing of ${selector} is in the namespace any more: somebody has removed it`)
  }
  const missing = workloads.filter((workload) => !isReady(workload))
  if (missing.length === 0) return { missing, pods: [] }
  const pods = (await get(cluster, ['pods', ...inNamespace])).filter(
    (pod) => !isBeingDeleted(pod) && !isPodReady(pod) && missing.some((workload) => isPodOf(pod, workload)),
  )
  return { missing, pods }
}

/** By the workload's selector of labels. */
function isPodOf({ metadata: { labels = {} } }: KubernetesObject, workload: KubernetesObject): boolean {
  const wanted = fieldAt(workload, 'spec', 'selector', 'matchLabels')
  return Object.entries((wanted ?? {}) as Readonly<Record<string, string>>).every(
    ([label, value]) => labels[label] === value,
  )
}

async function notReady(
  cluster: Cluster,
  found: {
    readonly missing: readonly KubernetesObject[]
    readonly pods: readonly KubernetesObject[]
    readonly stuck: KubernetesObject | undefined
    readonly waitedMs: number
  },
): Promise<StartError> {
  const { missing, pods, stuck, waitedMs } = found
  const { namespace } = cluster.settings
  const seconds = Math.round(waitedMs / 1000)
  const names = missing.map(({ metadata }) => metadata.name).join(', ')
  const pod = stuck ?? pods.find((candidate) => podTrouble(candidate) !== null) ?? pods[0]
  if (pod === undefined) {
    const trouble = missing.map(workloadTrouble).find((text) => text !== null)
    return new StartError(`not ready after ${seconds} s: ${names}${trouble === undefined ? '' : `: ${trouble}`}`)
  }
  const { name } = pod.metadata
  const fields = `--field-selector=involvedObject.kind=Pod,involvedObject.name=${name}`
  const events = await get(cluster, ['events', '--namespace', namespace, fields]).catch(() => [])
  const event = lastEvent(events)
  const reason = podTrouble(pod)?.reason ?? 'its containers do not say that they are ready'
  return new StartError(
    `not ready after ${seconds} s: ${names}. Pod ${name}: ${reason}${event === null ? '' : `; its last event: ${event}`}`,
  )
}

/**
 * Whether these services have pods that are ready, with sidecars and the label by which Istio's metrics know them.
 *
 * @param services - names that the pairs have
 * @throws {StartError} naming the first pod or service that has none
 */
export async function checkSidecars(cluster: Cluster, services: readonly string[]): Promise<void> {
  const { namespace } = cluster.settings
  const pods = (await get(cluster, ['pods', '--namespace', namespace])).filter((pod) => !isBeingDeleted(pod))
  for (const service of services) {
    const own = pods.filter((pod) => appOf(pod) === service)
    if (own.length === 0) {
      const apps = [...new Set(pods.flatMap((pod) => appOf(pod) ?? []))].toSorted().join(', ')
      throw new StartError(
        `no pod in the namespace ${namespace} has the label app=${service}, by which Istio's metrics know a service; ` +
          (apps === '' ? 'none has the label app' : `those there: ${apps}`),
      )
    }
    if (!own.some(isPodReady)) throw new StartError(`no pod of ${service} in the namespace ${namespace} is ready`)
    const without = own.find((pod) => !hasSidecar(pod))
    if (without !== undefined) {
      throw new StartError(
        `the pod ${without.metadata.name} has no sidecar (a container istio-proxy): without one it measures nothing and takes no fault. ` +
          `Label the namespace ${namespace} with istio-injection=enabled (or istio.io/rev=REVISION) and start the pod again`,
      )
    }
  }
}

/** @throws {StartError} once the process is asked to stop */
export function stopIfAsked({ signal }: Pick<Runtime, 'signal'>, doing: string): void {
  if (signal.aborted) throw new StartError(`interrupted while ${doing}`)
}
