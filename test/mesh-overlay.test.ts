import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'

import {
  brokenPodRules,
  checkArgs,
  containerOf,
  only,
  schemaOf,
  title,
  typeErrors,
  type Workload,
} from './helpers/kubernetes-schemas.js'
import { findKustomize, type KubernetesObject, renderKustomization } from './helpers/kustomize.js'
import { packageRoot } from './helpers/package-root.js'

const ROOT = packageRoot()
const kustomize = findKustomize()
const skip = kustomize.kind === 'missing' ? kustomize.reason : false
const rendered = (folder: string): readonly KubernetesObject[] =>
  kustomize.kind === 'found' ? renderKustomization(kustomize, join(ROOT, folder)) : []

const mesh = rendered('k8s/overlays/mesh')
const base = rendered('k8s')
const named = (name: string): KubernetesObject =>
  only(
    mesh.filter(({ kind, metadata }) => metadata.name === name && kind !== 'Service'),
    name,
  )
const monitor = (): Workload => named('mesh-monitor') as Workload
const incident = (): Workload => named('mesh-incident') as Workload

test(
  'mesh overlay: it is the shards of a monitor, their names, an incident detector, and what they need',
  { skip },
  () => {
    assert.deepEqual(mesh.map(title).sort(), [
      'Deployment meshfever/mesh-incident',
      'Namespace meshfever',
      'NetworkPolicy meshfever/alertmanager',
      'NetworkPolicy meshfever/default-deny',
      'NetworkPolicy meshfever/dns',
      'NetworkPolicy meshfever/prometheus',
      'PodDisruptionBudget meshfever/incident-detectors',
      'PodDisruptionBudget meshfever/monitors',
      'PriorityClass meshfever',
      'Service meshfever/mesh-monitor',
      'ServiceAccount meshfever/meshfever-incident',
      'ServiceAccount meshfever/meshfever-monitor',
      'StatefulSet meshfever/mesh-monitor',
    ])
  },
)

test('mesh overlay: applied beside the base it changes none of its objects', { skip }, () => {
  for (const object of mesh) {
    const other = base.find((candidate) => title(candidate) === title(object))
    if (other !== undefined) assert.deepEqual(object, other)
  }
})

test('mesh overlay: every object fits its schema and has no field that its type does not know', { skip }, () => {
  for (const object of mesh) assert.doesNotThrow(() => schemaOf(object).validate(object), title(object))
  assert.deepEqual(typeErrors(mesh), [])
  const typo = JSON.parse(JSON.stringify(monitor()).replace('podManagementPolicy', 'podManagmentPolicy')) as Workload
  assert.equal(typeErrors([typo]).length, 1, 'the check sees a field that nobody knows')
})

test('mesh overlay: pods keep the restricted profile', { skip }, () => {
  assert.deepEqual(
    [monitor(), incident()].flatMap((workload) => brokenPodRules(workload)),
    [],
  )
})

test(
  'mesh overlay: a pod is what the base’s is, but for its name, its flags, its ordinal, its memory and its place',
  { skip },
  () => {
    for (const [workload, name] of [
      [monitor(), 'monitor-frontend-cartservice'],
      [incident(), 'incident'],
    ] as const) {
      const other = only(
        base.filter(({ kind, metadata }) => kind === 'Deployment' && metadata.name === name),
        name,
      ) as unknown as Workload
      const bare = (one: Workload): unknown => {
        const template = structuredClone(one.spec.template) as unknown as {
          readonly metadata: { readonly labels: Record<string, string> }
          readonly spec: Record<string, unknown>
        }
        template.metadata.labels['app.kubernetes.io/instance'] = ''
        const [container] = template.spec['containers'] as Record<string, unknown>[]
        for (const field of ['args', 'env', 'resources', 'volumeMounts']) Reflect.deleteProperty(container!, field)
        for (const field of ['volumes', 'topologySpreadConstraints']) Reflect.deleteProperty(template.spec, field)
        return template
      }
      assert.deepEqual(bare(workload), bare(other), name)
    }
  },
)

test(
  'mesh overlay: there are as many pods as the flag says that there are shards, and the Service is theirs',
  { skip },
  () => {
    const { replicas, serviceName, selector } = monitor().spec as unknown as {
      readonly replicas: number
      readonly serviceName: string
      readonly selector: { readonly matchLabels: Readonly<Record<string, string>> }
    }
    assert.ok(containerOf(monitor()).args.includes(`--shard=auto/${replicas}`))
    const service = only(
      mesh.filter(({ kind }) => kind === 'Service'),
      'Services',
    )
    const { clusterIP, selector: serves } = service['spec'] as {
      readonly clusterIP: string
      readonly selector: unknown
    }
    assert.deepEqual([serviceName, clusterIP], [service.metadata.name, 'None'])
    assert.deepEqual(serves, selector.matchLabels)
  },
)

test('mesh overlay: image and version are those of the package', { skip }, () => {
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { readonly version: string }
  for (const workload of [monitor(), incident()]) {
    assert.equal(containerOf(workload).image, `meshfever:${version}`)
    assert.equal(workload.metadata.labels?.['app.kubernetes.io/version'], version)
    assert.equal(workload.spec.template.metadata.labels['app.kubernetes.io/version'], version)
  }
})

test('mesh overlay: the program accepts the args of every pod by its name, and of no pod too many', { skip }, (t) => {
  const check = (deployment: Workload, environment: Readonly<Record<string, string>>) =>
    checkArgs(t, { deployment, objects: mesh }, [], environment)
  for (const podName of ['mesh-monitor-0', 'mesh-monitor-1']) {
    const { status, stderr } = check(monitor(), { POD_NAME: podName })
    assert.equal(status, 0, stderr)
  }
  assert.equal(check(monitor(), { POD_NAME: 'mesh-monitor-2' }).status, 2)
  assert.equal(check(monitor(), {}).status, 2)
  const { status, stderr } = check(incident(), {})
  assert.equal(status, 0, stderr)
})
