import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TestContext } from 'node:test'

import { VirtualService } from '@kubernetes-models/istio/networking.istio.io/v1beta1/VirtualService'
import { PodMonitor } from '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor'
import { Deployment } from 'kubernetes-models/apps/v1/Deployment'
import { StatefulSet } from 'kubernetes-models/apps/v1/StatefulSet'
import { NetworkPolicy } from 'kubernetes-models/networking.k8s.io/v1/NetworkPolicy'
import { PodDisruptionBudget } from 'kubernetes-models/policy/v1/PodDisruptionBudget'
import { PriorityClass } from 'kubernetes-models/scheduling.k8s.io/v1/PriorityClass'
import { ConfigMap } from 'kubernetes-models/v1/ConfigMap'
import { Namespace } from 'kubernetes-models/v1/Namespace'
import { Service } from 'kubernetes-models/v1/Service'
import { ServiceAccount } from 'kubernetes-models/v1/ServiceAccount'
import ts from 'typescript'

import type { KubernetesObject } from './kustomize.js'
import { packageRoot } from './package-root.js'
import { brokenControls, type Pod } from './pod-security.js'
import { PROGRAM } from './program.js'
import { temporaryFolder } from './temporary-folder.js'

const ROOT = packageRoot()

export interface Container {
  readonly name: string
  readonly image: string
  readonly args: readonly string[]
  readonly ports?: readonly { readonly name: string; readonly containerPort: number; readonly hostPort?: number }[]
  readonly volumeMounts?: readonly { readonly name: string; readonly mountPath: string; readonly readOnly?: boolean }[]
  readonly resources: { readonly requests: Record<string, string>; readonly limits: Record<string, string> }
  readonly securityContext?: {
    readonly allowPrivilegeEscalation?: boolean
    readonly privileged?: boolean
    readonly readOnlyRootFilesystem?: boolean
    readonly capabilities?: { readonly drop?: readonly string[]; readonly add?: readonly string[] }
  }
  readonly [probe: string]: unknown
}

export interface PodSpec {
  readonly serviceAccountName: string
  readonly automountServiceAccountToken?: boolean
  readonly enableServiceLinks?: boolean
  readonly hostNetwork?: boolean
  readonly hostPID?: boolean
  readonly hostIPC?: boolean
  readonly securityContext?: {
    readonly runAsNonRoot?: boolean
    readonly runAsUser?: number
    readonly seccompProfile?: { readonly type?: string }
  }
  readonly containers: readonly Container[]
  readonly initContainers?: readonly Container[]
  readonly volumes?: readonly {
    readonly name: string
    readonly configMap?: { readonly name: string }
    readonly emptyDir?: unknown
  }[]
}

export interface Workload extends KubernetesObject {
  readonly spec: {
    readonly selector: { readonly matchLabels: Readonly<Record<string, string>> }
    readonly template: {
      readonly metadata: {
        readonly labels: Readonly<Record<string, string>>
        readonly annotations?: Readonly<Record<string, string>>
      }
      readonly spec: PodSpec
    }
  }
}

export interface Schema {
  /** Throws when the object breaks the schema. */
  readonly validate: (object: KubernetesObject) => void
  readonly module: string
  readonly type: string
  /** Where the typed model is that of an older version with the same schema: that version. */
  readonly apiVersion?: string
}

type Model = new (data: never) => { validate(): void }

const schema = (model: Model, module: string, apiVersion?: string): Schema => {
  const asModelled = (object: KubernetesObject) => (apiVersion === undefined ? object : { ...object, apiVersion })
  return {
    validate: (object) => new model(asModelled(object) as never).validate(),
    module,
    type: `I${model.name}`,
    ...(apiVersion === undefined ? {} : { apiVersion }),
  }
}

const SCHEMAS: Readonly<Record<string, Schema>> = {
  'v1 Namespace': schema(Namespace, 'kubernetes-models/v1/Namespace'),
  'v1 ServiceAccount': schema(ServiceAccount, 'kubernetes-models/v1/ServiceAccount'),
  'v1 ConfigMap': schema(ConfigMap, 'kubernetes-models/v1/ConfigMap'),
  'v1 Service': schema(Service, 'kubernetes-models/v1/Service'),
  'apps/v1 Deployment': schema(Deployment, 'kubernetes-models/apps/v1/Deployment'),
  'apps/v1 StatefulSet': schema(StatefulSet, 'kubernetes-models/apps/v1/StatefulSet'),
  'networking.k8s.io/v1 NetworkPolicy': schema(NetworkPolicy, 'kubernetes-models/networking.k8s.io/v1/NetworkPolicy'),
  'policy/v1 PodDisruptionBudget': schema(PodDisruptionBudget, 'kubernetes-models/policy/v1/PodDisruptionBudget'),
  'scheduling.k8s.io/v1 PriorityClass': schema(PriorityClass, 'kubernetes-models/scheduling.k8s.io/v1/PriorityClass'),
  'monitoring.coreos.com/v1 PodMonitor': schema(
    PodMonitor,
    '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor',
  ),
  // Istio promoted v1beta1 to v1 without a change to the schema. The models that name v1 (3.x) ask for Node 22.
  'networking.istio.io/v1 VirtualService': schema(
    VirtualService,
    '@kubernetes-models/istio/networking.istio.io/v1beta1/VirtualService',
    'networking.istio.io/v1beta1',
  ),
}

/** For messages. */
export function title({ kind, metadata }: KubernetesObject): string {
  return `${kind} ${metadata.namespace === undefined ? '' : `${metadata.namespace}/`}${metadata.name}`
}

export function schemaOf(object: KubernetesObject): Schema {
  const found = SCHEMAS[`${object.apiVersion} ${object.kind}`]
  assert(found !== undefined, `${title(object)}: no schema for ${object.apiVersion} ${object.kind}`)
  return found
}

/**
 * The fields that no schema knows. JSON schemas let them pass, the API server does not (`livenesProbe`); the compiler finds them when
 * the object is written down as a literal of its typed model.
 *
 * @returns the compiler's messages, one for each field that is wrong
 */
export function typeErrors(objects: readonly KubernetesObject[]): readonly string[] {
  const fileName = join(ROOT, 'rendered.ts')
  const source = objects.map((object, index) => {
    const { module, type, apiVersion } = schemaOf(object)
    const literal = JSON.stringify(apiVersion === undefined ? object : { ...object, apiVersion })
    return `export const object${index}: import(${JSON.stringify(module)}).${type} = ${literal}`
  })
  const options: ts.CompilerOptions = {
    module: ts.ModuleKind.NodeNext,
    strict: true,
    skipLibCheck: true,
    noEmit: true,
    types: [],
  }
  const host = ts.createCompilerHost(options)
  const getSourceFile = host.getSourceFile.bind(host)
  host.getSourceFile = (name, ...rest) =>
    name === fileName
      ? ts.createSourceFile(name, source.join('\n'), ts.ScriptTarget.ES2022)
      : getSourceFile(name, ...rest)
  const program = ts.createProgram({ rootNames: [fileName], options, host })
  return ts.getPreEmitDiagnostics(program).map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, '\n'))
}

export const only = <T>(values: readonly T[], what: string): T => {
  assert.equal(values.length, 1, what)
  return values[0]!
}
/** The one container of a workload. */
export const containerOf = (deployment: Workload) =>
  only(deployment.spec.template.spec.containers, `${title(deployment)}: containers`)

/** A copy with one field set, which is named by its path; undefined takes the field away. */
export function withField<T>(object: T, path: readonly string[], value: unknown): T {
  const copy = structuredClone(object)
  let node = copy as Record<string, unknown>
  for (const key of path.slice(0, -1)) node = (node[key] ??= {}) as Record<string, unknown>
  node[path.at(-1)!] = value
  return copy
}

/** The pod that a workload makes. */
export const podOf = ({ spec }: Workload): Pod => ({
  annotations: spec.template.metadata.annotations ?? {},
  spec: spec.template.spec as unknown as Pod['spec'],
})

/**
 * Pod Security "restricted", and what goes beyond it. One line for each rule that a pod breaks.
 *
 * @param options.user - of the image
 */
export function brokenPodRules(
  workload: Workload,
  { user = 65532 }: { readonly user?: number } = {},
): readonly string[] {
  const pod = workload.spec.template.spec
  const containers = [...pod.containers, ...(pod.initContainers ?? [])]
  const rules: Readonly<Record<string, boolean>> = {
    'runAsUser is the user of the image': pod.securityContext?.runAsUser === user,
    'the root file system is read-only': containers.every(
      ({ securityContext }) => securityContext?.readOnlyRootFilesystem === true,
    ),
    'no API token': pod.automountServiceAccountToken === false,
    'no service links': pod.enableServiceLinks === false,
    'requests and limits': containers.every(
      ({ resources: { requests, limits } }) =>
        requests['cpu'] !== undefined && requests['memory'] !== undefined && limits['memory'] !== undefined,
    ),
    'no CPU limit': containers.every(({ resources }) => resources.limits['cpu'] === undefined),
  }
  const broken = [...brokenControls(podOf(workload)), ...Object.keys(rules).filter((rule) => rules[rule] !== true)]
  return broken.map((rule) => `${title(workload)}: ${rule}`)
}

/** Runs `meshfever ARGS --check` as the container would, with the files of its ConfigMaps where they are mounted. */
export function checkArgs(
  t: TestContext,
  { deployment, objects }: { readonly deployment: Workload; readonly objects: readonly KubernetesObject[] },
  extraArgs: readonly string[] = [],
  environment: Readonly<Record<string, string>> = {},
) {
  const folder = temporaryFolder(t)
  const { args, volumeMounts = [] } = containerOf(deployment)
  const mounted = volumeMounts.map(({ name, mountPath }) => {
    const volume = deployment.spec.template.spec.volumes?.find((candidate) => candidate.name === name)
    const configMap = objects.find(
      ({ kind, metadata }) => kind === 'ConfigMap' && metadata.name === volume?.configMap?.name,
    )
    assert(configMap !== undefined, `${title(deployment)}: nothing to mount at ${mountPath}`)
    mkdirSync(join(folder, mountPath), { recursive: true })
    for (const [file, text] of Object.entries(configMap['data'] as Readonly<Record<string, string>>)) {
      writeFileSync(join(folder, mountPath, file), text)
    }
    return mountPath
  })
  const here = args.map((arg) =>
    mounted.reduce((text, mountPath) => text.replace(`=${mountPath}/`, `=${join(folder, mountPath)}/`), arg),
  )
  const { status, stderr } = spawnSync(process.execPath, [PROGRAM, ...here, ...extraArgs, '--check'], {
    encoding: 'utf8',
    env: { PATH: process.env['PATH'], ...environment },
  })
  return { status, stderr }
}
