import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

import { parseDocument } from 'yaml'

import { UsageError } from '../core/errors.js'
import { isObject } from '../core/series.js'
import { loadProfileJson } from '../testbed/load-profile.js'
import type { LoadProfile } from '../testbed/load.js'
import type { KubernetesSettings } from './experiment-file.js'
import { fieldAt, type KubernetesObject, marked } from './kubernetes-objects.js'

/** Applications that the load generators know their way about in. */
const APPLICATIONS = ['online-boutique', 'sock-shop']

const FILES = { locust: 'locustfile.py', k6: 'k6.js' } as const

/** Names of the environment variables that the files read. */
const TARGET_VARIABLE = { locust: 'LOCUST_HOST', k6: 'TARGET_URL' } as const

/** @throws {UsageError} when there are no tasks for the application */
export function checkLoadFor(application: string): void {
  if (APPLICATIONS.includes(application)) return
  throw new UsageError(
    `application must be ${APPLICATIONS.join(' or ')} on a cluster, since users have tasks for those, got ${JSON.stringify(application)}`,
  )
}

export interface LoadOptions {
  readonly settings: Pick<KubernetesSettings, 'loadGenerator' | 'frontendUrl'>
  readonly application: string
  readonly profile: LoadProfile
  readonly runId: string
  /** Tells the loads of one run apart, from 1 on. */
  readonly number: number
  /** When k6 ends at the latest: it wants to know beforehand. */
  readonly atMostSeconds: number
}

/** Also the name of its objects and the part of the run that they are. */
export function loadName(runId: string, number: number): string {
  return `meshfever-load-${runId}-${number}`
}

/** The files of k8s/load with another profile: what `kubectl apply -k k8s/load` would create, under names of the run's own. */
export function loadObjects(options: LoadOptions): readonly KubernetesObject[] {
  const { settings, application, profile, runId, number, atMostSeconds } = options
  const { tool, image } = settings.loadGenerator
  const name = loadName(runId, number)
  const labels = { app: name, 'app.kubernetes.io/name': 'meshfever-load', 'app.kubernetes.io/instance': name }
  const environment: Readonly<Record<string, string>> = {
    APPLICATION: application,
    [TARGET_VARIABLE[tool]]: settings.frontendUrl,
    ...(tool === 'k6' ? { DURATION_SECONDS: String(Math.ceil(atMostSeconds)) } : {}),
  }
  const deployment = readDeployment(`${tool}.yaml`)
  const pod = deployment.spec.template.spec
  const config: KubernetesObject = {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name, labels },
    data: { [FILES[tool]]: readLoadFile(FILES[tool]), 'profile.json': JSON.stringify(loadProfileJson(profile)) },
  }
  const load: KubernetesObject = {
    ...deployment,
    metadata: { name, labels: { ...deployment.metadata.labels, ...labels } },
    spec: {
      ...deployment.spec,
      replicas: 1,
      selector: { matchLabels: { 'app.kubernetes.io/instance': name } },
      template: {
        metadata: {
          ...deployment.spec.template.metadata,
          labels: { ...deployment.spec.template.metadata.labels, ...labels },
        },
        spec: {
          ...pod,
          containers: pod.containers.map((container) => ({
            ...container,
            image,
            env: [
              ...container.env.filter((variable) => environment[variable.name] === undefined),
              ...Object.entries(environment).map(([variable, value]) => ({ name: variable, value })),
            ],
          })),
          volumes: pod.volumes.map((volume) => ('configMap' in volume ? { ...volume, configMap: { name } } : volume)),
        },
      },
    },
  }
  return [config, load].map((object) => marked(object, runId, name))
}

/** The fields of our own manifests that are filled in. */
interface LoadDeployment extends KubernetesObject {
  readonly spec: {
    readonly template: {
      readonly metadata: { readonly labels: Readonly<Record<string, string>> }
      readonly spec: {
        readonly containers: readonly {
          readonly env: readonly { readonly name: string; readonly value: string }[]
        }[]
        readonly volumes: readonly Readonly<Record<string, unknown>>[]
      }
    }
  }
}

function readDeployment(file: string): LoadDeployment {
  const document: unknown = parseDocument(readLoadFile(file)).toJS()
  if (!isObject(document) || fieldAt(document, 'spec', 'template', 'spec') === undefined)
    throw new Error(`k8s/load/${file} is no Deployment`)
  return document as unknown as LoadDeployment
}

function readLoadFile(file: string): string {
  return readFileSync(fileURLToPath(new URL(`../../../k8s/load/${file}`, import.meta.url)), 'utf8')
}
