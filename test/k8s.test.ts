import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'

import { parse } from 'yaml'

import {
  brokenPodRules,
  checkArgs,
  containerOf,
  only,
  schemaOf,
  title,
  typeErrors,
  withField,
  type Workload,
} from './helpers/kubernetes-schemas.js'
import { findKustomize, type KubernetesObject, parseManifest, renderKustomization } from './helpers/kustomize.js'
import { packageRoot } from './helpers/package-root.js'

const ROOT = packageRoot()
const FAULTS = join(ROOT, 'k8s/faults')

/** What the API server takes for one ConfigMap, keys and values together. */
const CONFIG_MAP_LIMIT_BYTES = 1024 * 1024

interface HttpRoute {
  readonly match?: readonly { readonly sourceLabels?: Readonly<Record<string, string>> }[]
  readonly fault?: {
    readonly delay?: { readonly fixedDelay?: string; readonly percentage?: { readonly value: number } }
  }
  readonly route: readonly { readonly destination: { readonly host: string } }[]
}

interface FaultObject extends KubernetesObject {
  readonly spec: { readonly hosts: readonly string[]; readonly http: readonly HttpRoute[] }
}

// What there is ----------------------------------------------------------------------------------------------------------------

const kustomize = findKustomize()
const skip = kustomize.kind === 'missing' ? kustomize.reason : false
const rendered = (folder: string) =>
  kustomize.kind === 'found' ? renderKustomization(kustomize, join(ROOT, folder)) : []

const base = rendered('k8s')
const podMonitorOverlay = rendered('k8s/overlays/podmonitor')
const podMonitors = podMonitorOverlay.filter(({ kind }) => kind === 'PodMonitor')
const deployments = base.filter(({ kind }) => kind === 'Deployment') as unknown as readonly Workload[]
const faultFiles = readdirSync(FAULTS).sort()
const faults = faultFiles.flatMap((file) =>
  parseManifest(readFileSync(join(FAULTS, file), 'utf8')).map((object) => ({ file, object: object as FaultObject })),
)

const named = (name: string): Workload =>
  only(
    deployments.filter(({ metadata }) => metadata.name === name),
    `Deployments called ${name}`,
  )

/** The values given for a flag, in order. */
const flag = (args: readonly string[], name: string): readonly string[] =>
  args.flatMap((arg) => (arg.startsWith(`--${name}=`) ? [arg.slice(name.length + 3)] : []))

// Tests ------------------------------------------------------------------------------------------------------------------------

test('k8s: the base is three monitors, the incident detector and what they need', { skip }, () => {
  assert.deepEqual(base.map((object) => title(object).replace(/-[a-z0-9]{10}$/, '-HASH')).sort(), [
    'ConfigMap meshfever/training-checkoutservice-paymentservice-HASH',
    'ConfigMap meshfever/training-frontend-cartservice-HASH',
    'ConfigMap meshfever/training-frontend-shippingservice-HASH',
    'Deployment meshfever/incident',
    'Deployment meshfever/monitor-checkoutservice-paymentservice',
    'Deployment meshfever/monitor-frontend-cartservice',
    'Deployment meshfever/monitor-frontend-shippingservice',
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
  assert.deepEqual(podMonitorOverlay.map(title).sort(), [
    'NetworkPolicy meshfever/prometheus-operator',
    'PodMonitor meshfever/meshfever',
  ])
})

test('k8s: every rendered object and every fault fits its schema', { skip }, () => {
  for (const object of [...base, ...podMonitorOverlay, ...faults.map(({ object }) => object)]) {
    assert.doesNotThrow(() => schemaOf(object).validate(object), title(object))
  }
})

test('k8s: no rendered object and no fault has a field that its type does not know', { skip }, () => {
  assert.deepEqual(typeErrors([...base, ...podMonitorOverlay, ...faults.map(({ object }) => object)]), [])
})

for (const { name, valid, path, value, schemaMessage, typeMessage } of [
  {
    name: 'a Deployment whose replicas are a text',
    valid: () => named('incident'),
    path: ['spec', 'replicas'],
    value: 'one',
    schemaMessage: /data\/spec\/replicas must be integer/,
    typeMessage: /Type 'string' is not assignable to type 'number'/,
  },
  {
    name: 'a Deployment with a misspelt probe',
    valid: () => named('incident'),
    path: ['spec', 'template', 'spec', 'containers', '0', 'livenesProbe'],
    value: {},
    typeMessage: /'"livenesProbe"' does not exist in type 'IContainer'/,
  },
  {
    name: 'a Namespace whose label is a boolean',
    valid: () =>
      only(
        base.filter(({ kind }) => kind === 'Namespace'),
        'namespaces',
      ),
    path: ['metadata', 'labels', 'istio-injection'],
    value: true,
    schemaMessage: /must be string/,
    typeMessage: /Type 'boolean' is not assignable to type 'string'/,
  },
  {
    name: 'a ServiceAccount whose token is mounted "no"',
    valid: () => base.find(({ kind }) => kind === 'ServiceAccount')!,
    path: ['automountServiceAccountToken'],
    value: 'no',
    schemaMessage: /must be boolean/,
    typeMessage: /Type 'string' is not assignable to type 'boolean \| undefined'/,
  },
  {
    name: 'a ConfigMap with JSON instead of text',
    valid: () => base.find(({ kind }) => kind === 'ConfigMap')!,
    path: ['data', 'training.json'],
    value: { status: 'success' },
    schemaMessage: /must be string/,
    typeMessage: /not assignable to type 'string'/,
  },
  {
    name: 'a PodMonitor with one endpoint instead of a list',
    valid: () => podMonitors[0]!,
    path: ['spec', 'podMetricsEndpoints'],
    value: { port: 'metrics' },
    schemaMessage: /must be array/,
    typeMessage: /podMetricsEndpoints|not assignable|does not exist/,
  },
  {
    name: 'a VirtualService whose percentage is a bare number',
    valid: () => faults[0]!.object,
    path: ['spec', 'http', '0', 'fault', 'delay', 'percentage'],
    value: 100,
    schemaMessage: /percentage must be object/,
    typeMessage: /Type 'number' has no properties in common with type '\{ value\?: number/,
  },
  {
    name: 'a VirtualService whose delay has no unit',
    valid: () => faults[0]!.object,
    path: ['spec', 'http', '0', 'fault', 'delay', 'fixedDelay'],
    value: 0.2,
    schemaMessage: /fixedDelay must be string/,
    typeMessage: /Type 'number' is not assignable to type 'string'/,
  },
  {
    name: 'a VirtualService with a misspelt match',
    valid: () => faults[0]!.object,
    path: ['spec', 'http', '0', 'matches'],
    value: [],
    typeMessage: /'"matches"' does not exist in type/,
  },
]) {
  test(`k8s: the validators refuse ${name}`, { skip }, () => {
    const broken = withField(valid(), path, value)
    if (schemaMessage !== undefined) assert.throws(() => schemaOf(broken).validate(broken), schemaMessage)
    assert.match(typeErrors([broken]).join('\n'), typeMessage)
  })
}

test('k8s: a manifest with the same key twice is refused', () => {
  assert.throws(() => parseManifest('kind: Namespace\nkind: Secret\n'), /Map keys must be unique/)
})

test('k8s: names are unique', { skip }, () => {
  for (const objects of [
    [...base, ...podMonitorOverlay],
    ...faultFiles.map((file) => faults.filter((fault) => fault.file === file).map(({ object }) => object)),
  ]) {
    const titles = objects.map(title)
    assert.deepEqual(titles, [...new Set(titles)])
  }
})

test('k8s: every object of the base carries the recommended labels', { skip }, () => {
  for (const object of [...base, ...podMonitorOverlay]) {
    assert.equal(object.metadata.labels?.['app.kubernetes.io/name'], 'meshfever', title(object))
    assert.equal(object.metadata.labels['app.kubernetes.io/part-of'], 'meshfever', title(object))
  }
})

test('k8s: the version label and the image tag are the version of the package', { skip }, () => {
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string }
  for (const deployment of deployments) {
    assert.equal(deployment.metadata.labels?.['app.kubernetes.io/version'], version, title(deployment))
    assert.equal(deployment.spec.template.metadata.labels['app.kubernetes.io/version'], version, title(deployment))
    assert.equal(containerOf(deployment).image, `meshfever:${version}`, title(deployment))
  }
})

test('k8s: a selector selects the pods of its own Deployment and no others', { skip }, () => {
  const selects = (selector: Readonly<Record<string, string>>, labels: Readonly<Record<string, string>>) =>
    Object.entries(selector).every(([name, value]) => labels[name] === value)
  for (const { metadata, spec } of deployments) {
    const selected = deployments.filter((other) =>
      selects(spec.selector.matchLabels, other.spec.template.metadata.labels),
    )
    assert.deepEqual(
      selected.map((other) => other.metadata.name),
      [metadata.name],
    )
  }
  const { selector } = podMonitors[0]!['spec'] as Workload['spec']
  assert(deployments.every(({ spec }) => selects(selector.matchLabels, spec.template.metadata.labels)))
})

test('k8s: ServiceAccounts exist and hold no API token', { skip }, () => {
  const accounts = base.filter(({ kind }) => kind === 'ServiceAccount')
  for (const account of accounts) assert.equal(account['automountServiceAccountToken'], false, title(account))
  for (const deployment of deployments) {
    const { serviceAccountName } = deployment.spec.template.spec
    assert(
      accounts.some(
        ({ metadata }) => metadata.name === serviceAccountName && metadata.namespace === deployment.metadata.namespace,
      ),
      `${title(deployment)}: no ServiceAccount ${serviceAccountName}`,
    )
  }
})

test('k8s: every pod keeps the restricted profile', { skip }, () => {
  assert.deepEqual(
    deployments.flatMap((deployment) => brokenPodRules(deployment)),
    [],
  )
})

test('k8s: the restricted profile is enforced on the namespace', { skip }, () => {
  const labels = base.find(({ kind }) => kind === 'Namespace')?.metadata.labels
  for (const mode of ['enforce', 'audit', 'warn'])
    assert.equal(labels?.[`pod-security.kubernetes.io/${mode}`], 'restricted', mode)
})

for (const { rule, path, value } of [
  { rule: 'runAsUser is the user of the image', path: ['securityContext', 'runAsUser'], value: 1000 },
  {
    rule: 'the root file system is read-only',
    path: ['containers', '0', 'securityContext', 'readOnlyRootFilesystem'],
    value: false,
  },
  { rule: 'no API token', path: ['automountServiceAccountToken'], value: undefined },
  { rule: 'no service links', path: ['enableServiceLinks'], value: undefined },
  { rule: 'requests and limits', path: ['containers', '0', 'resources', 'limits', 'memory'], value: undefined },
  { rule: 'no CPU limit', path: ['containers', '0', 'resources', 'limits', 'cpu'], value: '1' },
]) {
  test(`k8s: the profile test sees a pod that breaks "${rule}"`, { skip }, () => {
    const broken = withField(named('incident'), ['spec', 'template', 'spec', ...path], value)
    assert.deepEqual(brokenPodRules(broken), [`Deployment meshfever/incident: ${rule}`])
  })
}

test('k8s: the daemon serves where the probes, the annotations and the PodMonitor look', { skip }, () => {
  const endpoints = (podMonitors[0]!['spec'] as { podMetricsEndpoints: readonly { port: string; path: string }[] })
    .podMetricsEndpoints
  for (const deployment of deployments) {
    const { template } = deployment.spec
    const { ports, args, startupProbe, livenessProbe, readinessProbe } = containerOf(deployment)
    const { name, containerPort } = only(ports ?? [], `${title(deployment)}: ports`)
    assert.deepEqual(flag(args, 'prometheus-port'), [String(containerPort)], title(deployment))
    assert.deepEqual(
      template.metadata.annotations,
      { 'prometheus.io/scrape': 'true', 'prometheus.io/port': String(containerPort), 'prometheus.io/path': '/metrics' },
      title(deployment),
    )
    assert.deepEqual(
      endpoints.map((endpoint) => ({ port: endpoint.port, path: endpoint.path })),
      [{ port: name, path: '/metrics' }],
    )
    for (const [probe, path] of [
      [startupProbe, '/healthz'],
      [livenessProbe, '/healthz'],
      [readinessProbe, '/readyz'],
    ] as const) {
      const { httpGet, timeoutSeconds } = probe as { httpGet: unknown; timeoutSeconds: number }
      assert.deepEqual(
        { httpGet, timeoutSeconds },
        { httpGet: { path, port: name }, timeoutSeconds: 3 },
        title(deployment),
      )
    }
    assert.equal(template.metadata.labels['sidecar.istio.io/inject'], 'false', title(deployment))
  }
})

test('k8s: the incident detector counts the pairs that have a monitor', { skip }, () => {
  const monitored = deployments
    .map((deployment) => containerOf(deployment).args)
    .filter(([command]) => command === 'monitor')
    .map((args) => `${flag(args, 'service1')[0]!}:${flag(args, 'service2')[0]!}`)
  assert.deepEqual(flag(containerOf(named('incident')).args, 'pair').toSorted(), monitored.toSorted())
})

test('k8s: the program accepts the args of every Deployment', { skip }, (t) => {
  for (const deployment of deployments) {
    const { status, stderr } = checkArgs(t, { deployment, objects: base })
    assert.equal(status, 0, `${title(deployment)}: ${stderr}`)
  }
})

test('k8s: the check of the args sees a flag that the program does not know', { skip }, (t) => {
  const { status, stderr } = checkArgs(t, { deployment: named('incident'), objects: base }, ['--no-such-flag=1'])
  assert.equal(status, 2)
  assert.match(stderr, /no-such-flag/)
})

test('k8s: training data is a copy of training/ that fits into a ConfigMap', { skip }, () => {
  const copies = readdirSync(join(ROOT, 'k8s/training')).sort()
  const configMaps = base
    .filter(({ kind }) => kind === 'ConfigMap')
    .map((object) => ({ name: title(object), data: object['data'] as Readonly<Record<string, string>> }))
  assert.deepEqual(configMaps.flatMap(({ data }) => Object.keys(data)).sort(), copies)
  for (const copy of copies) {
    const original = readFileSync(join(ROOT, 'training', copy))
    assert(
      readFileSync(join(ROOT, 'k8s/training', copy)).equals(original),
      `k8s/training/${copy} is not training/${copy}`,
    )
  }
  for (const { name, data } of configMaps) {
    const bytes = Object.entries(data).reduce(
      (sum, [key, text]) => sum + Buffer.byteLength(key) + Buffer.byteLength(text),
      0,
    )
    assert(bytes <= CONFIG_MAP_LIMIT_BYTES, `${name} has ${bytes} bytes`)
  }
})

const delay = (source: string, destination: string) => ({ source, destination })

test('faults: each file delays its pairs, every request by 0.2 s, and no other caller', () => {
  const delays = faultFiles.map((file) => ({
    file,
    delays: faults
      .filter((fault) => fault.file === file)
      .map(({ object: { spec } }) => {
        const [delayed, fallback, ...more] = spec.http
        const host = only(spec.hosts, `${file}: hosts`)
        const source = delayed?.match?.[0]?.sourceLabels?.['app'] ?? ''
        const route = [{ destination: { host } }]
        assert.deepEqual(
          spec.http.map(({ match, fault, route }) => ({ match, fault, route })),
          [
            {
              match: [{ sourceLabels: { app: source } }],
              fault: { delay: { fixedDelay: '0.2s', percentage: { value: 100 } } },
              route,
            },
            { match: undefined, fault: undefined, route },
          ],
          file,
        )
        assert.equal(fallback?.match, undefined, file)
        assert.deepEqual(more, [], file)
        return delay(source, host)
      }),
  }))
  assert.deepEqual(delays, [
    { file: 'checkoutservice-paymentservice-delay.yaml', delays: [delay('checkoutservice', 'paymentservice')] },
    {
      file: 'double-delay.yaml',
      delays: [delay('frontend', 'cartservice'), delay('checkoutservice', 'paymentservice')],
    },
    { file: 'frontend-cartservice-delay.yaml', delays: [delay('frontend', 'cartservice')] },
    { file: 'frontend-shippingservice-delay.yaml', delays: [delay('frontend', 'shippingservice')] },
  ])
})

test('faults: one object is the same in every file that has it, so that the double delay replaces and removes the single ones', () => {
  for (const { file, object } of faults) {
    for (const other of faults.filter((fault) => title(fault.object) === title(object))) {
      assert.deepEqual(other.object, object, `${object.metadata.name} in ${file} and ${other.file}`)
    }
  }
})

test('faults: a host has one VirtualService, since Istio merges none inside the mesh', () => {
  const names = new Map<string, string>()
  for (const { object } of faults) {
    for (const host of object.spec.hosts) {
      assert.equal(names.get(host) ?? object.metadata.name, object.metadata.name, host)
      names.set(host, object.metadata.name)
    }
  }
})

test('faults: objects have no namespace of their own, so that `kubectl apply -n` decides', () => {
  for (const { file, object } of faults) assert.equal(object.metadata.namespace, undefined, file)
})

test('faults: each file says how to apply and how to remove it', () => {
  for (const file of faultFiles) {
    const text = readFileSync(join(FAULTS, file), 'utf8')
    for (const verb of ['apply', 'delete'])
      assert(text.includes(`kubectl ${verb} -n boutique -f k8s/faults/${file}`), `${file}: ${verb}`)
  }
})

test('faults and monitors: sources, hosts and destinations are services of Online Boutique', { skip }, () => {
  const { services } = parse(readFileSync(join(ROOT, 'topologies/online-boutique.yaml'), 'utf8')) as {
    services: readonly { name: string }[]
  }
  const known = services.map(({ name }) => name)
  const used = [
    ...faults.flatMap(({ object: { spec } }) => [
      ...spec.hosts,
      ...spec.http.flatMap(({ match = [], route }) => [
        ...match.flatMap(({ sourceLabels = {} }) => Object.values(sourceLabels)),
        ...route.map(({ destination }) => destination.host),
      ]),
    ]),
    ...deployments.flatMap((deployment) =>
      ['service1', 'service2'].flatMap((name) => flag(containerOf(deployment).args, name)),
    ),
  ]
  assert.deepEqual(
    [...new Set(used)].filter((name) => !known.includes(name)),
    [],
  )
})
