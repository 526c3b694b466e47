import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'

import { parse } from 'yaml'

import {
  brokenPodRules,
  checkArgs,
  containerOf,
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
const workloadsOf = (objects: readonly KubernetesObject[]): readonly Workload[] =>
  objects.filter(({ kind }) => kind === 'Deployment') as unknown as readonly Workload[]

const shop = rendered('k8s/overlays/sock-shop')
const boutique = rendered('k8s/overlays/online-boutique')
const load = rendered('k8s/load')

/** The values given for a flag, in order. */
const flag = (args: readonly string[], name: string): readonly string[] =>
  args.flatMap((arg) => (arg.startsWith(`--${name}=`) ? [arg.slice(name.length + 3)] : []))
const withoutHash = (object: KubernetesObject): string => title(object).replace(/-[a-z0-9]{10}$/, '-HASH')

test('overlays: Online Boutique is what the base is, object for object', { skip }, () => {
  assert.equal(boutique.length, 17)
  assert.deepEqual(boutique, rendered('k8s'))
})

test('overlays: Sock Shop is five monitors, an incident detector of its own name, and what they need', { skip }, () => {
  assert.deepEqual(shop.map(withoutHash).sort(), [
    'ConfigMap meshfever/training-front-end-carts-HASH',
    'ConfigMap meshfever/training-front-end-catalogue-HASH',
    'ConfigMap meshfever/training-front-end-orders-HASH',
    'ConfigMap meshfever/training-orders-payment-HASH',
    'ConfigMap meshfever/training-orders-shipping-HASH',
    'Deployment meshfever/incident-sock-shop',
    'Deployment meshfever/monitor-front-end-carts',
    'Deployment meshfever/monitor-front-end-catalogue',
    'Deployment meshfever/monitor-front-end-orders',
    'Deployment meshfever/monitor-orders-payment',
    'Deployment meshfever/monitor-orders-shipping',
    'Namespace meshfever',
    'NetworkPolicy meshfever/alertmanager',
    'NetworkPolicy meshfever/default-deny',
    'NetworkPolicy meshfever/dns',
    'NetworkPolicy meshfever/prometheus',
    'PodDisruptionBudget meshfever/incident-detectors',
    'PodDisruptionBudget meshfever/monitors',
    'PriorityClass meshfever',
    'ServiceAccount meshfever/meshfever-incident',
    'ServiceAccount meshfever/meshfever-monitor',
  ])
})

test('overlays: applied beside the base, Sock Shop changes none of its objects', { skip }, () => {
  for (const object of boutique) {
    const other = shop.find((candidate) => title(candidate) === title(object))
    if (other !== undefined) assert.deepEqual(other, object)
  }
})

test('overlays: every object fits its schema and has no field that its type does not know', { skip }, () => {
  for (const object of [...shop, ...load]) assert.doesNotThrow(() => schemaOf(object).validate(object), title(object))
  assert.deepEqual(typeErrors([...shop, ...load]), [])
})

test('overlays: pods keep the restricted profile', { skip }, () => {
  assert.deepEqual(
    workloadsOf(shop).flatMap((workload) => brokenPodRules(workload)),
    [],
  )
})

test(
  'overlays: the monitors of Sock Shop differ from those of the base in what is their own, and in nothing else',
  { skip },
  () => {
    const own = (workload: Workload): unknown => {
      const { name } = workload.metadata
      const text = JSON.stringify({ ...workload, spec: { ...workload.spec } })
      const bare = JSON.parse(text.replaceAll(name, 'NAME')) as Workload
      const pod = bare.spec.template.spec
      return {
        ...bare,
        spec: {
          ...bare.spec,
          template: {
            ...bare.spec.template,
            spec: {
              ...pod,
              containers: pod.containers.map((each) => ({ ...each, args: [] })),
              volumes: pod.volumes?.length,
            },
          },
        },
      }
    }
    const [first] = workloadsOf(boutique).filter(({ metadata }) => metadata.name.startsWith('monitor-'))
    for (const workload of workloadsOf(shop).filter(({ metadata }) => metadata.name.startsWith('monitor-'))) {
      assert.deepEqual(own(workload), own(first!), title(workload))
    }
  },
)

test(
  "overlays: a monitor is called after its pair, reads its pair's recording, and asks for the labels that Sock Shop has",
  { skip },
  () => {
    const monitors = workloadsOf(shop).filter(({ metadata }) => metadata.name.startsWith('monitor-'))
    for (const workload of monitors) {
      const { args } = containerOf(workload)
      const pair = `${flag(args, 'service1')[0]!}-${flag(args, 'service2')[0]!}`
      assert.equal(workload.metadata.name, `monitor-${pair}`)
      assert.deepEqual(flag(args, 'training-data-file'), [`/training/${pair}_training.json`])
      const mounted = workload.spec.template.spec.volumes?.map(({ configMap }) =>
        configMap?.name.replace(/-[a-z0-9]{10}$/, ''),
      )
      assert.deepEqual(mounted, [`training-${pair}`])
    }
    for (const workload of workloadsOf(shop)) {
      const { args } = containerOf(workload)
      assert.deepEqual(
        [flag(args, 'source-label'), flag(args, 'destination-label')],
        [['source_workload'], ['destination_workload']],
        title(workload),
      )
    }
  },
)

test(
  'overlays: the incident detector of Sock Shop counts the pairs that have a monitor, which its topology has',
  { skip },
  () => {
    const argsOf = (workload: Workload) => containerOf(workload).args
    const monitored = workloadsOf(shop)
      .map(argsOf)
      .filter(([command]) => command === 'monitor')
      .map((args) => `${flag(args, 'service1')[0]!}:${flag(args, 'service2')[0]!}`)
    const [incident] = workloadsOf(shop).filter(({ metadata }) => metadata.name === 'incident-sock-shop')
    assert.deepEqual(flag(argsOf(incident!), 'pair').toSorted(), monitored.toSorted())
    const { services } = parse(readFileSync(join(ROOT, 'topologies/sock-shop.yaml'), 'utf8')) as {
      services: readonly { name: string; endpoints: unknown }[]
    }
    for (const pair of monitored) {
      const [source, destination] = pair.split(':')
      const calls = JSON.stringify(services.find(({ name }) => name === source)?.endpoints)
      assert.ok(calls.includes(`"${destination!}/`), `${source!} does not call ${destination!}`)
    }
  },
)

test('overlays: the program accepts the args of every Deployment', { skip }, (t) => {
  for (const deployment of workloadsOf(shop)) {
    const { status, stderr } = checkArgs(t, { deployment, objects: shop })
    assert.equal(status, 0, `${title(deployment)}: ${stderr}`)
  }
})

test('overlays: training data is a copy of training/, and all of it is used', { skip }, () => {
  for (const { overlay, objects } of [
    { overlay: 'sock-shop', objects: shop },
    { overlay: 'online-boutique', objects: boutique },
  ]) {
    const folder = join(ROOT, 'k8s/overlays', overlay, 'training')
    const used = objects
      .filter(({ kind }) => kind === 'ConfigMap')
      .flatMap((object) => Object.entries(object['data'] as Readonly<Record<string, string>>))
    assert.deepEqual(used.map(([file]) => file).sort(), readdirSync(folder).sort(), overlay)
    for (const [file, text] of used) assert.equal(text, readFileSync(join(ROOT, 'training', file), 'utf8'), file)
  }
})

test(
  'load: Locust has one replica and k6 none, and both run in the restricted profile on the files beside them',
  { skip },
  () => {
    assert.deepEqual(load.map(withoutHash).sort(), [
      'ConfigMap meshfever-load-HASH',
      'Deployment meshfever-load-k6',
      'Deployment meshfever-load-locust',
    ])
    const config = load.find(({ kind }) => kind === 'ConfigMap')!
    for (const file of ['k6.js', 'locustfile.py', 'profile.json']) {
      const text = (config['data'] as Readonly<Record<string, string>>)[file]
      assert.equal(text, readFileSync(join(ROOT, 'k8s/load', file), 'utf8'), file)
    }
    const [k6, locust] = workloadsOf(load).toSorted((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1))
    assert.deepEqual(brokenPodRules(k6!, { user: 12345 }), [])
    assert.deepEqual(brokenPodRules(locust!, { user: 1000 }), [])
    const replicas = (workload: Workload) => (workload.spec as unknown as { replicas: number }).replicas
    assert.deepEqual([replicas(k6!), replicas(locust!)], [0, 1])
    for (const workload of [k6!, locust!]) {
      const names = workload.spec.template.spec.volumes?.flatMap(({ configMap }) => configMap?.name ?? [])
      assert.deepEqual(names, [config.metadata.name])
      assert.equal(containerOf(workload).volumeMounts?.[0]?.mountPath, '/load')
    }
    assert.ok(containerOf(k6!).args.includes('/load/k6.js'))
    assert.ok(containerOf(locust!).args.includes('--locustfile=/load/locustfile.py'))
  },
)
