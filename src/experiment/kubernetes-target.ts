import { StartError, UsageError } from '../core/errors.js'
import { type Pair, pairKey, pairName } from '../core/pair.js'
import { queryInstant } from '../io/prometheus.js'
import type { Runtime } from '../io/runtime.js'
import type { LoadShape } from '../testbed/load.js'
import type { Experiment, Fault, KubernetesSettings } from './experiment-file.js'
import { applicationObjects, checkNoneThere, installsApplication } from './kubernetes-application.js'
import { type Applied, createApplied } from './kubernetes-applied.js'
import {
  checkCluster,
  checkPermissions,
  checkSidecars,
  type Checked,
  type Cluster,
  confirmContext,
  get,
  type Permission,
  stopIfAsked,
  waitUntilReady,
} from './kubernetes-cluster.js'
import {
  checkNoConflict,
  meanLatencies,
  missingMetrics,
  noEffect,
  pairsNotDelayed,
  pairsToSeeItOn,
  virtualServicesOf,
} from './kubernetes-faults.js'
import { forwardPrometheus, type PortForward } from './kubernetes-forward.js'
import { findKubectl, KubectlError } from './kubernetes-kubectl.js'
import { KUBERNETES_LIMITS, type KubernetesLimits } from './kubernetes-limits.js'
import { checkLoadFor, loadName, loadObjects } from './kubernetes-load.js'
import { hasRestarted, type KubernetesObject, marked, prepareApplication, selectorOf } from './kubernetes-objects.js'
import type { Stage, Target } from './target.js'

export interface KubernetesOptions {
  readonly settings: KubernetesSettings
  /** The context that the user has typed to say that it may be touched; null when they have typed none. */
  readonly confirmedContext: string | null
  /** Where they differ from the usual ones. */
  readonly limits?: Partial<KubernetesLimits>
}

/** How often a load's pod is looked at while it starts: its users' first second is when it runs. */
const LOAD_POLL_MS = 1_000

/** k6 has to be told how long it runs; the experiment's own end comes first. */
const SPARE_SECONDS = 3_600

/** A fault must be seen within so many windows of the query, and some time for Istio and for Prometheus's scrapes. */
const EFFECT_WINDOWS = 2

const DEADLINE_MS = 15_000

/**
 * A real cluster, through the user's own kubectl on a context that they have confirmed. Everything that is applied carries the
 * run's label, by which it is removed; what was there before is not touched.
 */
export function kubernetesTarget(runtime: Runtime, options: KubernetesOptions): Target {
  return {
    start: async (experiment) => {
      try {
        return await start(runtime, options, experiment)
      } catch (error) {
        const plain = !runtime.signal.aborted || error instanceof UsageError || error instanceof NotUndoneError
        throw plain ? error : new StartError('interrupted; nothing stays applied', { cause: error })
      }
    },
  }
}

/** What was to be undone was not. */
class NotUndoneError extends StartError {}

async function start(
  runtime: Runtime,
  { settings, confirmedContext, limits: given = {} }: KubernetesOptions,
  experiment: Experiment,
): Promise<Stage> {
  const limits = { ...KUBERNETES_LIMITS, ...given }
  const { clock, logger, signal } = runtime
  const { namespace } = settings
  checkLoadFor(experiment.application)
  const faultObjects = experiment.faults.map((fault) => virtualServicesOf(fault, namespace))
  const path = findKubectl(runtime)
  const kubectl = await confirmContext(runtime, { path, settings, confirmedContext, limitMs: limits.commandMs })
  const cluster: Cluster = { runtime, kubectl, settings, limits }
  const runId = `r${clock.nowMs().toString(36)}`

  const installs = installsApplication(settings)
  const checked = await checkCluster(cluster, { installs })
  const { objects, leftOut } = installs
    ? prepareApplication(await applicationObjects(cluster), { namespace, runId })
    : { objects: [], leftOut: [] }
  for (const { object, reason } of leftOut) logger.info({ object, reason }, 'left out')
  await checkPermissions(cluster, permissionsFor(settings, objects, faultObjects.flat(), checked), checked.resources)
  if (objects.length > 0) await checkNoneThere(cluster, objects)
  for (const virtualServices of faultObjects) await checkNoConflict(cluster, virtualServices)
  await checkPrometheusService(cluster)
  stopIfAsked(runtime, 'checking the cluster')

  const stopping = new AbortController()
  const applied = createApplied(cluster, { runId, stopping: AbortSignal.any([signal, stopping.signal]) })
  try {
    if (checked.namespace === null) await applied.createNamespace()
    if (objects.length > 0) {
      await applied.create('application', objects)
      logger.info({ run: runId, remove: applied.inWords() }, 'application applied; this command would remove it')
      await waitUntilReady(cluster, selectorOf(runId, 'application'), {
        limitMs: limits.readyMs,
        pollMs: limits.pollMs,
      })
    }
    await checkSidecars(cluster, servicesOf(experiment.pairs))
    const forward = await forwardPrometheus(runtime, kubectl, { prometheus: settings.prometheus, limits })
    try {
      await checkPrometheusAnswers(runtime, forward.url)
      stopIfAsked(runtime, 'starting')
    } catch (error) {
      await forward.close()
      throw error
    }
    const source =
      settings.chart === null ? settings.manifests.join(' ') : `${settings.chart.name} ${settings.chart.version ?? ''}`
    const versions = {
      ...checked.versions,
      ...(installs ? { application: source.trim() } : {}),
      load: settings.loadGenerator.image,
    }
    return createStage(cluster, { experiment, runId, applied, forward, stopping, versions })
  } catch (error) {
    stopping.abort()
    await undoAfter(error, applied)
    throw error
  }
}

/** @throws {StartError} of both when cleaning up fails, too */
async function undoAfter(error: unknown, applied: Applied): Promise<void> {
  try {
    await applied.removeAll()
  } catch (left) {
    throw new NotUndoneError(`${(error as Error).message}. And ${(left as Error).message}`, { cause: error })
  }
}

function servicesOf(pairs: readonly Pair[]): readonly string[] {
  return [...new Set(pairs.flatMap(({ source, destination }) => [source, destination]))]
}

/** To apply and remove each kind that there is, and to look at how it fares. */
function permissionsFor(
  { namespace, prometheus }: KubernetesSettings,
  objects: readonly KubernetesObject[],
  faultObjects: readonly KubernetesObject[],
  { namespace: found }: Checked,
): readonly Permission[] {
  const kinds = new Map<string, Pick<Permission, 'apiVersion' | 'kind'>>()
  const load = [
    { apiVersion: 'apps/v1', kind: 'Deployment' },
    { apiVersion: 'v1', kind: 'ConfigMap' },
  ]
  for (const { apiVersion, kind } of [...objects, ...load, ...faultObjects])
    kinds.set(`${apiVersion} ${kind}`, { apiVersion, kind })
  const change = (kind: Pick<Permission, 'apiVersion' | 'kind'>, where: string | null): readonly Permission[] =>
    ['create', 'delete'].map((verb) => ({ verb, ...kind, namespace: where }))
  const pod = { apiVersion: 'v1', kind: 'Pod' }
  return [
    ...[...kinds.values()].flatMap((kind) => change(kind, namespace)),
    { verb: 'list', ...pod, namespace },
    { verb: 'create', ...pod, subresource: 'portforward', namespace: prometheus.namespace },
    ...(found === null ? change({ apiVersion: 'v1', kind: 'Namespace' }, null) : []),
  ]
}

async function checkPrometheusService(cluster: Cluster): Promise<void> {
  const { namespace, service } = cluster.settings.prometheus
  const found = await get(cluster, ['service', service, '--namespace', namespace])
  if (found.length > 0) return
  throw new StartError(
    `there is no Service ${service} in the namespace ${namespace}, where Prometheus was said to be: name it in the experiment ` +
      `(prometheus: {namespace, service, port}), or install Istio's addon`,
  )
}

async function checkPrometheusAnswers(runtime: Runtime, prometheusUrl: string): Promise<void> {
  const answer = await queryInstant(runtime, { prometheusUrl, query: 'vector(time())', deadlineMs: DEADLINE_MS })
  if (answer.kind === 'answer') return
  throw new StartError(`Prometheus does not answer through the port-forward: ${answer.detail}`)
}

/** Looks at something again and again, until it throws or the signal aborts. */
async function keepLooking(
  { clock, signal }: { readonly clock: Runtime['clock']; readonly signal: AbortSignal },
  pauseMs: number,
  look: () => Promise<'again' | 'enough'>,
): Promise<void> {
  while (!signal.aborted) {
    if ((await look()) === 'enough') return
    await clock.sleep(pauseMs, signal)
  }
}

function createStage(
  given: Cluster,
  options: {
    readonly experiment: Experiment
    readonly runId: string
    readonly applied: Applied
    readonly forward: PortForward
    readonly stopping: AbortController
    readonly versions: Readonly<Record<string, string>>
  },
): Stage {
  const { experiment, runId, applied, forward, stopping, versions } = options
  const signal = AbortSignal.any([given.runtime.signal, stopping.signal])
  // Whatever is under way ends when the stage is closed, too.
  const cluster: Cluster = { ...given, runtime: { ...given.runtime, signal } }
  const { runtime, settings, limits, kubectl } = cluster
  const { clock, logger } = runtime
  const ending = (): boolean => signal.aborted
  let fail: (error: unknown) => void = () => undefined
  const failed = new Promise<never>((_, reject) => {
    fail = reject
  })
  failed.catch(() => undefined) // whoever waits hears of it
  forward.broken.catch(fail)
  const background = new Set<Promise<void>>()
  /** What goes wrong once everything is ending is no failure. */
  const inBackground = (task: Promise<void>): void => {
    const done = task
      .catch((error: unknown) => {
        if (!ending()) fail(error)
      })
      .finally(() => background.delete(done))
    background.add(done)
  }

  let loads = 0
  const faults = new Map<Fault, { readonly part: string; readonly gone: AbortController }>()
  let faultNumber = 0
  let closing: Promise<void> | null = null

  const watchMetrics = async (): Promise<void> => {
    const untilMs = clock.monotonicMs() + limits.metricsMs
    await keepLooking({ clock, signal }, limits.pollMs, async () => {
      const missing = await missingMetrics(runtime, { prometheusUrl: forward.url, pairs: experiment.pairs })
      if (missing === null) {
        logger.info({ pairs: experiment.pairs.map(pairName) }, 'metrics seen')
        return 'enough'
      }
      if (!ending() && clock.monotonicMs() >= untilMs) {
        throw new StartError(`${missing} (looked for ${limits.metricsMs / 1000} s from the first users on)`)
      }
      return 'again'
    })
  }

  const watchLoad = async (number: number): Promise<void> => {
    const name = loadName(runId, number)
    const replaced = (): boolean => loads !== number
    await keepLooking({ clock, signal }, limits.watchMs, async () => {
      await clock.sleep(limits.watchMs, signal)
      if (replaced() || ending()) return 'enough'
      let pods: readonly KubernetesObject[]
      try {
        pods = await get(cluster, [
          'pods',
          '--namespace',
          settings.namespace,
          `--selector=app.kubernetes.io/instance=${name}`,
        ])
      } catch (error) {
        // A cluster that does not answer for a moment says nothing about the users.
        if (!(error instanceof KubectlError)) throw error
        if (!ending()) logger.warn({ reason: error.message }, 'load not looked at')
        return 'again'
      }
      // Another load may have taken its place in the meantime.
      if (replaced()) return 'enough'
      const [pod] = pods
      if (pod === undefined) throw new StartError(`the load's pod (${name}) is gone: there are no users any more`)
      if (pods.some(hasRestarted)) {
        const logs = kubectl.inWords(['logs', '--namespace', settings.namespace, pod.metadata.name, '--previous'])
        throw new StartError(
          `the load's pod ${pod.metadata.name} has ended or was started again, so its users are not as the profile says: ${logs}`,
        )
      }
      return 'again'
    })
  }

  const watchEffect = async (
    fault: Fault,
    objects: readonly KubernetesObject[],
    { before, gone }: { readonly before: ReadonlyMap<string, number>; readonly gone: AbortSignal },
  ): Promise<void> => {
    const windowSeconds = experiment.queryWindowSeconds
    const pairs = pairsToSeeItOn(fault, objects)
    const startMs = clock.monotonicMs()
    const limitMs = EFFECT_WINDOWS * windowSeconds * 1_000 + limits.effectSpareMs
    const over = AbortSignal.any([signal, gone])
    await keepLooking({ clock, signal: over }, limits.pollMs, async () => {
      const now = await meanLatencies(runtime, { prometheusUrl: forward.url, pairs, windowSeconds })
      const waitedMs = clock.monotonicMs() - startMs
      const late = pairsNotDelayed(fault, { pairs, before, now })
      if (late.length === 0) {
        const latenciesMs = Object.fromEntries(pairs.map((pair) => [pairName(pair), now.get(pairKey(pair))]))
        logger.info(
          { fault: fault.name, meanLatenciesMs: latenciesMs, afterSeconds: waitedMs / 1000 },
          'fault took effect',
        )
        return 'enough'
      }
      if (waitedMs >= limitMs && !over.aborted)
        throw await noEffect(cluster, fault, { objects, pairs: late, before, now, waitedMs })
      return 'again'
    })
    if (gone.aborted) logger.info({ fault: fault.name }, 'fault removed before its effect was seen')
  }

  return {
    metrics: { kind: 'prometheus', url: forward.url },
    versions,
    failed,
    applyLoad: async (shape: LoadShape) => {
      const number = ++loads
      const name = loadName(runId, number)
      const objects = loadObjects({
        settings,
        application: experiment.application,
        profile: { shape, spawnRate: experiment.spawnRate, waitSeconds: experiment.waitSeconds },
        runId,
        number,
        atMostSeconds: experiment.trainingSeconds + experiment.observedSeconds + SPARE_SECONDS,
      })
      await applied.create(name, objects)
      await waitUntilReady(cluster, selectorOf(runId, name), {
        limitMs: limits.readyMs,
        pollMs: Math.min(LOAD_POLL_MS, limits.pollMs),
      })
      if (number > 1) await applied.remove(loadName(runId, number - 1))
      inBackground(watchLoad(number))
      if (number === 1) inBackground(watchMetrics())
    },
    applyFault: async (fault) => {
      const part = `fault-${++faultNumber}`
      const objects = virtualServicesOf(fault, settings.namespace)
      const pairs = pairsToSeeItOn(fault, objects)
      await checkNoConflict(cluster, objects)
      const before = await meanLatencies(runtime, {
        prometheusUrl: forward.url,
        pairs,
        windowSeconds: experiment.queryWindowSeconds,
      })
      const gone = new AbortController()
      faults.set(fault, { part, gone })
      await applied.create(
        part,
        objects.map((object) => marked(object, runId, part)),
      )
      inBackground(watchEffect(fault, objects, { before, gone: gone.signal }))
    },
    removeFault: async (fault) => {
      const known = faults.get(fault)
      if (known === undefined) return
      known.gone.abort()
      await applied.remove(known.part)
      faults.delete(fault)
    },
    close: () => {
      closing ??= (async () => {
        stopping.abort()
        await forward.close()
        await Promise.allSettled(background)
        await applied.removeAll()
      })().finally(() => {
        closing = null
      })
      return closing
    },
  }
}
