import { StartError } from '../core/errors.js'
import { type Cluster, get } from './kubernetes-cluster.js'
import {
  FIELD_MANAGER,
  isBeingDeleted,
  type KubernetesObject,
  inputOf,
  namespaceObject,
  objectName,
  resourceOf,
  runOf,
  selectorOf,
} from './kubernetes-objects.js'

/** What a run has put on a cluster, in parts that can be taken away one by one. */
export interface Applied {
  /** Creates objects that are marked as this part. What is there already is never touched. @throws {StartError} */
  readonly create: (part: string, objects: readonly KubernetesObject[]) => Promise<void>
  /** Creates the namespace of the experiment. @throws {StartError} */
  readonly createNamespace: () => Promise<void>
  /** Takes a part away, again and again for a while. @throws {StartError} with the command that would do it */
  readonly remove: (part: string) => Promise<void>
  /** Takes everything away, last things first. Safe to call twice. @throws {StartError} with the commands that would do what is left */
  readonly removeAll: () => Promise<void>
  /** The command that takes away most of it, should we be killed. */
  readonly inWords: () => string
}

interface Undo {
  readonly part: string
  readonly resources: Set<string>
}

/** The part that the namespace is. */
const NAMESPACE = 'namespace'

/** One try to take something away: a cluster that does not answer must leave time for the others. */
const ATTEMPT_MS = 10_000
const LEAST_ATTEMPT_MS = 1_000

/** What others may have put into a namespace that is ours, and would lose with it. */
const LOSSES = 'deployments.apps,statefulsets.apps,daemonsets.apps,services,persistentvolumeclaims'

/**
 * @param options.stopping - aborts when nothing more is to be created
 */
export function createApplied(
  cluster: Cluster,
  { runId, stopping }: { readonly runId: string; readonly stopping: AbortSignal },
): Applied {
  const { kubectl, runtime, settings, limits } = cluster
  const { clock, logger } = runtime
  const { namespace } = settings
  /** Not aborted by anything: cleaning up happens when everything else is over. */
  const never = new AbortController().signal
  const undos: Undo[] = []
  const creating = new Set<Promise<unknown>>()

  const create = async (
    part: string,
    objects: readonly KubernetesObject[],
    place: readonly string[],
  ): Promise<void> => {
    let undo = undos.find((known) => known.part === part)
    if (undo === undefined) {
      undo = { part, resources: new Set() }
      undos.push(undo)
    }
    // Noted before it is done: whatever becomes of the command, what it did is found by its labels.
    for (const object of objects) undo.resources.add(resourceOf(object))
    const args = ['create', ...place, `--field-manager=${FIELD_MANAGER}`, '--output=name', '--filename=-']
    const created = kubectl.run(args, {
      input: inputOf(objects),
      limitMs: limits.manifestsMs,
      signal: stopping,
      graceMs: limits.graceMs,
    })
    creating.add(created)
    try {
      await created
    } finally {
      creating.delete(created)
    }
    logger.info({ objects: objects.map(objectName) }, 'applied')
  }

  const deleteArgs = ({ part, resources }: Undo): readonly string[] => [
    'delete',
    part === NAMESPACE ? `${NAMESPACE}/${namespace}` : [...resources].join(','),
    ...(part === NAMESPACE ? [] : ['--namespace', namespace, `--selector=${selectorOf(runId, part)}`]),
    '--ignore-not-found',
    '--wait=false',
  ]

  const attempt = async (undo: Undo, limitMs: number): Promise<void> => {
    if (undo.part === NAMESPACE && !(await mayDeleteNamespace(limitMs))) return
    const deleted = await kubectl.run(deleteArgs(undo), { limitMs })
    const names = deleted.split('\n').filter((line) => line !== '' && !line.startsWith('No resources'))
    if (names.length > 0) logger.info({ part: undo.part, objects: names }, 'removed')
  }

  const mayDeleteNamespace = async (limitMs: number): Promise<boolean> => {
    const unsignalled = { ...cluster, runtime: { ...runtime, signal: never }, kubectl: patient(kubectl, limitMs) }
    const [found] = await get(unsignalled, ['namespace', namespace])
    if (found === undefined || runOf(found) !== runId || isBeingDeleted(found)) return false
    const inside = await get(unsignalled, [LOSSES, '--namespace', namespace])
    const others = inside.filter((object) => runOf(object) !== runId && !isBeingDeleted(object))
    if (others.length === 0) return true
    logger.warn(
      { namespace, objects: others.map(objectName), remove: kubectl.inWords(['delete', 'namespace', namespace]) },
      'namespace left: somebody else has put objects into it',
    )
    return false
  }

  const remove = async (wanted: readonly Undo[]): Promise<void> => {
    const untilMs = clock.monotonicMs() + limits.cleanupMs
    const left = [...wanted]
    let reason = ''
    for (;;) {
      for (const undo of [...left]) {
        const limitMs = Math.min(ATTEMPT_MS, limits.commandMs, untilMs - clock.monotonicMs())
        // What is cut off before it can succeed would only hide why the tries before it failed.
        if (limitMs < LEAST_ATTEMPT_MS && reason !== '') break
        try {
          await attempt(undo, limitMs)
          left.splice(left.indexOf(undo), 1)
          undos.splice(undos.indexOf(undo), 1)
        } catch (error) {
          reason = (error as Error).message
          logger.warn({ part: undo.part, reason }, 'not removed yet')
        }
      }
      if (left.length === 0) return
      if (clock.monotonicMs() + limits.pollMs + LEAST_ATTEMPT_MS >= untilMs) break
      await clock.sleep(limits.pollMs, never)
    }
    const commands = left.map((undo) => kubectl.inWords(deleteArgs(undo)))
    logger.error({ reason, commands }, 'not removed: these commands do it')
    throw new StartError(
      `not everything was removed from ${settings.context} (${reason}). Run: ${commands.join(' ; ')}`,
    )
  }

  return {
    create: (part, objects) => create(part, objects, ['--namespace', namespace]),
    createNamespace: () => create(NAMESPACE, [namespaceObject(namespace, runId)], []),
    remove: (part) => remove(undos.filter((undo) => undo.part === part)),
    removeAll: async () => {
      await Promise.allSettled(creating)
      await remove(undos.toReversed())
    },
    inWords: () => {
      const resources = [...new Set(undos.flatMap((undo) => (undo.part === NAMESPACE ? [] : [...undo.resources])))]
      return kubectl.inWords([
        'delete',
        resources.join(','),
        '--namespace',
        namespace,
        `--selector=${selectorOf(runId)}`,
      ])
    },
  }
}

/** The same kubectl with another limit. */
function patient(kubectl: Cluster['kubectl'], limitMs: number): Cluster['kubectl'] {
  return { ...kubectl, run: (args, options) => kubectl.run(args, { limitMs, ...options }) }
}
