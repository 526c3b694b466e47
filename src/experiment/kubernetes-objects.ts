import { StartError, UsageError } from '../core/errors.js'
import { isObject } from '../core/series.js'

/** An object as the API server has it, or as it is sent there. */
export interface KubernetesObject {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: Metadata
  readonly [field: string]: unknown
}

interface Metadata {
  readonly name: string
  readonly namespace?: string
  readonly labels?: Readonly<Record<string, string>>
  readonly [field: string]: unknown
}

const MANAGED_BY_LABEL = 'app.kubernetes.io/managed-by'
const MANAGED_BY = 'meshfever-experiment'
const RUN_LABEL = 'meshfever-run'
/** Says which part of a run an object belongs to. */
export const PART_LABEL = 'meshfever-part'

/** As `managedFields` and audit logs name us. */
export const FIELD_MANAGER = MANAGED_BY

/** What of all runs is there. */
export const ANY_RUN = `${MANAGED_BY_LABEL}=${MANAGED_BY}`

/** Selects what one run applied, or one part of it. */
export function selectorOf(runId: string, part?: string): string {
  return [ANY_RUN, `${RUN_LABEL}=${runId}`, ...(part === undefined ? [] : [`${PART_LABEL}=${part}`])].join(',')
}

/** The object with the labels by which it is found again. */
export function marked(object: KubernetesObject, runId: string, part: string): KubernetesObject {
  const labels = { ...object.metadata.labels, [MANAGED_BY_LABEL]: MANAGED_BY, [RUN_LABEL]: runId, [PART_LABEL]: part }
  return { ...object, metadata: { ...object.metadata, labels } }
}

/** The run that an object says it is of; null for anyone else's. */
export function runOf({ metadata: { labels = {} } }: KubernetesObject): string | null {
  return labels[MANAGED_BY_LABEL] === MANAGED_BY ? (labels[RUN_LABEL] ?? null) : null
}

/** For `--filename=-`. One after the other: for a List, kubectl first loads every schema that the cluster has. */
export function inputOf(objects: readonly KubernetesObject[]): string {
  return objects.map((object) => JSON.stringify(object)).join('\n')
}

/** For people, and as `kubectl` takes it. */
export function objectName({ kind, metadata }: KubernetesObject): string {
  return `${kind.toLowerCase()}/${metadata.name}`
}

/** The kind as kubectl's commands take it, so that no other group's kind of that name is meant: `deployment.v1.apps`. */
export function resourceOf({ apiVersion, kind }: KubernetesObject): string {
  const [group, version] = apiVersion.split('/', 2)
  return version === undefined ? kind.toLowerCase() : `${kind.toLowerCase()}.${version}.${group ?? ''}`
}

/**
 * What `kubectl ... -o json` printed: nothing, one object, a list, or several objects one after the other.
 *
 * @throws {StartError} when it is anything else
 */
export function objectsIn(stdout: string): readonly KubernetesObject[] {
  return documentsIn(stdout).flatMap((document) =>
    isObject(document) && Array.isArray(document['items']) ? document['items'].map(objectOf) : [objectOf(document)],
  )
}

/** The same of what need not be objects. @throws {StartError} when it is not JSON */
export function documentsIn(stdout: string): readonly unknown[] {
  const text = stdout.trim()
  if (text === '') return []
  return text.split(/(?<=^\})\n(?=\{)/m).map((part) => {
    try {
      return JSON.parse(part) as unknown
    } catch {
      throw new StartError(`kubectl's answer is not JSON: ${JSON.stringify(part.slice(0, 80))}`)
    }
  })
}

function objectOf(value: unknown): KubernetesObject {
  const metadata = isObject(value) ? value['metadata'] : undefined
  if (
    !isObject(value) ||
    typeof value['apiVersion'] !== 'string' ||
    typeof value['kind'] !== 'string' ||
    !isObject(metadata) ||
    typeof metadata['name'] !== 'string'
  ) {
    throw new StartError(
      `not a Kubernetes object with apiVersion, kind and name: ${JSON.stringify(value).slice(0, 80)}`,
    )
  }
  return value as unknown as KubernetesObject
}

/** The field at a path, undefined where there is none. */
export function fieldAt(value: unknown, ...path: readonly (string | number)[]): unknown {
  return path.reduce<unknown>((node, key) => {
    if (Array.isArray(node)) return typeof key === 'number' ? (node[key] as unknown) : undefined
    return isObject(node) ? node[String(key)] : undefined
  }, value)
}

function listAt(value: unknown, ...path: readonly (string | number)[]): readonly unknown[] {
  const list = fieldAt(value, ...path)
  return Array.isArray(list) ? list : []
}

export function textAt(value: unknown, ...path: readonly (string | number)[]): string | null {
  const text = fieldAt(value, ...path)
  return typeof text === 'string' && text !== '' ? text : null
}

function countAt(value: unknown, ...path: readonly (string | number)[]): number {
  const count = fieldAt(value, ...path)
  return typeof count === 'number' ? count : 0
}

const WORKLOADS = ['Deployment', 'StatefulSet', 'DaemonSet']

/** Objects of the application's manifests that an experiment has no use for. */
const LEFT_OUT: ReadonlyMap<string, string> = new Map([
  ['deployment/loadgenerator', 'its users are in no load profile'],
  ['serviceaccount/loadgenerator', 'its users are in no load profile'],
  ['deployment/load-test', 'its users are in no load profile'],
  ['service/frontend-external', 'an experiment needs no public address'],
])

export interface Prepared {
  /** To be created, in this order. */
  readonly objects: readonly KubernetesObject[]
  /** Names of objects that are not, and why. */
  readonly leftOut: readonly { readonly object: string; readonly reason: string }[]
}

/**
 * The application's manifests as an experiment applies them: without load generators and public addresses of their own, and
 * each workload's pods with the label `app`, which Istio's metrics and the faults' `sourceLabels` go by.
 *
 * @throws {UsageError} when an object is for another namespace
 */
export function prepareApplication(
  objects: readonly KubernetesObject[],
  { namespace, runId }: { readonly namespace: string; readonly runId: string },
): Prepared {
  const own = objects.filter((object) => !isNamespace(object, namespace))
  const leftOut = own.flatMap((object) => {
    const reason = LEFT_OUT.get(objectName(object))
    return reason === undefined ? [] : [{ object: objectName(object), reason }]
  })
  const kept = own.filter((object) => !LEFT_OUT.has(objectName(object)))
  for (const object of kept) checkNamespace(object, namespace)
  return { objects: kept.map((object) => marked(withAppLabel(object), runId, 'application')), leftOut }
}

function isNamespace(object: KubernetesObject, name: string): boolean {
  return object.kind === 'Namespace' && object.apiVersion === 'v1' && object.metadata.name === name
}

/** @throws {UsageError} when the object is for another namespace than the experiment's */
export function checkNamespace(object: KubernetesObject, namespace: string): void {
  const named = object.kind === 'Namespace' ? object.metadata.name : object.metadata.namespace
  if (named === undefined || named === namespace) return
  throw new UsageError(
    `${objectName(object)} is for the namespace ${JSON.stringify(named)}, and the experiment's namespace is ` +
      `${JSON.stringify(namespace)}: use the same`,
  )
}

function withAppLabel(object: KubernetesObject): KubernetesObject {
  const template = fieldAt(object, 'spec', 'template')
  if (!WORKLOADS.includes(object.kind) || !isObject(template)) return object
  if (textAt(template, 'metadata', 'labels', 'app') !== null) return object
  const metadata = isObject(template['metadata']) ? template['metadata'] : {}
  const labels = isObject(metadata['labels']) ? metadata['labels'] : {}
  const spec = object['spec'] as Readonly<Record<string, unknown>>
  return {
    ...object,
    spec: {
      ...spec,
      template: { ...template, metadata: { ...metadata, labels: { ...labels, app: object.metadata.name } } },
    },
  }
}

export function namespaceObject(name: string, runId: string): KubernetesObject {
  const metadata = { name, labels: { 'istio-injection': 'enabled' } }
  return marked({ apiVersion: 'v1', kind: 'Namespace', metadata }, runId, 'namespace')
}

/** Why pods that are created in a namespace get no sidecar; null when they do. */
export function injectionTrouble(namespace: KubernetesObject): string | null {
  const { name, labels = {} } = namespace.metadata
  if (labels['istio.io/dataplane-mode'] === 'ambient') {
    return (
      `the namespace ${name} is in ambient mode, where no sidecar is injected: faults are taken by sidecars of the callers. ` +
      `Use a namespace with the label istio-injection=enabled`
    )
  }
  const injected = labels['istio-injection'] === 'enabled' || labels['istio.io/rev'] !== undefined
  return injected && labels['istio-injection'] !== 'disabled'
    ? null
    : `the namespace ${name} is not labelled for Istio's injection: its pods would get no sidecars`
}

const SIDECAR = 'istio-proxy'

/** A container of its own, or a native sidecar among the init containers. */
export function hasSidecar(pod: KubernetesObject): boolean {
  return ['containers', 'initContainers'].some((list) =>
    listAt(pod, 'spec', list).some((container) => textAt(container, 'name') === SIDECAR),
  )
}

export function appOf({ metadata: { labels = {} } }: KubernetesObject): string | null {
  return labels['app'] ?? null
}

export function isBeingDeleted({ metadata }: KubernetesObject): boolean {
  return metadata['deletionTimestamp'] !== undefined
}

/** Whether every replica of a Deployment or StatefulSet is ready, as its controller has seen the newest spec. */
export function isReady(workload: KubernetesObject): boolean {
  const replicas = fieldAt(workload, 'spec', 'replicas')
  return (
    countAt(workload, 'status', 'observedGeneration') >= countAt(workload, 'metadata', 'generation') &&
    countAt(workload, 'status', 'readyReplicas') >= (typeof replicas === 'number' ? replicas : 1)
  )
}

/** Why a workload has no pods at all (a quota, a security policy), in the words of its controller; null when it does not say. */
export function workloadTrouble(workload: KubernetesObject): string | null {
  const failing = listAt(workload, 'status', 'conditions').find(
    (condition) => textAt(condition, 'type') === 'ReplicaFailure' && textAt(condition, 'status') === 'True',
  )
  return failing === undefined ? null : (textAt(failing, 'message') ?? textAt(failing, 'reason'))
}

export interface PodTrouble {
  readonly reason: string
  /** Time does not heal it: waiting is in vain. */
  readonly hopeless: boolean
}

/** Reasons for which a pod is not running that only a person removes. Back-offs go on for ever. */
const HOPELESS = [
  'ErrImagePull',
  'ImagePullBackOff',
  'InvalidImageName',
  'ErrImageNeverPull',
  'CreateContainerConfigError',
  'CreateContainerError',
  'RunContainerError',
]

/** Why a pod is not ready; null when it is, or is just starting. */
export function podTrouble(pod: KubernetesObject): PodTrouble | null {
  if (isPodReady(pod)) return null
  const statuses = ['initContainerStatuses', 'containerStatuses'].flatMap((list) => listAt(pod, 'status', list))
  for (const status of statuses) {
    const waiting = textAt(status, 'state', 'waiting', 'reason')
    if (waiting === null || waiting === 'ContainerCreating' || waiting === 'PodInitializing') continue
    const message = textAt(status, 'state', 'waiting', 'message')
    const name = textAt(status, 'name') ?? 'a container'
    const image = textAt(status, 'image')
    return {
      reason: `${name}${image === null ? '' : ` (${image})`}: ${waiting}${message === null ? '' : `: ${message}`}`,
      hopeless: HOPELESS.includes(waiting),
    }
  }
  const unscheduled = listAt(pod, 'status', 'conditions').find(
    (condition) => textAt(condition, 'type') === 'PodScheduled' && textAt(condition, 'status') === 'False',
  )
  if (unscheduled === undefined) return null
  return { reason: `not scheduled: ${textAt(unscheduled, 'message') ?? 'no reason given'}`, hopeless: false }
}

export function isPodReady(pod: KubernetesObject): boolean {
  return listAt(pod, 'status', 'conditions').some(
    (condition) => textAt(condition, 'type') === 'Ready' && textAt(condition, 'status') === 'True',
  )
}

/** How often the containers of a pod were started again, and whether it has ended. */
export function hasRestarted(pod: KubernetesObject): boolean {
  const ended = ['Failed', 'Succeeded'].includes(textAt(pod, 'status', 'phase') ?? '')
  return ended || listAt(pod, 'status', 'containerStatuses').some((status) => countAt(status, 'restartCount') > 0)
}

/** The newest of a pod's events, in one line; null when there is none. */
export function lastEvent(events: readonly KubernetesObject[]): string | null {
  const timed = events.map((event) => ({
    at:
      textAt(event, 'lastTimestamp') ??
      textAt(event, 'eventTime') ??
      textAt(event, 'metadata', 'creationTimestamp') ??
      '',
    text: `${textAt(event, 'reason') ?? 'event'}: ${textAt(event, 'message') ?? ''}`,
  }))
  return timed.toSorted((a, b) => (a.at < b.at ? -1 : 1)).at(-1)?.text ?? null
}
