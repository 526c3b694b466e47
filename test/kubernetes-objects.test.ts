import assert from 'node:assert/strict'
import { test } from 'node:test'

import type { Pair } from '../src/core/pair.js'
import { pairKey } from '../src/core/pair.js'
import { pairsNotDelayed, pairsToSeeItOn, virtualServicesOf } from '../src/experiment/kubernetes-faults.js'
import {
  hasRestarted,
  hasSidecar,
  injectionTrouble,
  isReady,
  type KubernetesObject,
  lastEvent,
  objectsIn,
  podTrouble,
  prepareApplication,
  resourceOf,
  workloadTrouble,
} from '../src/experiment/kubernetes-objects.js'

const object = (kind: string, name: string, more: Readonly<Record<string, unknown>> = {}): KubernetesObject => ({
  apiVersion: kind === 'Deployment' ? 'apps/v1' : 'v1',
  kind,
  metadata: { name },
  ...more,
})
const withNamespace = (given: KubernetesObject, namespace: string): KubernetesObject => ({
  ...given,
  metadata: { ...given.metadata, namespace },
})
const template = (labels: Readonly<Record<string, string>>) => ({
  spec: { template: { metadata: { labels }, spec: {} } },
})

test("objects: an application's own namespace is left to us, its load generator and public address are left out", () => {
  const { objects, leftOut } = prepareApplication(
    [
      object('Namespace', 'sock-shop'),
      withNamespace(object('Deployment', 'carts', template({ name: 'carts' })), 'sock-shop'),
      object('Deployment', 'frontend', template({ app: 'shop', version: 'v1' })),
      object('Deployment', 'loadgenerator', template({ app: 'loadgenerator' })),
      object('ServiceAccount', 'loadgenerator'),
      object('Service', 'frontend-external'),
      object('Service', 'frontend'),
    ],
    { namespace: 'sock-shop', runId: 'r1' },
  )
  assert.deepEqual(
    objects.map(({ kind, metadata: { name } }) => `${kind} ${name}`),
    ['Deployment carts', 'Deployment frontend', 'Service frontend'],
  )
  assert.deepEqual(
    leftOut.map((left) => left.object),
    ['deployment/loadgenerator', 'serviceaccount/loadgenerator', 'service/frontend-external'],
  )
  for (const { metadata } of objects) {
    assert.deepEqual(metadata.labels, {
      'app.kubernetes.io/managed-by': 'meshfever-experiment',
      'meshfever-run': 'r1',
      'meshfever-part': 'application',
    })
  }
  const labelsOf = (index: number): unknown =>
    (objects[index] as unknown as ReturnType<typeof template>).spec.template.metadata.labels
  assert.deepEqual(labelsOf(0), { name: 'carts', app: 'carts' })
  assert.deepEqual(labelsOf(1), { app: 'shop', version: 'v1' })
})

test('objects: what is for another namespace is refused', () => {
  for (const given of [withNamespace(object('Service', 'x'), 'other'), object('Namespace', 'other')]) {
    assert.throws(() => prepareApplication([given], { namespace: 'shop', runId: 'r1' }), {
      name: 'UsageError',
      message: /is for the namespace "other", and the experiment's namespace is "shop": use the same$/,
    })
  }
})

test("objects: kubectl's answers are nothing, one object, a list, or objects one after the other", () => {
  const pretty = (value: unknown): string => JSON.stringify(value, null, 4)
  const [a, b] = [object('Pod', 'a', { note: '}\n{' }), object('Pod', 'b')]
  assert.deepEqual(objectsIn('\n'), [])
  assert.deepEqual(objectsIn(pretty(a)), [a])
  assert.deepEqual(objectsIn(pretty({ apiVersion: 'v1', kind: 'List', items: [a, b] })), [a, b])
  assert.deepEqual(objectsIn(`${pretty(a)}\n${pretty(b)}\n`), [a, b])
  assert.throws(() => objectsIn('<html>'), { message: `kubectl's answer is not JSON: "<html>"` })
  assert.throws(() => objectsIn('{"kind":"Pod"}'), {
    message: /^not a Kubernetes object with apiVersion, kind and name/,
  })
})

test('objects: resources are named with version and group, so that no other group is meant', () => {
  assert.equal(resourceOf(object('Deployment', 'x')), 'deployment.v1.apps')
  assert.equal(resourceOf(object('Service', 'x')), 'service')
})

for (const { name, status, expected } of [
  { name: 'one that is ready', status: { conditions: [{ type: 'Ready', status: 'True' }] }, expected: null },
  {
    name: 'one that is starting',
    status: { containerStatuses: [{ state: { waiting: { reason: 'ContainerCreating' } } }] },
    expected: null,
  },
  {
    name: 'one whose image is not to be had',
    status: {
      containerStatuses: [
        { name: 'server', image: 'x:1', state: { waiting: { reason: 'ErrImagePull', message: 'no' } } },
      ],
    },
    expected: { reason: 'server (x:1): ErrImagePull: no', hopeless: true },
  },
  {
    name: 'one that ends again and again',
    status: { containerStatuses: [{ name: 'server', state: { waiting: { reason: 'CrashLoopBackOff' } } }] },
    expected: { reason: 'server: CrashLoopBackOff', hopeless: false },
  },
  {
    name: 'one whose init container waits',
    status: { initContainerStatuses: [{ name: 'istio-init', state: { waiting: { reason: 'CreateContainerError' } } }] },
    expected: { reason: 'istio-init: CreateContainerError', hopeless: true },
  },
  {
    name: 'one for which there is no node',
    status: { conditions: [{ type: 'PodScheduled', status: 'False', message: '0/3 nodes: too little memory' }] },
    expected: { reason: 'not scheduled: 0/3 nodes: too little memory', hopeless: false },
  },
]) {
  test(`objects: what is wrong with a pod: ${name}`, () => {
    assert.deepEqual(podTrouble(object('Pod', 'x', { status })), expected)
  })
}

test('objects: a workload is ready when its controller has seen its newest spec and all replicas say so', () => {
  const workload = (generation: number, spec: unknown, status: unknown): KubernetesObject => ({
    ...object('Deployment', 'x', { spec, status }),
    metadata: { name: 'x', generation },
  })
  assert.equal(isReady(workload(2, {}, { observedGeneration: 2, readyReplicas: 1 })), true)
  assert.equal(isReady(workload(2, {}, { observedGeneration: 1, readyReplicas: 1 })), false)
  assert.equal(isReady(workload(1, { replicas: 2 }, { observedGeneration: 1, readyReplicas: 1 })), false)
  assert.equal(isReady(workload(1, { replicas: 0 }, { observedGeneration: 1 })), true)
  const conditions = [{ type: 'ReplicaFailure', status: 'True', message: 'exceeded quota' }]
  assert.equal(workloadTrouble(workload(1, {}, { conditions })), 'exceeded quota')
})

test('objects: a sidecar is a container or a native one among the init containers', () => {
  const pod = (spec: unknown): KubernetesObject => object('Pod', 'x', { spec })
  assert.equal(hasSidecar(pod({ containers: [{ name: 'server' }, { name: 'istio-proxy' }] })), true)
  assert.equal(hasSidecar(pod({ containers: [{ name: 'server' }], initContainers: [{ name: 'istio-proxy' }] })), true)
  assert.equal(hasSidecar(pod({ containers: [{ name: 'server' }], initContainers: [{ name: 'istio-init' }] })), false)
})

test('objects: a namespace is injected by label or revision, and not when it says so', () => {
  const namespace = (labels: Readonly<Record<string, string>>): KubernetesObject => ({
    ...object('Namespace', 'x'),
    metadata: { name: 'x', labels },
  })
  assert.equal(injectionTrouble(namespace({ 'istio-injection': 'enabled' })), null)
  assert.equal(injectionTrouble(namespace({ 'istio.io/rev': 'stable' })), null)
  for (const labels of [
    {},
    { 'istio-injection': 'disabled' },
    { 'istio-injection': 'disabled', 'istio.io/rev': 'stable' },
  ]) {
    assert.match(injectionTrouble(namespace(labels)) ?? '', /^the namespace x is not labelled for Istio's injection/)
  }
  assert.match(injectionTrouble(namespace({ 'istio.io/dataplane-mode': 'ambient' })) ?? '', /ambient mode/)
})

test('objects: the last of the events, and whether a pod was started again', () => {
  const event = (lastTimestamp: string, reason: string) =>
    object('Event', reason, { lastTimestamp, reason, message: 'm' })
  assert.equal(
    lastEvent([event('2026-01-01T00:00:02Z', 'Second'), event('2026-01-01T00:00:01Z', 'First')]),
    'Second: m',
  )
  assert.equal(lastEvent([]), null)
  assert.equal(hasRestarted(object('Pod', 'x', { status: { containerStatuses: [{ restartCount: 0 }] } })), false)
  assert.equal(hasRestarted(object('Pod', 'x', { status: { containerStatuses: [{ restartCount: 2 }] } })), true)
  assert.equal(hasRestarted(object('Pod', 'x', { status: { phase: 'Succeeded' } })), true)
})

// Faults ------------------------------------------------------------------------------------------------------------------------

const pair = (source: string, destination: string): Pair => ({ source, destination })
const latencies = (entries: readonly (readonly [Pair, number])[]) =>
  new Map(entries.map(([of, ms]) => [pairKey(of), ms]))

test('faults: latency must rise by half of what the delay adds to the mean', () => {
  const [cart, pay] = [pair('frontend', 'cart'), pair('checkout', 'pay')]
  const late = (fault: { delayMs: number; percent: number }, nowMs: number): readonly Pair[] =>
    pairsNotDelayed(fault, { pairs: [cart], before: latencies([[cart, 10]]), now: latencies([[cart, nowMs]]) })
  assert.deepEqual(late({ delayMs: 200, percent: 100 }, 110), [])
  assert.deepEqual(late({ delayMs: 200, percent: 100 }, 109), [cart])
  assert.deepEqual(late({ delayMs: 200, percent: 10 }, 20), [])
  assert.deepEqual(late({ delayMs: 200, percent: 10 }, 19), [cart])
  // Without requests nothing is seen; without requests before, all of it is the delay's.
  const fault = { delayMs: 200, percent: 100 }
  assert.deepEqual(pairsNotDelayed(fault, { pairs: [cart, pay], before: new Map(), now: latencies([[pay, 100]]) }), [
    cart,
  ])
})

test('faults: a delay is looked for on the edges to its own hosts, and on all others when there is none', () => {
  const manifest = (host: string): string =>
    `apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: ${host.split('.')[0]!}}\nspec: {hosts: [${host}]}\n`
  const pairs = [pair('frontend', 'checkout'), pair('checkout', 'pay')]
  const both = `${manifest('pay.shop.svc.cluster.local')}---\n${manifest('other')}---\n`
  const objects = virtualServicesOf({ name: 'x', manifest: both }, 'shop')
  assert.deepEqual(
    objects.map(({ metadata }) => metadata.name),
    ['pay', 'other'],
  )
  assert.deepEqual(pairsToSeeItOn({ pairs }, objects), [pair('checkout', 'pay')])
  assert.deepEqual(pairsToSeeItOn({ pairs }, objects.slice(1)), pairs)
})

test('faults: a manifest that is no YAML, or empty, is refused', () => {
  assert.throws(() => virtualServicesOf({ name: 'x', manifest: 'a: [' }, 'shop'), {
    name: 'UsageError',
    message: /^fault "x": its manifest must be YAML: /,
  })
  assert.throws(() => virtualServicesOf({ name: 'x', manifest: '---\n' }, 'shop'), {
    name: 'UsageError',
    message: 'fault "x": its manifest has no object',
  })
})
